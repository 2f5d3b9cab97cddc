"""Ray Client, as far as programs ask whether they run through it: they never do.

The one thing to know: `ray.is_connected()` is what libraries call here. This file must not connect.
"""

from __future__ import annotations

from typing import Any

MISSING = "Ray Client reaches another machine; there is one machine here: connect with ray.init(address=...)."


class RayAPIStub:
    """The proxy's face: not connected."""

    def is_connected(self) -> bool:
        """Whether calls go through the proxy."""
        return False

    def is_default(self) -> bool:
        """Whether this is the proxy of those who did not ask for another."""
        return True

    def connect(self, *_args: Any, **_options: Any) -> Any:
        """Raises `ConnectionError`."""
        raise ConnectionError(MISSING)

    def disconnect(self) -> None:
        """Nothing is there to be let go."""


ray = RayAPIStub()


def num_connected_contexts() -> int:
    """How many proxies this process is connected to."""
    return 0


__all__ = ["RayAPIStub", "num_connected_contexts", "ray"]

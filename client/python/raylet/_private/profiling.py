"""Stretches of a program that show in the timeline.

The one thing to know: `with profile("name"):` is recorded by the native side, also in workers.
"""

from __future__ import annotations

from typing import Any


def profile(event_type: str, extra_data: Any = None) -> Any:
    """A context manager; what runs in it shows in `timeline()` under this name."""
    from .. import _native

    return _native.profile_event(event_type)

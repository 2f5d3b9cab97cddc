"""`RuntimeEnv`: a dictionary of the fields of a runtime environment, checked when it is made.

The one thing to know: it is a plain dictionary otherwise, and a plain dictionary does as well.
"""

from __future__ import annotations

from typing import Any


class RuntimeEnvConfig(dict):
    """Settings of how an environment is made: `setup_timeout_seconds`, `eager_install`. Accepted, not used."""

    def __init__(self, setup_timeout_seconds: int = 600, eager_install: bool = True, **more: Any) -> None:
        super().__init__(setup_timeout_seconds=setup_timeout_seconds, eager_install=eager_install, **more)


class RuntimeEnv(dict):
    """A runtime environment: `env_vars`, `working_dir`, `py_modules`, `excludes`.

    Raises TypeError for fields of a wrong type and ValueError for fields that are not supported.
    """

    def __init__(self, *, _validate: bool = True, **fields: Any) -> None:
        super().__init__({name: value for name, value in fields.items() if value is not None})
        if _validate:
            from .._private import environments

            environments.checked(self)

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (dict(self),)

    def to_dict(self) -> dict[str, Any]:
        """The fields as a plain dictionary."""
        return dict(self)

    def env_vars(self) -> dict[str, str]:
        """The variables."""
        return dict(self.get("env_vars") or {})

    def working_dir(self) -> str:
        """The folder, or ""."""
        return self.get("working_dir") or ""


def _restore(fields: dict[str, Any]) -> RuntimeEnv:
    return RuntimeEnv(_validate=False, **fields)


__all__ = ["RuntimeEnv", "RuntimeEnvConfig"]

"""Messages that are worth saying once.

The one thing to know: "once" is per process and key, and once a minute where a program asked for
that. This file must not print anything itself.
"""

from __future__ import annotations

import time

PERIOD_SECONDS = 60.0

_logged: set[str] = set()
_is_disabled = False
_is_periodic = False
_last_logged = 0.0


def log_once(key: str) -> bool:
    """Whether this is the first time that somebody asks for `key`."""
    global _last_logged
    if _is_disabled:
        return False
    if key not in _logged:
        _logged.add(key)
        _last_logged = time.monotonic()
        return True
    if _is_periodic and time.monotonic() - _last_logged > PERIOD_SECONDS:
        _logged.clear()
        _last_logged = time.monotonic()
    return False


def disable_log_once_globally() -> None:
    """From now on `log_once` says False in this process."""
    global _is_disabled
    _is_disabled = True


def enable_periodic_logging() -> None:
    """From now on keys are forgotten every minute in this process."""
    global _is_periodic
    _is_periodic = True


def reset_log_once(key: str | None = None) -> None:
    """Forgets `key`, or all keys."""
    if key is None:
        _logged.clear()
    else:
        _logged.discard(key)


__all__ = ["disable_log_once_globally", "enable_periodic_logging", "log_once", "reset_log_once"]

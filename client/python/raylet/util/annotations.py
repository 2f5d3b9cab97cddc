"""Marks on an API that say how stable it is: for readers alone.

The one thing to know: each of them gives back what it was given. This file must not wrap anything, so
that a decorated function costs what it costs undecorated.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


class RayDeprecationWarning(DeprecationWarning):
    """What the use of something deprecated warns of."""


def _mark(*args: Any, **about: Any) -> Any:
    is_bare = len(args) == 1 and not about and callable(args[0])
    return args[0] if is_bare else _same


def _same(marked: T) -> T:
    return marked


PublicAPI: Callable[..., Any] = _mark
DeveloperAPI: Callable[..., Any] = _mark
Deprecated: Callable[..., Any] = _mark

__all__ = ["Deprecated", "DeveloperAPI", "PublicAPI", "RayDeprecationWarning"]

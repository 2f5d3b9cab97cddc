"""The signatures of remote functions and methods: which calls fit, found out where the call is written.

The one thing to know: a signature travels as a tuple of `(name, kind, has_default)`, so that no default has to be
picklable; calls that fit are recognised by calling an empty function of the same shape, which costs less than a
microsecond, and only a call that does not fit pays for `inspect`.

This module must not change arguments: it says yes, or raises TypeError.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

Shape = tuple[tuple[str, int, bool], ...]
Bind = Callable[[tuple[Any, ...], dict[str, Any]], None]

_KINDS = (
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
    inspect.Parameter.VAR_POSITIONAL,
    inspect.Parameter.KEYWORD_ONLY,
    inspect.Parameter.VAR_KEYWORD,
)
_ANY: Shape = (("args", 2, False), ("kwargs", 4, False))


def shape_of(function: Callable[..., Any], is_first_dropped: bool = False) -> Shape:
    """The shape of a function's parameters; of any call where the function does not tell.

    Raises ValueError for a method without a first parameter.
    """
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (ValueError, TypeError):
        return _ANY
    if is_first_dropped:
        if not parameters:
            name = getattr(function, "__name__", function)
            raise ValueError(f"Methods must take a 'self' argument, but the method '{name}' does not have one.")
        if int(parameters[0].kind) < 2:
            parameters = parameters[1:]
    return tuple((p.name, int(p.kind), p.default is not p.empty) for p in parameters)


def positional(shape: Shape) -> tuple[int, int]:
    """The least and the most positional arguments of a call that needs no look at the names; -1: no limit.

    A shape with keyword-only parameters that must be given has no such call: the least is above the most then.
    """
    least = sum(1 for _, kind, has_default in shape if kind < 2 and not has_default)
    most = sum(1 for _, kind, _ in shape if kind < 2)
    if any(kind == 3 and not has_default for _, kind, has_default in shape):
        return 1, 0
    return least, -1 if any(kind == 2 for _, kind, _ in shape) else most


def binder(shape: Shape) -> Bind:
    """A function that raises TypeError, in the words of `inspect`, for arguments that do not fit `shape`."""
    probe: Callable[..., None] | None = None

    def bind(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        nonlocal probe
        if probe is None:
            probe = _probe(shape)
        try:
            probe(*args, **kwargs)
        except TypeError:
            explain(shape, args, kwargs)

    return bind


def explain(shape: Shape, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Raise the TypeError of arguments that do not fit; return where they do."""
    parameters = [
        inspect.Parameter(name, _KINDS[kind], default=None if has_default else inspect.Parameter.empty)
        for name, kind, has_default in shape
    ]
    try:
        inspect.Signature(parameters).bind(*args, **kwargs)
    except TypeError as error:
        raise TypeError(str(error)) from None


def _probe(shape: Shape) -> Callable[..., None]:
    """A function that takes what `shape` takes and does nothing."""
    parts: list[str] = []
    has_star = False
    for index, (name, kind, has_default) in enumerate(shape):
        if kind == 3 and not has_star:
            parts.append("*")
            has_star = True
        prefix = {2: "*", 4: "**"}.get(kind, "")
        has_star = has_star or kind == 2
        parts.append(f"{prefix}{name}{'=None' if has_default else ''}")
        is_last_positional = kind == 0 and (index + 1 == len(shape) or shape[index + 1][1] != 0)
        if is_last_positional:
            parts.append("/")
    return eval(f"lambda {', '.join(parts)}: None", {})

"""What a class's methods are to those who call them: signatures, numbers of results, groups.

The one thing to know: a `Method` is plain and travels inside an actor's definition, so that a handle that was looked
up by name or received knows the methods without having the class.

This module must not need the class to be importable where a handle is.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

from . import options as option_tables
from . import signature


class Method(NamedTuple):
    """One method, with the options that `@method` gave it; None: none given."""

    shape: signature.Shape
    is_generator: bool = False
    num_returns: Any = None
    group: str | None = None
    max_task_retries: int | None = None
    retry_exceptions: Any = None
    ahead: int | None = None
    each: int = 1
    decorator: Callable[..., Any] | None = None


# What every actor understands besides its class's methods.
HIDDEN: dict[str, Method] = {
    "__ray_ready__": Method(()),
    "__ray_terminate__": Method(()),
    "__ray_call__": Method((("function", 0, False), ("args", 2, False), ("kwargs", 4, False))),
    # A call whose exceptions are tried again only if they are of certain kinds, given at the call.
    "__raylet_retry__": Method(
        (("allowed", 0, False), ("name", 0, False), ("args", 2, False), ("kwargs", 4, False))
    ),
}


def methods_of(cls: type) -> dict[str, Method]:
    """The methods of a class, inherited ones as well, by name."""
    found = {name: _describe(cls, name, function) for name, function in inspect.getmembers(cls, _is_method)}
    return {**found, **HIDDEN}


def _is_method(value: Any) -> bool:
    return inspect.isfunction(value) or inspect.ismethod(value) or type(value).__name__ == "cython_function_or_method"


def _describe(cls: type, name: str, function: Any) -> Method:
    bare = inspect.unwrap(function)
    is_bound = inspect.ismethod(function) or isinstance(inspect.getattr_static(cls, name), staticmethod)

    def given(option: str, default: Any = None) -> Any:
        return getattr(bare, f"__ray_{option}__", getattr(function, f"__ray_{option}__", default))

    return Method(
        signature.shape_of(bare, not is_bound),
        inspect.isgeneratorfunction(bare) or inspect.isasyncgenfunction(bare),
        given("num_returns"),
        given("concurrency_group"),
        given("max_task_retries"),
        given("retry_exceptions"),
        given("generator_backpressure_num_objects"),
        given("num_objects_per_yield", 1),
        given("invocation_decorator"),
    )


def is_async(cls: type) -> bool:
    """Whether any method is a coroutine, which makes the whole actor run on an event loop."""
    return any(
        inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)
        for _, function in inspect.getmembers(cls, _is_method)
    )


def annotate(options: dict[str, Any]) -> Callable[[Any], Any]:
    """The decorator that `@method(**options)` is. Raises AssertionError for unknown options."""
    renamed = option_tables.renamed(options, option_tables.OLD_METHOD_NAMES)
    for key in renamed:
        assert key in option_tables.METHOD, (
            f"Unexpected keyword argument to @ray.method: '{key}'. The supported keyword arguments are "
            f"{list(option_tables.METHOD)}"
        )

    def decorate(function: Any) -> Any:
        if "num_returns" in renamed:
            is_generator = inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)
            option_tables.validate_num_returns(is_generator, renamed["num_returns"])
        for key, value in renamed.items():
            setattr(function, f"__ray_{key.lstrip('_')}__", value)
        return function

    return decorate

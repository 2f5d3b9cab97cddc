"""Exported code in the worker: what a key runs.

The one thing to know: the runtime environment is made before the code is read. What comes back is the program's own
function where nothing has to be added, so that a call of it goes straight from the native side to the program.

This module must not keep references to definitions.
"""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Iterator
from typing import Any

from .. import _native
from . import environments, placement, worker_process
from . import session as sessions
from .errors import RetryFilter

# What this process has loaded, by key.
functions: dict[int, dict[str, Any]] = {}

THREADS = "OMP_NUM_THREADS"


def load_function(key: int, definition: tuple[dict[str, Any], Any]) -> tuple[Callable[..., Any], str]:
    """The function of a definition, and the name that its tasks go by."""
    info, reference = definition
    environments.apply(info["environment"])
    placement.enter(info.get("placed"))
    # What a function captured is its own in each worker, and it may write to it.
    function, allowed = _native.get_writable(reference)
    functions[key] = info
    worker_process.say_first(info["shown"])
    function = _shaped(function, info["form"])
    if allowed is not None:
        function = RetryFilter(function, allowed)
    threads = threads_of(info["resources"])
    if threads != "1" and not inspect.isgeneratorfunction(function):
        function = _with_threads(function, threads)
    return function, info["shown"]


def threads_of(resources: dict[str, float]) -> str:
    """How many threads a library should use for a call that holds these resources."""
    return str(max(1, int(resources.get("CPU", 1))))


def is_threads_ours() -> bool:
    """Whether the number of threads is ours to set: the driver's environment did not."""
    session = sessions.current()
    return session is not None and session.job.get("omp") is None


def _with_threads(function: Callable[..., Any], threads: str) -> Callable[..., Any]:
    """The function with the environment that tells libraries of its CPUs, for the time of each call."""
    if not is_threads_ours():
        return function

    @functools.wraps(function)
    def limited(*args: Any, **kwargs: Any) -> Any:
        before = os.environ.get(THREADS)
        os.environ[THREADS] = threads
        try:
            return function(*args, **kwargs)
        finally:
            os.environ[THREADS] = before or "1"

    return limited


def _shaped(function: Callable[..., Any], form: str) -> Callable[..., Any]:
    """A generator function in the form that its number of results asks for."""
    if not form:
        return function

    def shaped(*args: Any, **kwargs: Any) -> Any:
        items = function(*args, **kwargs)
        if form == "dynamic":
            from .generator import DynamicObjectRefGenerator

            return DynamicObjectRefGenerator([_native.put(item) for item in items])
        return list(items) if form == "list" else _each(items, int(form.split()[1]))

    shaped.__name__ = shaped.__qualname__ = function.__name__
    return shaped


def _each(items: Iterator[Any], count: int) -> Iterator[Any]:
    """The parts of each item, of which there must be `count`."""
    for item in items:
        yield from parts_of(item, count)


def parts_of(returned: Any, count: int) -> Any:
    """The parts of what a function of `count` results returned.

    Raises ValueError for a wrong number of them and TypeError for what has none.
    """
    parts = list(returned) if inspect.isgenerator(returned) else returned
    try:
        found = len(parts)
    except TypeError:
        raise TypeError(f"object of type '{type(returned).__name__}' has no len()") from None
    if found != count:
        raise ValueError(f"Task returned {found} objects, but num_returns={count}.")
    return list(parts)


def load_actor(definition: tuple[dict[str, Any], Any]) -> Any:
    """What makes and calls an actor of a definition."""
    info, reference = definition
    environments.apply(info["environment"])
    placement.enter(info.get("placed"))
    if is_threads_ours():
        os.environ[THREADS] = threads_of(info["resources"])
    cls, _ = _native.get_writable(reference)
    if info["mode"] == "hosted":
        from . import hosting

        return hosting.Host(cls, info)
    return Plain(cls, info)


class Plain:
    """An actor that runs one call after the other on the main thread."""

    mode = "plain"

    def __init__(self, cls: type, info: dict[str, Any]) -> None:
        self.cls = cls
        self.info = info
        self.name = info["name"]

    def create(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """An instance. Raises what its constructor raises."""
        _remember(self.info)
        instance = self.cls(*args, **kwargs)
        worker_process.label_actor(self.info, instance)
        return instance

    def methods(self, instance: Any) -> list[str]:
        """The names of the methods that can be called."""
        return list(self.info["methods"])

    def method(self, instance: Any, name: str) -> Callable[..., Any]:
        """What a call of a method runs."""
        return method_of(instance, name, self.info)


class Current:
    """What this process is, where it is an actor."""

    info: dict[str, Any] | None = None
    restarts: int = 0


def _remember(info: dict[str, Any]) -> None:
    Current.info = info
    # The constructor runs once more for each restart.
    worker_process.label_actor(info)
    Current.restarts = int(_native.context().get("attempt") or 0)


def method_of(instance: Any, name: str, info: dict[str, Any]) -> Callable[..., Any]:
    """The callable of a method, hidden ones as well."""
    hidden = _HIDDEN.get(name)
    if hidden is not None:
        return lambda *args, **kwargs: hidden(instance, info, *args, **kwargs)
    function = getattr(instance, name)
    described = info["methods"][name]
    if described.is_generator and isinstance(described.num_returns, int) and described.num_returns > 1:
        return _shaped(function, "list")
    if described.is_generator and described.each > 1:
        return _shaped(function, f"each {described.each}")
    if isinstance(described.retry_exceptions, (list, tuple)) and not inspect.iscoroutinefunction(function):
        return RetryFilter(function, tuple(described.retry_exceptions))
    return function


def _ready(instance: Any, info: dict[str, Any]) -> bool:
    return True


def _terminate(instance: Any, info: dict[str, Any]) -> None:
    from ..actor import exit_actor

    exit_actor()


def _call(instance: Any, info: dict[str, Any], function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return function(instance, *args, **kwargs)


def _retry(
    instance: Any, info: dict[str, Any], allowed: tuple[type, ...], name: str, *args: Any, **kwargs: Any
) -> Any:
    return RetryFilter(getattr(instance, name), allowed)(*args, **kwargs)


_HIDDEN: dict[str, Callable[..., Any]] = {
    "__ray_ready__": _ready,
    "__ray_terminate__": _terminate,
    "__ray_call__": _call,
    "__raylet_retry__": _retry,
}

"""Local mode: every call runs at once, in the calling thread, before `.remote` returns.

The one thing to know: values still go through the store, so that what a call gets is a copy as always; errors are
stored and raised by `get`. Breakpoints work, as there is one process.

This module must not be needed outside of local mode.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

from .. import _native
from . import errors, invocation, signature
from .generator import DynamicObjectRefGenerator, ObjectRefGenerator
from .ids import ActorID
from .loading import method_of, parts_of

ObjectRef = _native.ObjectRef

_actors: dict[bytes, LocalCore] = {}
_names: dict[str, LocalCore] = {}
_running: contextvars.ContextVar[Any] = contextvars.ContextVar("raylet_local_actor", default=None)


def forget() -> None:
    """Forget the actors: the session has ended."""
    _actors.clear()
    _names.clear()


def task_caller(task: Any) -> Callable[..., Any]:
    """What `.remote` of a remote function runs."""
    count = task.options.get("num_returns")
    results = "dynamic" if count == "dynamic" else invocation.counted_returns(count, task.is_generator)
    bind = signature.binder(task.shape)
    name = task.options.get("name") or task.code.name

    def remote(*args: Any, **kwargs: Any) -> Any:
        bind(args, kwargs)
        return run(task.code.value, name, None, args, kwargs, results)

    return remote


def run(
    function: Callable[..., Any],
    name: str,
    actor: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    results: Any,
) -> Any:
    """Call a function as a task and give what its `.remote` gives."""
    token = _running.set(actor)
    instance = actor.instance if actor is not None else None
    try:
        values = [_value_of(arg) for arg in args]
        named = {key: _value_of(arg) for key, arg in kwargs.items()}
        returned = function(*values, **named)
        if inspect.iscoroutine(returned):
            returned = _awaited(returned)
        if inspect.isasyncgen(returned):
            returned = iter(_awaited(_collected(returned)))
        if results == invocation.STREAMING:
            return ObjectRefGenerator(LocalStream(returned, name, instance))
        return _handed_out(returned, results)
    except (SystemExit, KeyboardInterrupt):
        raise
    except BaseException as error:
        return _failed(error, name, instance, results)
    finally:
        _running.reset(token)


def _value_of(arg: Any) -> Any:
    """What a call gets of an argument: the value of a reference, and of anything else a copy."""
    return _native.get(arg if isinstance(arg, ObjectRef) else _native.put(arg))


def _awaited(coroutine: Any) -> Any:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(coroutine)
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(asyncio.run(coroutine)))
    thread.start()
    thread.join()
    return found[0]


async def _collected(items: Any) -> list[Any]:
    return [item async for item in items]


def _handed_out(returned: Any, results: Any) -> Any:
    if results == 0:
        return None
    if results == "dynamic":
        return _native.put(DynamicObjectRefGenerator([_put(item) for item in returned]))
    if results == 1:
        return _put(returned)
    return [_put(part) for part in parts_of(returned, results)]


class _Returned:
    """A reference that is a value: a task may return one, though a program may not put one."""

    def __init__(self, reference: Any) -> None:
        self.reference = reference

    def __reduce__(self) -> tuple[Any, ...]:
        return _same, (self.reference,)


def _same(value: Any) -> Any:
    return value


def _put(value: Any) -> Any:
    return _native.put(_Returned(value) if isinstance(value, ObjectRef) else value)


def _failed(error: BaseException, name: str, instance: Any, results: Any) -> Any:
    """References to an error, as many as there would have been results."""
    if results == 0:
        return None
    if results == invocation.STREAMING:
        return ObjectRefGenerator(LocalStream(iter([error]), name, instance, is_error=True))
    refs = [put_error(error, name, instance) for _ in range(1 if results == "dynamic" else results)]
    return refs[0] if len(refs) == 1 else refs


def put_error(error: BaseException, name: str, instance: Any) -> Any:
    """A reference whose `get` raises an exception."""
    message, payload, _, kind = errors.describe(error, name, instance)
    return _native.put_error(kind or "Returned", name, message, payload)


class LocalStream:
    """The items of a generator that runs as it is read."""

    def __init__(self, items: Iterator[Any], name: str, instance: Any, is_error: bool = False) -> None:
        self.items = items
        self.name = name
        self.instance = instance
        self.is_error = is_error
        self.is_over = False

    def next(self, timeout: float | None = None) -> Any:
        """The reference of the next item; None at the end."""
        if self.is_over:
            return None
        try:
            item = next(self.items)
            if self.is_error:
                raise item
            return _put(item)
        except StopIteration:
            self.is_over = True
            return None
        except Exception as error:
            self.is_over = True
            return put_error(error, self.name, self.instance)

    def is_next_ready(self) -> bool:
        """Always: the next item is made when it is asked for."""
        return True

    def completed(self) -> Any:
        """A reference to the end."""
        return _native.put(None)

    def on_next(self, callback: Callable[[], None]) -> None:
        """The next item is there."""
        callback()


class LocalCore:
    """An actor of local mode, in the place of a native one."""

    is_local = True

    def __init__(self, maker: Any, info: dict[str, Any]) -> None:
        self.bytes = os.urandom(12) + b"\0\0\0\1"
        self.described = info
        self.instance: Any = None
        self.death: BaseException | None = None
        self.maker = maker

    def start(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Run the constructor; what it raises is the actor's death."""
        token = _running.set(self)
        try:
            values = [_value_of(arg) for arg in args]
            named = {key: _value_of(arg) for key, arg in kwargs.items()}
            self.instance = self.maker.code.value(*values, **named)
        except Exception as error:
            self.death = error
        finally:
            _running.reset(token)

    def id(self) -> bytes:
        """The 16 bytes that name it."""
        return self.bytes

    def info(self) -> tuple[dict[str, Any], None]:
        """What handles are told."""
        return self.described, None

    def kill(self, no_restart: bool) -> None:
        """End it."""
        from ..exceptions import ActorDiedError

        self.death = ActorDiedError("The actor is dead because it was killed by `ray.kill`.")
        for name in [name for name, core in _names.items() if core is self]:
            del _names[name]

    def caller(self, name: str, description: Any, options: dict[str, Any]) -> Callable[..., Any]:
        """What `.remote` of a method runs."""
        given = options.get("num_returns")
        count = description.num_returns if given is None else given
        results = invocation.counted_returns(count, description.is_generator)
        bind = signature.binder(description.shape)

        def remote(*args: Any, **kwargs: Any) -> Any:
            bind(args, kwargs)
            if self.death is not None:
                return _failed(self.death, f"{self.described['name']}.{name}", None, results)
            function = method_of(self.instance, name, self.described)
            return run(function, name, self, args, kwargs, results)

        return remote

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LocalCore) and other.bytes == self.bytes

    def __hash__(self) -> int:
        return hash(self.bytes)

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (self.bytes,)


def _restore(actor_id: bytes) -> LocalCore:
    return _actors[actor_id]


def make_actor(maker: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Make an actor and give its handle. Raises ActorAlreadyExistsError for a name that is taken."""
    from ..actor import ActorHandle

    name = maker.options.get("name")
    if name in _names:
        if maker.options.get("get_if_exists"):
            return ActorHandle(_names[name])
        raise errors.name_taken(name)
    core = LocalCore(maker, maker.info({}, 1))
    _actors[core.bytes] = core
    if name is not None:
        _names[name] = core
    core.start(args, kwargs)
    return ActorHandle(core)


def find_actor(name: str) -> LocalCore | None:
    """The actor of a name."""
    return _names.get(name)


def current_core() -> LocalCore | None:
    """The actor whose method or constructor runs."""
    return _running.get()


def actor_id() -> ActorID | None:
    """The id of the actor whose method runs."""
    core = _running.get()
    return ActorID(core.bytes) if core is not None else None

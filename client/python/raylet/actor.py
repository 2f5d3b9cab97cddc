"""Actors: what `@remote` makes of a class, and the handles by which its instances are called.

The one thing to know: `handle.method` is made at its first use and kept in the handle; its `.remote` is a native
caller, so that calls run no Python code of this package.

This module must not hold handles: a native `ActorCore` counts them, and an actor goes with its last one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, NoReturn

from . import _native
from ._private import actor_creation, invocation, signature
from ._private import options as option_tables
from ._private import session as sessions
from ._private.code import Code
from ._private.ids import ActorID
from ._private.methods import HIDDEN, Method, annotate
from .exceptions import AsyncioActorExit

__all__ = ["ActorClass", "ActorClassInheritanceException", "ActorHandle", "ActorMethod", "exit_actor", "method"]

logger = logging.getLogger("ray")


def method(*args: Any, **kwargs: Any) -> Any:
    """Give a method of an actor options: `@method(num_returns=2)`.

    Options: num_returns, concurrency_group, max_task_retries, retry_exceptions, enable_task_events,
    _generator_backpressure_num_objects, _num_objects_per_yield. Raises AssertionError for others.
    """
    if len(args) == 1 and callable(args[0]) and not kwargs:
        return args[0]
    assert not args, (
        "The @ray.method decorator must be applied using no arguments or at least one of the arguments in the list "
        f"{list(option_tables.METHOD)}, for example '@ray.method(num_returns=2)'."
    )
    return annotate(kwargs)


class ActorClassInheritanceException(TypeError):
    """A class was derived from an actor class."""


class _Metadata:
    """What programs look up of an actor class under `__ray_metadata__`."""

    def __init__(self, code: Code, options: dict[str, Any]) -> None:
        self.modified_class = code.value
        self.class_name = code.name
        for key, check in option_tables.ACTOR.items():
            setattr(self, key, options.get(key, check.default))


class ActorClass:
    """A class whose instances live in processes of their own: `A.remote(...)` makes one and gives its handle."""

    def __init__(self, code: Code, options: dict[str, Any]) -> None:
        self._code = code
        self._default_options = options
        self._maker: actor_creation.Maker | None = None
        self.__doc__ = code.value.__doc__
        self.__module__ = code.module
        self.__name__ = code.name

    def __mro_entries__(self, bases: tuple[Any, ...]) -> NoReturn:
        raise ActorClassInheritanceException(
            f"Attempted to define subclass of actor class '{self._code.name}'. Inheriting from actor classes is not "
            "currently supported. You can instead inherit from a non-actor base class and make the derived class an "
            "actor class (with @ray.remote)."
        )

    def __call__(self, *args: Any, **kwargs: Any) -> NoReturn:
        name = self._code.name
        raise TypeError(
            f"Actors cannot be instantiated directly. Instead of '{name}()', use '{name}.remote()'."
        )

    def __getattr__(self, name: str) -> Any:
        # Attributes of the class can be read through the actor class.
        if "_code" not in self.__dict__ or name.startswith("__ray_"):
            raise AttributeError(name)
        return getattr(self._code.value, name)

    @property
    def __ray_metadata__(self) -> _Metadata:
        return _Metadata(self._code, self._default_options)

    def __repr__(self) -> str:
        return f"ActorClass({self._code.name})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore_class, (self._code.parcel(), self._default_options)

    def remote(self, *args: Any, **kwargs: Any) -> ActorHandle:
        """Make an actor; returns its handle at once. Raises TypeError for arguments its constructor does not take."""
        return self._create(args, kwargs)

    def _remote(self, args: Any = None, kwargs: Any = None, **actor_options: Any) -> ActorHandle:
        target = self.options(**actor_options) if actor_options else self
        return target._create(tuple(args or ()), dict(kwargs or {}))

    def _create(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> ActorHandle:
        if self._maker is None:
            self._maker = actor_creation.Maker(self._code, self._default_options)
        return self._maker.make(args, kwargs)

    def options(self, **actor_options: Any) -> ActorClass:
        """The same class with some options replaced. Raises ValueError or TypeError for wrong ones."""
        over = option_tables.renamed(actor_options, option_tables.OLD_ACTOR_NAMES)
        below = {key: value for key, value in self._default_options.items() if key != "concurrency_groups"}
        changed = option_tables.merged(below, over)
        option_tables.validate_actor(changed, True)
        if "concurrency_groups" in self._default_options:
            changed["concurrency_groups"] = self._default_options["concurrency_groups"]
        actor_creation.check_environment(over)
        return _class_of(self._code, changed)

    def bind(self, *args: Any, **kwargs: Any) -> Any:
        """Graphs of calls are not there: raises NotImplementedError."""
        from .dag import unsupported

        unsupported("bind")


def _class_of(code: Code, options: dict[str, Any]) -> ActorClass:
    """An actor class whose type bears its name, as programs see in messages."""
    kind = type(f"ActorClass({code.name})", (ActorClass,), {"__module__": __name__})
    return kind(code, options)


def _restore_class(parcel: tuple[Any, ...], options: dict[str, Any]) -> ActorClass:
    return _class_of(Code.of_parcel(parcel), options)


def make(cls: type, options: dict[str, Any]) -> ActorClass:
    """What `@remote(**options)` makes of a class. Raises ValueError or TypeError for wrong options."""
    option_tables.validate_actor(options, False)
    actor_creation.check_environment(options)
    for attribute in ("remote", "_remote"):
        if hasattr(cls, attribute):
            logger.warning("Creating an actor from class %s overwrites attribute %s of that class", cls, attribute)
    return _class_of(Code(cls, cls.__name__, cls.__module__ or "__main__"), options)


class ActorHandle:
    """A handle of an actor. `handle.method.remote(...)` calls it; handles can be passed, stored and returned."""

    def __init__(self, core: Any, info: dict[str, Any] | None = None) -> None:
        self.__dict__["_core"] = core
        if info is not None:
            self.__dict__["_info"] = info

    def __getattr__(self, name: str) -> Any:
        # Only for what is not there yet: the description at its first use, and each method at its first.
        known = self.__dict__
        if name == "_info" and "_core" in known:
            known["_info"] = known["_core"].info()[0]
            return known["_info"]
        if "_core" in known and (not name.startswith("_") or name in HIDDEN or name in self._info["methods"]):
            description = self._info["methods"].get(name)
            if description is not None:
                made = known[name] = ActorMethod(known["_core"], self._info, name, description)
                return made
        raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'")

    @property
    def _actor_id(self) -> ActorID:
        return ActorID(self._core.id())

    @property
    def _ray_actor_id(self) -> ActorID:
        return self._actor_id

    @property
    def _actor_job_id(self) -> Any:
        return self._actor_id.job_id

    def __repr__(self) -> str:
        return f"Actor({self._info['name']}, {self._actor_id.hex()})"

    def __dir__(self) -> list[str]:
        return list(self._info["methods"])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ActorHandle) and self._core == other._core

    def __hash__(self) -> int:
        return hash(self._core)

    def __reduce__(self) -> tuple[Any, ...]:
        return ActorHandle, (self._core,)


class ActorMethod:
    """A method of an actor: `.remote(...)` calls it, `.options(...)` gives the same with other options."""

    def __init__(
        self, core: Any, info: dict[str, Any], name: str, description: Method, options: dict[str, Any] | None = None
    ) -> None:
        self._core = core
        self._info = info
        self._name = name
        self._description = description
        self._options = options or {}
        self.remote = self._caller()

    def _caller(self) -> Any:
        if getattr(self._core, "is_local", False):
            return self._core.caller(self._name, self._description, self._options)
        caller = _native_method(self._core, self._info, self._name, self._description, self._options)
        limit = self._info.get("max_pending_calls") or -1
        if limit > 0:
            caller = actor_creation.limited(caller, self._core, limit, self._name)
        decorator = self._description.decorator
        if decorator is not None:
            invoke = decorator(lambda args, kwargs: caller(*(args or ()), **(kwargs or {})))
            return lambda *args, **kwargs: invoke(args, kwargs)
        return caller

    def __call__(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError(
            f"Actor methods cannot be called directly. Instead of running 'object.{self._name}()', try "
            f"'object.{self._name}.remote()'."
        )

    def __repr__(self) -> str:
        return f"ActorMethod({self._info['name']}.{self._name})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore_method, (ActorHandle(self._core), self._name, self._options)

    def options(self, **options: Any) -> ActorMethod:
        """The same method with options: num_returns, name, concurrency_group, max_task_retries, retry_exceptions,
        enable_task_events, _generator_backpressure_num_objects. Raises TypeError for others."""
        over = option_tables.renamed(options, option_tables.OLD_METHOD_NAMES)
        if "_num_objects_per_yield" in over:
            raise ValueError(
                "_num_objects_per_yield cannot be overridden per actor method call. Use "
                "@ray.method(_num_objects_per_yield=...) instead."
            )
        unknown = over.keys() - _CALL_OPTIONS
        if unknown:
            raise TypeError(f"ActorMethod.options() got an unexpected keyword argument '{sorted(unknown)[0]}'")
        option_tables.validate_num_returns(self._description.is_generator, over.get("num_returns"))
        return ActorMethod(self._core, self._info, self._name, self._description, {**self._options, **over})

    def _remote(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        """Call with the arguments as a tuple and a dictionary, and with options."""
        target = self.options(**options) if options else self
        caller: Any = target.remote
        return caller(*(args or ()), **(kwargs or {}))

    def bind(self, *args: Any, **kwargs: Any) -> Any:
        """Graphs of calls are not there: raises NotImplementedError."""
        from .dag import unsupported

        unsupported("bind")


_CALL_OPTIONS = {
    "num_returns",
    "name",
    "concurrency_group",
    "max_task_retries",
    "retry_exceptions",
    "enable_task_events",
    "_generator_backpressure_num_objects",
    "tensor_transport",
    "_labels",
    "_timeout",
}


def _restore_method(handle: ActorHandle, name: str, options: dict[str, Any]) -> Any:
    found = getattr(handle, name)
    return found.options(**options) if options else found


def _native_method(core: Any, info: dict[str, Any], name: str, description: Method, options: dict[str, Any]) -> Any:
    """The native caller of a method with options."""

    def chosen(key: str, declared: Any) -> Any:
        value = options.get(key)
        return declared if value is None else value

    retries = chosen("max_task_retries", description.max_task_retries)
    retried = chosen("retry_exceptions", description.retry_exceptions)
    group = chosen("concurrency_group", description.group)
    actor_creation.check_group(info, group)
    num_returns = invocation.counted_returns(
        chosen("num_returns", description.num_returns), description.is_generator
    )
    ahead = chosen("_generator_backpressure_num_objects", description.ahead)
    native_options = {
        "max_task_retries": info.get("max_task_retries") if retries is None else retries,
        "retry_errors": bool(retried),
        "concurrency_group": group,
        "name": options.get("name") or f"{info['name']}.{name}",
        "timeout": options.get("_timeout"),
    }
    bind: Any = signature.binder(description.shape)
    target, positional = name, signature.positional(description.shape)
    # Kinds of exceptions chosen at the call travel with it; those of the declaration are known where it runs.
    allowed = options.get("retry_exceptions")
    kinds = tuple(allowed) if isinstance(allowed, (list, tuple)) else None
    if kinds is not None:
        target, positional, bind = "__raylet_retry__", (0, -1), None
    limit = None if ahead is None or ahead < 0 else ahead
    caller = core.method(target, native_options, positional, bind, num_returns, limit)
    if kinds is not None:
        return _with_kinds(caller, kinds, name, signature.binder(description.shape))
    return caller


def _with_kinds(caller: Any, allowed: tuple[type, ...], name: str, bind: signature.Bind) -> Callable[..., Any]:
    def remote(*args: Any, **kwargs: Any) -> Any:
        bind(args, kwargs)
        return caller(allowed, name, *args, **kwargs)

    return remote


def exit_actor() -> NoReturn:
    """End the actor that this is called in, after the calls that run. Its exit handlers are run.

    Raises TypeError outside an actor.
    """
    session = sessions.current()
    is_actor = session is not None and session.kind == "worker" and _native.context().get("actor_id") is not None
    if not is_actor:
        kind = session.kind if session is not None else None
        raise TypeError(
            f"exit_actor API is called on a non-actor worker, {kind}. Call this API inside an actor methods"
            "if you'd like to exit the actor gracefully."
        )
    _native.exit_actor()
    raise AsyncioActorExit("exit_actor() is called.")

"""Remote functions: what `@remote` makes of a function.

The one thing to know: `RemoteFunction.remote` is a native caller. The first call of a session exports the function
and sets the caller; the calls after that run no Python code of this package.

This module must not hold a `RemoteFunction` from its caller: `remote(f).remote(x)` drops the first at once.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from . import _native
from ._private import invocation, signature
from ._private import options as option_tables
from ._private import session as sessions
from ._private.code import Code
from ._private.placement import unschedulable
from ._private.session import Session

__all__ = ["RemoteFunction"]


class _Task:
    """A function with one set of options: everything that a call of it needs, and nothing of `RemoteFunction`."""

    def __init__(self, code: Code, options: dict[str, Any], decorator: Callable[..., Any] | None) -> None:
        self.code = code
        self.options = options
        self.decorator = decorator
        self.is_generator = _is_generator(code.value)

    @functools.cached_property
    def shape(self) -> signature.Shape:
        """The shape of the parameters. Not looked at before the first call: a function that is just being unpickled
        has no defaults yet."""
        return signature.shape_of(self.code.value)

    def caller(self) -> Any:
        """What `.remote` is."""
        caller = _native.Caller(self.prepare)
        if self.decorator is None:
            return caller
        return _decorated(self.decorator, caller)

    def prepare(self, caller: Any) -> Any:
        """Set the native caller for the session, which is started where there is none.

        Gives a function to call instead where the caller cannot be set: in local mode, and where the task is bound
        to another node.
        """
        session = sessions.ensure()
        if session.is_local:
            from ._private import local

            return local.task_caller(self)
        error = unschedulable(self.options, session, is_actor=False)
        if error is not None:
            return _failing(error)
        self._set(caller, session)
        return None

    def _set(self, caller: Any, session: Session) -> None:
        options = self.options
        environment = invocation.environment_of(options, session)
        native_options = invocation.task_call_options(options, environment, self.code.name, self.code.description)
        allowed = invocation.allowed_errors(options)
        form = self.form()
        info = {
            "kind": "task",
            "name": self.code.name,
            "module": self.code.module,
            "shown": native_options["name"],
            "environment": environment,
            "placed": native_options["placed"],
            "runtime_env": dict(options.get("runtime_env") or {}),
            "form": form,
        }
        # The name is part of it: the key is what a task is listed and printed by.
        held = invocation.shown_resources(native_options["resources"], native_options["memory"])
        info["resources"] = held
        variant = f"{native_options['group']} {form} {native_options['name']} {sorted(held.items())}"
        exported = self.code.export(session, info, variant, allowed)
        caller.set(
            exported.key,
            native_options["name"],
            exported.definition,
            native_options,
            signature.positional(self.shape),
            signature.binder(self.shape),
            invocation.counted_returns(options.get("num_returns"), self.is_generator),
            invocation.stream_ahead(options),
        )

    def form(self) -> str:
        """What the worker makes of the items of a generator: "", "dynamic", "list", or how many each gives."""
        count = self.options.get("num_returns")
        if count == "dynamic":
            return "dynamic"
        if self.is_generator and isinstance(count, int) and count > 1:
            return "list"
        each = self.options.get("_num_objects_per_yield") or 1
        return f"each {each}" if self.is_generator and each > 1 else ""


def _decorated(decorator: Callable[..., Any], caller: Any) -> Callable[..., Any]:
    """A `.remote` around which the program's invocation decorator is put."""
    invoke = decorator(lambda args, kwargs: caller.call(tuple(args or ()), dict(kwargs or {})))

    def remote(*args: Any, **kwargs: Any) -> Any:
        return invoke(args, kwargs)

    return remote


def _failing(error: Exception) -> Callable[..., Any]:
    """A `.remote` whose references raise `error`."""

    def remote(*args: Any, **kwargs: Any) -> Any:
        raise error

    return remote


class RemoteFunction:
    """A function that runs as tasks: `f.remote(...)` gives a reference to its result.

    `f.options(...)` gives the same with other options; `f._function` is the function itself.
    """

    def __init__(
        self, code: Code, options: dict[str, Any], decorator: Callable[..., Any] | None = None
    ) -> None:
        self._code = code
        self._default_options = options
        self._decorator = decorator
        self._function = code.value
        self._function_name = code.description
        self._is_generator = _is_generator(code.value)
        self.__doc__ = code.value.__doc__
        self.__name__ = code.name
        self.__qualname__ = getattr(code.value, "__qualname__", code.name)
        self.__module__ = code.module
        self.remote = _Task(code, options, decorator).caller()

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(self._function)

    def __getattr__(self, name: str) -> Any:
        # `_num_cpus`, `_max_calls`.. : the options by the names that programs know them by.
        key = name[1:]
        if name.startswith("_") and key in option_tables.TASK and "_default_options" in self.__dict__:
            return self._default_options.get(key, option_tables.TASK[key].default)
        raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError(
            f"Remote functions cannot be called directly. Instead of running '{self._function_name}()', try "
            f"'{self._function_name}.remote()'."
        )

    def __repr__(self) -> str:
        return f"RemoteFunction({self._function_name})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (RemoteFunction, self._code.parcel(), self._default_options, self._decorator)

    def options(self, **task_options: Any) -> FunctionOptions:
        """The same function with some options replaced. Raises ValueError or TypeError for wrong ones."""
        return FunctionOptions(self._code, self._changed(task_options), self._decorator)

    def _changed(self, task_options: dict[str, Any]) -> dict[str, Any]:
        """The options of this function with others laid over them; checked."""
        over = option_tables.renamed(task_options, option_tables.OLD_TASK_NAMES)
        each = self._default_options.get("_num_objects_per_yield") or 1
        if over.get("_num_objects_per_yield", each) != each:
            raise ValueError(
                "_num_objects_per_yield cannot be overridden per task call. Use "
                "@ray.remote(_num_objects_per_yield=...) instead."
            )
        below = {key: value for key, value in self._default_options.items() if key != "max_calls"}
        changed = option_tables.merged(below, over)
        option_tables.validate_task(changed, True, self._is_generator if "num_returns" in over else None)
        if "max_calls" in self._default_options:
            changed["max_calls"] = self._default_options["max_calls"]
        _check_environment(over)
        return changed

    def _remote(self, args: Any = None, kwargs: Any = None, **task_options: Any) -> Any:
        """Call with the arguments as a tuple and a dictionary, and with options."""
        caller: Any = self.remote
        if task_options:
            caller = self.options(**task_options).remote
        return _call(caller, tuple(args or ()), dict(kwargs or {}))

    def bind(self, *args: Any, **kwargs: Any) -> Any:
        """Graphs of calls are not there: raises NotImplementedError."""
        from .dag import unsupported

        unsupported("bind")


class FunctionOptions:
    """A remote function with options of its own: what `f.options(...)` gives."""

    def __init__(self, code: Code, options: dict[str, Any], decorator: Callable[..., Any] | None) -> None:
        self._code = code
        self._options = options
        self._decorator = decorator
        self.remote = _Task(code, options, decorator).caller()

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (FunctionOptions, self._code.parcel(), self._options, self._decorator)

    def __repr__(self) -> str:
        return f"RemoteFunction({self._code.description}).options({self._options})"

    def _remote(self, args: Any = None, kwargs: Any = None) -> Any:
        return _call(self.remote, tuple(args or ()), dict(kwargs or {}))

    def options(self, **task_options: Any) -> FunctionOptions:
        """The same with more options replaced."""
        return RemoteFunction(self._code, self._options, self._decorator).options(**task_options)

    def bind(self, *args: Any, **kwargs: Any) -> Any:
        """Graphs of calls are not there: raises NotImplementedError."""
        from .dag import unsupported

        unsupported("bind")


def _call(caller: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return caller(*args, **kwargs)


def _check_environment(options: dict[str, Any]) -> None:
    if options.get("runtime_env"):
        from ._private import environments

        environments.checked(options["runtime_env"])


def _restore(kind: Any, parcel: tuple[Any, ...], options: dict[str, Any], decorator: Any) -> Any:
    return kind(Code.of_parcel(parcel), options, decorator)


def _is_generator(function: Callable[..., Any]) -> bool:
    return inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)


def make(function: Callable[..., Any], options: dict[str, Any]) -> RemoteFunction:
    """What `@remote(**options)` makes of a function. Raises ValueError or TypeError for wrong options."""
    if inspect.iscoroutinefunction(function):
        raise ValueError(
            "'async def' should not be used for remote tasks. You can wrap the async function with "
            "`asyncio.run(f())`."
        )
    option_tables.validate_task(options, False, _is_generator(function))
    _check_environment(options)
    name = getattr(function, "__name__", type(function).__name__)
    code = Code(function, name, getattr(function, "__module__", None) or "__main__")
    return RemoteFunction(code, options, getattr(function, "__ray_invocation_decorator__", None))

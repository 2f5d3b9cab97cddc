"""Exceptions between processes: how a worker describes one, and what `get` makes of the description.

The one thing to know: a description is a pickled tuple (`Described`) in which the cause is pickled by itself, so that
an exception that cannot be read where it arrives still has its text there.

This module must not import cloudpickle before an exception needs it.
"""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING, Any, NamedTuple

from .. import exceptions
from ..exceptions import (
    ActorDiedError,
    ActorUnavailableError,
    AsyncioActorExit,
    GetTimeoutError,
    ObjectLostError,
    RayError,
    RaySystemError,
    RayTaskError,
    TaskCancelledError,
    UnserializableException,
    WorkerCrashedError,
)

if TYPE_CHECKING:
    import traceback

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
# Where this package goes through these on its way to the program, the way is as little the program's.
_HELPERS = ("/concurrent/futures/_base.py", "/cloudpickle/cloudpickle.py")
_ARGUMENT_FAILED = "  At least one of the input arguments for this task could not be computed:"
_CRASHED_HEAD = "Traceback (most recent call last):\n"


class Described(NamedTuple):
    """What a worker tells of an exception."""

    name: str
    trace: str
    cause: bytes
    pid: int
    ip: str
    actor_repr: str | None
    actor_id: str | None


@functools.cache
def node_ip() -> str:
    """This machine's address as errors and logs show it."""
    import socket

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            # Connecting a datagram socket sends nothing; it only picks the interface.
            probe.connect(("192.0.2.1", 9))
            return probe.getsockname()[0]
        except OSError:
            return "127.0.0.1"


# In the worker ----------------------------------------------------------------


def describe(error: BaseException, name: str, actor: Any) -> tuple[str, bytes, bool, str | None]:
    """What the worker tells of an exception that a call raised.

    Gives its text, its pickled description, whether it may be tried again, and another kind than "Returned".
    """
    global is_describing
    is_describing = True
    try:
        return _describe(error, name, actor)
    finally:
        is_describing = False


# The call is over: an interruption that comes now comes too late.
is_describing = False


def _describe(error: BaseException, name: str, actor: Any) -> tuple[str, bytes, bool, str | None]:
    import pickle

    if isinstance(error, AsyncioActorExit):
        return _EXITED, b"", False, "ActorDied"
    kind = type(error).__name__
    if isinstance(error, KeyboardInterrupt):
        from .. import _native

        if _native.is_cancelled():
            return "", b"", False, "Cancelled"
        error, kind = TaskCancelledError(), "KeyboardInterrupt"
    elif kind == "CancelledError" and type(error).__module__.startswith("asyncio"):
        return "", b"", False, "Cancelled"
    trace = user_trace(error)
    described = Described(
        _shown_name(name, actor),
        trace,
        _pickled_cause(error, trace),
        os.getpid(),
        node_ip(),
        _shown_actor(actor),
        _actor_id(),
    )
    return f"{kind}: {_text(error)}", pickle.dumps(tuple(described)), is_retried(error), None


def _shown_name(name: str, actor: Any) -> str:
    from . import loading

    info = loading.Current.info
    if actor is None and info is not None and name == info["name"]:
        return f"{name}.__init__"
    return name if actor is None or "." in name else f"{type(actor).__name__}.{name}"


def _shown_actor(actor: Any) -> str | None:
    if actor is None:
        return None
    try:
        return repr(actor)
    except Exception:
        return object.__repr__(actor)


def _actor_id() -> str | None:
    from .. import _native

    actor_id = _native.context().get("actor_id")
    return actor_id.hex() if actor_id is not None else None


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:
        return f"<{type(error).__name__} whose text cannot be made>"


def _pickled_cause(error: BaseException, trace: str) -> bytes:
    import pickle

    # The error of a task below is not nested: its cause is the cause.
    cause = error.cause if isinstance(error, RayTaskError) else error
    try:
        return _dumps(cause)
    except Exception as fault:
        kind = f"{type(cause).__module__}.{type(cause).__name__}"
        text = f"Exception {kind} isn't serializable: {fault}.\nOriginal exception details:\n{trace}"
        return pickle.dumps(RayError(text))


def _dumps(cause: BaseException) -> bytes:
    import pickle

    if type(cause).__module__ == "builtins" and not cause.__dict__:
        try:
            return pickle.dumps(cause)
        except Exception:
            # Its arguments need more than plain pickling.
            pass
    import cloudpickle

    return cloudpickle.dumps(cause)


def user_trace(error: BaseException) -> str:
    """The traceback of an exception as text, with the program's frames only."""
    import traceback

    try:
        form = traceback.TracebackException.from_exception(error)
    except Exception as fault:
        return f"Traceback (most recent call last):\n{type(error).__name__} (its traceback cannot be made: {fault})"
    _drop_own_frames(form, set())
    text = "".join(form.format())
    # Without a frame of the program there is no such line, by which the first line is found.
    return text if text.startswith("Traceback ") or "\nTraceback " in text else _CRASHED_HEAD + text


def _drop_own_frames(form: traceback.TracebackException | None, seen: set[int]) -> None:
    if form is None or id(form) in seen:
        return
    seen.add(id(form))
    form.stack[:] = _program_frames(form.stack)
    _drop_own_frames(form.__cause__, seen)
    _drop_own_frames(form.__context__, seen)
    for inner in getattr(form, "exceptions", None) or ():
        _drop_own_frames(inner, seen)


def _program_frames(frames: list[traceback.FrameSummary]) -> list[traceback.FrameSummary]:
    kept, is_ours = [], False
    for frame in frames:
        is_ours = is_own_file(frame.filename) or is_ours and frame.filename.endswith(_HELPERS)
        if not is_ours:
            kept.append(frame)
    return kept


def is_own_file(filename: str) -> bool:
    """Whether a source file is this package's."""
    return filename.startswith(_PACKAGE)


class RetryFilter:
    """A callable around the program's function that remembers which exceptions are not of the kinds to try again."""

    def __init__(self, function: Any, allowed: tuple[type[BaseException], ...]) -> None:
        self.function = function
        self.allowed = allowed
        functools.update_wrapper(self, function)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return self.function(*args, **kwargs)
        except self.allowed:
            raise
        except Exception as error:
            refuse_retry(error)
            raise


def refuse_retry(error: BaseException) -> None:
    """Mark an exception as one that is not tried again."""
    try:
        error.__raylet_final__ = True  # type: ignore[attr-defined]
    except AttributeError:
        pass


def is_retried(error: BaseException) -> bool:
    """Whether an exception may be tried again, as far as its kind decides."""
    return not getattr(error, "__raylet_final__", False) and not isinstance(error, TaskCancelledError)


# Where a value is read ----------------------------------------------------------


def make(
    kind: str,
    function: str,
    message: str,
    backtrace: str | None,
    passed: list[str],
    payload: bytes | None,
    object_id: str,
) -> BaseException:
    """The exception that `get` raises for an error object."""
    # Where it was passed on, the object is the result of another call than the one that failed.
    failed_id = "" if passed and kind in _OF_ACTORS else object_id
    error = _own(kind, function, message, backtrace, payload, failed_id)
    for name in passed:
        error = _passed_on(error, name)
    return error.as_instanceof_cause() if isinstance(error, RayTaskError) else error


def _own(
    kind: str, function: str, message: str, backtrace: str | None, payload: bytes | None, object_id: str
) -> BaseException:
    """The error of the call that failed itself."""
    if payload:
        error = _read(payload)
        if kind == "ActorDied" and isinstance(error, RayTaskError):
            return ActorDiedError(error)
        return error
    make_plain = _PLAIN.get(kind)
    if make_plain is not None:
        return make_plain(function, message, object_id)
    cause: Exception = ValueError(message) if kind == "ResultCount" else RayError(f"{message}")
    text = f"{_CRASHED_HEAD}{backtrace or ''}{type(cause).__name__}: {message}"
    return RayTaskError(function, text, cause, ip=node_ip())


def _read(payload: bytes) -> BaseException:
    import pickle

    described = Described(*pickle.loads(payload))
    try:
        cause = pickle.loads(described.cause)
    except Exception:
        return UnserializableException(described.trace)
    return RayTaskError(
        described.name,
        described.trace,
        cause,
        None,
        described.pid,
        described.ip,
        described.actor_repr,
        described.actor_id,
    )


def _passed_on(error: BaseException, name: str) -> RayTaskError:
    """The error of a task whose argument failed with `error`."""
    inner = error.cause if isinstance(error, RayTaskError) else error
    kind = type(error.as_instanceof_cause() if isinstance(error, RayTaskError) else error)
    shown = f"{kind.__module__.replace('raylet', 'ray', 1)}.{kind.__qualname__}: {error}"
    return RayTaskError(name, f"{_CRASHED_HEAD}{_ARGUMENT_FAILED}\n{shown}", inner, ip=node_ip())


def timeout(seconds: float | None = None) -> GetTimeoutError:
    """The error of a wait that was long enough."""
    return GetTimeoutError("Get timed out: some object(s) not ready.")


def _lost(function: str, message: str, object_id: str) -> RayError:
    error = ObjectLostError(object_id)
    if "gone or damaged" in message and "could not be restored" not in message:
        message = f"It could not be restored: {message}"
    if message:
        error.REASON = message.replace("{", "{{").replace("}", "}}")
    return error


def _refused(function: str, message: str, object_id: str) -> RayError:
    if "placement group" in message and "removed" in message:
        return exceptions.TaskPlacementGroupRemoved()
    if "full" in message or "disk" in message:
        return exceptions.ObjectStoreFullError(message)
    return RaySystemError(message)


def _died(function: str, message: str, object_id: str) -> RayError:
    if "placement group" in message:
        return exceptions.ActorPlacementGroupRemoved()
    how = message.removeprefix("its process died")
    if how != message:
        message = f"The actor is dead because its worker process has died{how}."
    return ActorDiedError(_DEATHS.get(message, message) or None, _actor_of(object_id))


def _actor_of(object_id: str) -> str | None:
    """The id of the actor whose call made an object; None where it was none."""
    actor_id = object_id[16:48]
    return None if not actor_id or actor_id.startswith("f" * 24) else actor_id


_OF_ACTORS = ("ActorDied", "ActorUnavailable")
_EXITED = "exit_actor() is called."
_INTENDED = f"The actor is dead because its worker process has exited by INTENDED_USER_EXIT: {_EXITED}"
# How an actor died: in the raylet's words or its own last ones, and in those that programs look for.
_DEATHS = {
    "it was killed": "The actor is dead because it was killed by `ray.kill`.",
    "it ended itself": _INTENDED,
    _EXITED: _INTENDED,
    "nobody had a handle of it any more": "The actor is dead because all references to the actor were removed.",
    "the driver that it belongs to is gone": "The actor is dead because its owner has died.",
}


_PLAIN = {
    "Cancelled": lambda function, message, object_id: TaskCancelledError(),
    "TimedOut": lambda function, message, object_id: GetTimeoutError(f"{function} was not done in time: {message}"),
    "WorkerCrashed": lambda function, message, object_id: WorkerCrashedError(message),
    "CallerDied": lambda function, message, object_id: WorkerCrashedError(message),
    "ActorDied": _died,
    "ActorUnavailable": lambda function, message, object_id: ActorUnavailableError(message, _actor_of(object_id)),
    "ObjectLost": _lost,
    "Refused": _refused,
    "StoreFull": lambda function, message, object_id: exceptions.ObjectStoreFullError(message),
    "Shutdown": lambda function, message, object_id: RaySystemError(
        "Ray has not been started yet. You can start Ray with 'ray.init()'."
    ),
    "Forked": lambda function, message, object_id: RaySystemError(
        "this process was forked from one that uses the raylet and has no connection of its own"
    ),
}


def name_taken(name: str) -> exceptions.ActorAlreadyExistsError:
    """The error of making a second actor of a name."""
    return exceptions.ActorAlreadyExistsError(
        f"The name {name} (namespace={_namespace()}) is already taken. Please use a different name or get the "
        f"existing actor using ray.get_actor('{name}', namespace='{_namespace()}')"
    )


def _namespace() -> str:
    from . import session

    current = session.current()
    return current.namespace if current is not None else ""

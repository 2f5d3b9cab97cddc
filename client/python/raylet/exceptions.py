"""The exceptions of the public interface, with Ray's names, parents and texts.

The one thing to know: what `get` raises for a task that raised `ValueError` is an instance of both
`RayTaskError` and `ValueError`; `RayTaskError.as_instanceof_cause` makes it.

This module imports nothing of ours and no third-party module.
"""

from __future__ import annotations

import functools
import os
import sys
from typing import Any

_CYAN = "\x1b[36m"
_DEFAULT_COLOUR = "\x1b[39m"


def _warn(text: str, *parts: object) -> None:
    import logging

    logging.getLogger("ray").warning(text, *parts)


class RayError(Exception):
    """Parent of every exception of this package."""


class CrossLanguageError(RayError):
    """An exception raised by a worker of another language. Takes its text."""

    def __init__(self, message: object) -> None:
        super().__init__(f"An exception raised from another language:\n{message}")


class TaskCancelledError(RayError):
    """The task was cancelled."""

    def __init__(self, task_id: object = None, error_message: str | None = None) -> None:
        super().__init__(task_id, error_message)
        self.task_id = task_id
        self.error_message = error_message

    def __str__(self) -> str:
        text = f"Task: {self.task_id} was cancelled. " if self.task_id else ""
        return text + (self.error_message or "")


class RayTaskError(RayError):
    """The task raised an exception.

    `cause` is what it raised, or a `RayError` with its text where that could not be sent. `str` shows the
    frames of the program, here and in the tasks below, and none of this package's.
    """

    def __init__(
        self,
        function_name: str,
        traceback_str: str,
        cause: BaseException,
        proctitle: str | None = None,
        pid: int | None = None,
        ip: str | None = None,
        actor_repr: str | None = None,
        actor_id: str | None = None,
    ) -> None:
        super().__init__(function_name, traceback_str, cause, proctitle, pid, ip)
        self.function_name = function_name
        self.traceback_str = traceback_str
        self.cause = cause
        self.proctitle = proctitle or f"ray::{function_name}"
        self.pid = pid or os.getpid()
        self.ip = ip or "127.0.0.1"
        self.actor_repr = actor_repr
        self._actor_id = actor_id

    def _parts(self) -> tuple[Any, ...]:
        return (
            self.function_name,
            self.traceback_str,
            self.cause,
            self.proctitle,
            self.pid,
            self.ip,
            self.actor_repr,
            self._actor_id,
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return RayTaskError, self._parts()

    def as_instanceof_cause(self) -> RayTaskError:
        """This error as an instance of its cause's class too; itself where no such class can be made."""
        kind = type(self.cause)
        if issubclass(RayTaskError, kind):
            return self
        try:
            return self.make_dual_exception_instance()
        except TypeError as error:
            _warn(
                "User exception type %s in RayTaskError can't be subclassed! This exception is raised as RayTaskError "
                "only. You can use `ray_task_error.cause` to access the user exception. Failure in subclassing: %s",
                kind,
                error,
            )
        except Exception as error:
            _warn("Failed to combine RayTaskError with user exception type %s: %s", kind, error)
        return self

    def make_dual_exception_instance(self) -> RayTaskError:
        """An instance of `RayTaskError` and of the cause's class. Raises TypeError if that class takes no children."""
        return _dual_class(type(self.cause))(self)  # type: ignore[arg-type]

    def _header(self) -> str:
        actor = f", actor_id={self._actor_id}, repr={self.actor_repr}" if self.actor_repr else ""
        return f"{_CYAN}{self.proctitle}(){_DEFAULT_COLOUR} (pid={self.pid}, ip={self.ip}{actor})"

    def __str__(self) -> str:
        lines = self.traceback_str.strip().split("\n")
        header = self._header()
        return "\n".join(header if line.startswith("Traceback ") else line for line in lines)


class _DualMixin:
    """What a task error that is an instance of its cause's class too does differently."""

    # A class of the program may guard `args`; ours are kept apart.
    _dual_args: tuple[Any, ...] = ()

    @property
    def args(self) -> tuple[Any, ...]:
        return self._dual_args

    @args.setter
    def args(self, value: tuple[Any, ...]) -> None:
        self._dual_args = value

    def __getattr__(self, name: str) -> Any:
        # Asked for only what was not found here: the attributes that the program gave its exception.
        if name.startswith("__") or "cause" not in self.__dict__:
            raise AttributeError(name)
        return getattr(self.__dict__["cause"], name)

    def __str__(self) -> str:
        return RayTaskError.__str__(self)  # type: ignore[arg-type]

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore_dual, RayTaskError._parts(self)  # type: ignore[arg-type]


def _restore_dual(*parts: Any) -> RayTaskError:
    return RayTaskError(*parts).as_instanceof_cause()


@functools.lru_cache(maxsize=256)
def _dual_class(kind: type[BaseException]) -> type:
    """The class that is both a task error and a `kind`."""

    def init(self: Any, error: RayTaskError) -> None:
        self.__dict__.update(error.__dict__)
        self._dual_args = (error.cause,)

    def new(cls: type, error: RayTaskError) -> Any:
        if issubclass(kind, BaseExceptionGroup):
            group: Any = error.cause
            return kind.__new__(cls, group.message, group.exceptions)
        return kind.__new__(cls, error.cause)

    name = f"RayTaskError({kind.__name__})"
    body = {
        "__init__": init,
        "__new__": new,
        "args": _DualMixin.args,
        "_dual_args": (),
        "__getattr__": _DualMixin.__getattr__,
        "__str__": _DualMixin.__str__,
        "__reduce__": _DualMixin.__reduce__,
        "__module__": __name__,
        "__qualname__": name,
    }
    return type(name, (RayTaskError, kind), body)


class LocalRayletDiedError(RayError):
    """The raylet that ran the task died."""

    def __str__(self) -> str:
        return "The task's local raylet died. Check raylet.out for more information."


class WorkerCrashedError(RayError):
    """The worker died while it ran the task. Takes a text that says how, if there is one."""

    def __str__(self) -> str:
        text = (
            "The worker died unexpectedly while executing this task. "
            "Check python-core-worker-*.log files for more information."
        )
        how = super().__str__()
        return f"{text}\n{how}" if how else text


class RayActorError(RayError):
    """The actor could not finish the call: it is dead, or not available at the moment."""

    BASE_ERROR_MSG = "The actor experienced an error before finishing this task."

    def __init__(
        self,
        actor_id: str | None = None,
        error_msg: str = BASE_ERROR_MSG,
        actor_init_failed: bool = False,
        preempted: bool = False,
    ) -> None:
        super().__init__(actor_id, error_msg, actor_init_failed, preempted)
        self.actor_id = actor_id
        self.error_msg = error_msg
        self._actor_init_failed = actor_init_failed
        self._preempted = preempted

    def __str__(self) -> str:
        return self.error_msg

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore_actor_error, (type(self), dict(self.__dict__))

    @property
    def preempted(self) -> bool:
        """Always False here: a node of one machine is not taken away."""
        return self._preempted

    @property
    def actor_init_failed(self) -> bool:
        """Whether the constructor raised."""
        return self._actor_init_failed


def _restore_actor_error(kind: type[RayActorError], state: dict[str, Any]) -> RayActorError:
    error = kind.__new__(kind)
    error.__dict__.update(state)
    error.args = (state.get("error_msg"),)
    return error


class ActorDiedError(RayActorError):
    """The actor died before it finished the call, or was dead already.

    `cause` is the task error of a constructor that raised, a text that says how it died, or None.
    """

    BASE_ERROR_MSG = "The actor died unexpectedly before finishing this task."

    def __init__(self, cause: RayTaskError | str | None = None, actor_id: str | None = None) -> None:
        text = self.BASE_ERROR_MSG
        if isinstance(cause, RayTaskError):
            actor_id = actor_id or cause._actor_id
            text = f"The actor died because of an error raised in its creation task, {cause}"
        elif cause:
            text = f"{text}\n{cause}"
        super().__init__(actor_id, text, isinstance(cause, RayTaskError))

    @staticmethod
    def from_task_error(task_error: RayTaskError) -> ActorDiedError:
        """The error of an actor whose constructor raised."""
        return ActorDiedError(task_error)


class ActorUnavailableError(RayActorError):
    """The actor is not available for the moment; the call may or may not have run."""

    def __init__(self, error_message: str, actor_id: bytes | str | None) -> None:
        name = actor_id.hex() if isinstance(actor_id, bytes) else actor_id
        super().__init__(
            name,
            f"The actor {name} is unavailable: {error_message}. The task may or may not have been executed on the "
            "actor.",
        )


class RaySystemError(RayError):
    """The raylet, or the connection to it, failed."""

    def __init__(self, client_exc: object, traceback_str: str | None = None) -> None:
        super().__init__(client_exc, traceback_str)
        self.client_exc = client_exc
        self.traceback_str = traceback_str

    def __str__(self) -> str:
        text = f"System error: {self.client_exc}"
        return f"{text}\ntraceback: {self.traceback_str}" if self.traceback_str else text


class _MessageError(RayError):
    """Parent of errors that are their text."""

    def __init__(self, message: str = "") -> None:
        super().__init__(message)
        self.message = message

    def __str__(self) -> str:
        return self.message


class AuthenticationError(_MessageError):
    """The raylet is another user's."""


class UserCodeException(RayError):
    """Wraps an exception of user code in libraries."""


class ObjectStoreFullError(RayError):
    """The store is full of objects that are in use, and the disk takes no more."""

    def __str__(self) -> str:
        return super().__str__() + (
            "\nThe local object store is full of objects that are still in scope and cannot be evicted. "
            "Tip: Use the `ray memory` command to list active objects in the cluster."
        )


class OutOfDiskError(RayError):
    """The disk that objects are spilled to is full."""

    def __str__(self) -> str:
        return super().__str__() + (
            "\nThe object cannot be created because the local object store is full and the local disk's utilization "
            "is over capacity (95% by default).Tip: Use `df` on this node to check disk usage and `ray memory` to "
            "check object store memory usage."
        )


class OutOfMemoryError(_MessageError):
    """The machine is out of memory."""


class NodeDiedError(_MessageError):
    """The node is dead."""


class ObjectLostError(RayError):
    """The value is gone and cannot be made again."""

    REASON = "All copies of {} have been lost due to node failure."

    def __init__(self, object_ref_hex: str, owner_address: bytes | None = None, call_site: str = "") -> None:
        super().__init__(object_ref_hex, owner_address, call_site)
        self.object_ref_hex = object_ref_hex
        self.owner_address = owner_address
        self.call_site = call_site

    def __str__(self) -> str:
        return f"Failed to retrieve object {self.object_ref_hex}. \n\n" + self.REASON.format(self.object_ref_hex)


class ObjectFetchTimedOutError(ObjectLostError):
    """Reading the value took too long."""

    REASON = "Fetch for object {} timed out because no locations were found for the object."


class RpcError(_MessageError):
    """A message to the raylet failed."""

    def __init__(self, message: str, rpc_code: int | None = None) -> None:
        super().__init__(message)
        self.rpc_code = rpc_code


class ReferenceCountingAssertionError(ObjectLostError, AssertionError):
    """The value was deleted while a reference to it existed."""

    REASON = "The object has already been deleted by the reference counting protocol. This should not happen."


class ObjectFreedError(ObjectLostError):
    """The value was freed by hand."""

    REASON = "The object was manually freed using the internal `free` call."


class OwnerDiedError(ObjectLostError):
    """The owner of the value died. Never raised here: values have no owners."""

    REASON = "The object's owner has exited. This is the Python worker that first created the ObjectRef."


class ObjectReconstructionFailedError(ObjectLostError):
    """The value was lost, and its task cannot make it again."""

    REASON = "The object cannot be reconstructed because the maximum number of task retries has been exceeded."


class GetTimeoutError(RayError, TimeoutError):
    """`get` waited as long as it was told to."""


class PlasmaObjectNotAvailable(RayError):
    """The value was not there in time."""


class AsyncioActorExit(RayError):
    """An async actor ends itself by `exit_actor()`."""


class RuntimeEnvSetupError(RayError):
    """The runtime environment could not be made."""

    def __init__(self, error_message: str | None = None) -> None:
        super().__init__(error_message)
        self.error_message = error_message

    def __str__(self) -> str:
        text = "Failed to set up runtime environment."
        return f"{text}\n{self.error_message}" if self.error_message else text


class TaskPlacementGroupRemoved(RayError):
    """The placement group that the task ran in was removed."""

    def __str__(self) -> str:
        return "The placement group corresponding to this task has been removed."


class ActorPlacementGroupRemoved(RayError):
    """The placement group that the actor lived in was removed."""

    def __str__(self) -> str:
        return "The placement group corresponding to this Actor has been removed."


class PendingCallsLimitExceeded(RayError):
    """More calls of the actor are waiting than `max_pending_calls` allows."""


class TaskUnschedulableError(RayError):
    """The task can never be placed."""

    def __init__(self, error_message: str) -> None:
        super().__init__(error_message)
        self.error_message = error_message

    def __str__(self) -> str:
        return f"The task is not schedulable: {self.error_message}"


class ActorUnschedulableError(RayError):
    """The actor can never be placed."""

    def __init__(self, error_message: str) -> None:
        super().__init__(error_message)
        self.error_message = error_message

    def __str__(self) -> str:
        return f"The actor is not schedulable: {self.error_message}"


class ObjectRefStreamEndOfStreamError(RayError):
    """A generator has no more references."""


class StreamingGeneratorReplayInconsistentError(RaySystemError):
    """A generator that was run again gave another number of items."""


class OufOfBandObjectRefSerializationException(RayError):
    """A reference was pickled by hand where that is forbidden."""


class RayChannelError(RaySystemError):
    """A channel failed."""


class RayChannelTimeoutError(RayChannelError, TimeoutError):
    """A channel's operation took too long."""


class RayCgraphCapacityExceeded(RaySystemError):
    """A channel's buffer is full."""


class RayDirectTransportError(RaySystemError):
    """A direct transport failed."""


class UnserializableException(RayError):
    """The exception of the task could not be read here. Holds the text that it had where it was raised."""

    def __init__(self, original_stack_trace: str) -> None:
        super().__init__(original_stack_trace)
        self._original_stack_trace = original_stack_trace

    def __str__(self) -> str:
        return f"Failed to deserialize exception.\nOriginal exception:\n{self._original_stack_trace}"


class ActorAlreadyExistsError(ValueError, RayError):
    """An actor of this name exists."""

    def __init__(self, error_message: str) -> None:
        super().__init__(error_message)
        self.error_message = error_message

    def __str__(self) -> str:
        return self.error_message


class ActorHandleNotFoundError(ValueError, RayError):
    """The handle is of another session."""

    def __init__(self, error_message: str) -> None:
        super().__init__(error_message)
        self.error_message = error_message

    def __str__(self) -> str:
        return self.error_message


RAY_EXCEPTION_TYPES = [
    kind
    for kind in list(vars(sys.modules[__name__]).values())
    if isinstance(kind, type) and issubclass(kind, RayError) and not kind.__name__.startswith("_")
]

"""The worker of this process under the names that programs know from `ray._private.worker`.

The one thing to know: it holds nothing; it looks at the session and at the native side.

This module must not be needed by the rest of the package to work.
"""

from __future__ import annotations

import logging
import os

from .. import _native
from ..exceptions import RaySystemError
from . import session as sessions
from .api import cancel, get, get_actor, get_gpu_ids, init, is_initialized, kill, put, remote, shutdown, wait
from .ids import ActorID, JobID, NodeID, TaskID

logger = logging.getLogger("ray")

SCRIPT_MODE = 0
WORKER_MODE = 1
LOCAL_MODE = 2

__all__ = [
    "LOCAL_MODE",
    "SCRIPT_MODE",
    "WORKER_MODE",
    "Worker",
    "cancel",
    "get",
    "get_actor",
    "get_gpu_ids",
    "global_worker",
    "init",
    "is_initialized",
    "kill",
    "put",
    "remote",
    "shutdown",
    "wait",
]


def _unhandled_error_handler(error: BaseException) -> None:
    logger.error("Unhandled error (suppress with 'RAY_IGNORE_UNHANDLED_ERRORS=1'): %s", error)


def report_unhandled(error: BaseException) -> None:
    """Report the error of a result that nobody read, unless RAY_IGNORE_UNHANDLED_ERRORS=1."""
    if os.environ.get("RAY_IGNORE_UNHANDLED_ERRORS") != "1":
        _unhandled_error_handler(error)


def worker_id(session: sessions.Session | None) -> bytes:
    """The 28 bytes that name this process in its session: a driver's are its job's id and 0xFF."""
    given = session.info.get("worker_id") if session is not None else None
    if given:
        return given
    if session is None or session.kind != "worker":
        job = _native.context().get("job_id") or b"\xff" * 4
        return job + b"\xff" * 24
    import hashlib

    # Processes of a session differ by pid; a pid that comes again comes with another start.
    return hashlib.sha256(f"{os.getpid()} {_start_of_process()}".encode()).digest()[:28]


def _start_of_process() -> str:
    try:
        with open("/proc/self/stat") as stat:
            return stat.read().rsplit(")", 1)[1].split()[19]
    except OSError:
        return ""


class Worker:
    """What this process is in its session."""

    mode: int | None = None

    @property
    def connected(self) -> bool:
        """Whether there is a session."""
        return sessions.current() is not None

    def check_connected(self) -> None:
        """Raise RaySystemError where there is no session."""
        if not self.connected:
            raise RaySystemError(sessions.NOT_STARTED)

    @property
    def current_job_id(self) -> JobID:
        """The job that this process belongs to."""
        return JobID(_native.context().get("job_id") or b"\xff" * 4)

    @property
    def current_task_id(self) -> TaskID:
        """The running task, or nil."""
        return TaskID(_native.context().get("task_id") or b"\xff" * 24)

    @property
    def actor_id(self) -> ActorID:
        """The actor that this process is, or nil."""
        return ActorID(_native.context().get("actor_id") or b"\xff" * 16)

    @property
    def current_node_id(self) -> NodeID:
        """The node."""
        return NodeID.from_hex(sessions.require().info.get("node_id") or "0" * 56)

    @property
    def worker_id(self) -> bytes:
        """The bytes that name this process."""
        return worker_id(sessions.current())

    @property
    def node_ip_address(self) -> str:
        """The node's address."""
        from .errors import node_ip

        return node_ip()

    @property
    def namespace(self) -> str:
        """The namespace of the job."""
        return sessions.require().namespace

    @property
    def current_session_name(self) -> str:
        """The session."""
        return str(sessions.require().info.get("session_id"))


global_worker = Worker()

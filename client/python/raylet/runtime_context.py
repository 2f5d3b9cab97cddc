"""What a task, an actor or the driver may ask about itself.

The one thing to know: ids come as hexadecimal text: a job's of 8 digits, an actor's of 32, a task's of 48, a node's and
a worker's of 56. What does not apply is None.

This module must not cache: one process runs many tasks.
"""

from __future__ import annotations

import logging
import os
from typing import Any

from . import _native
from ._private import environments, hosting, loading, placement
from ._private import session as sessions
from ._private.ids import ActorID, JobID, NodeID, TaskID

logger = logging.getLogger("ray")

__all__ = ["RuntimeContext", "get_runtime_context"]


class RuntimeContext:
    """Facts of what runs in the calling thread."""

    @staticmethod
    def _native() -> dict[str, Any]:
        call = hosting.current_call.get()
        return _native.context() if call is None else call.context()

    def _info(self) -> dict[str, Any] | None:
        """What the definition of the running function or of the actor says."""
        if loading.Current.info is not None:
            return loading.Current.info
        return loading.functions.get(self._native().get("key") or 0)

    @staticmethod
    def _is_worker() -> bool:
        session = sessions.current()
        return session is not None and session.kind == "worker"

    def get(self) -> dict[str, Any]:
        """A dictionary of the job, the node, the namespace, and the task and the actor where there are any."""
        found: dict[str, Any] = {"job_id": self.job_id, "node_id": self.node_id, "namespace": self.namespace}
        if self._is_worker():
            if self.task_id is not None:
                found["task_id"] = self.task_id
            if self.actor_id is not None:
                found["actor_id"] = self.actor_id
        return found

    @property
    def job_id(self) -> JobID:
        """The job's id as an object."""
        return JobID(self._native().get("job_id") or b"\xff" * 4)

    @property
    def node_id(self) -> NodeID:
        """The node's id as an object."""
        return NodeID.from_hex(self.get_node_id())

    @property
    def task_id(self) -> TaskID | None:
        """The task's id as an object; None on the driver."""
        task_id = self._native().get("task_id") if self._is_worker() else None
        return TaskID(task_id) if task_id else None

    @property
    def actor_id(self) -> ActorID | None:
        """The actor's id as an object; None outside of one."""
        actor_id = self._native().get("actor_id")
        return ActorID(actor_id) if actor_id else None

    def get_job_id(self) -> str:
        """The job: 8 digits."""
        sessions.require()
        return self.job_id.hex()

    def get_node_id(self) -> str:
        """The node: 56 digits."""
        session = sessions.require()
        found = session.info.get("node_id") or self._native().get("node_id")
        return found.hex() if isinstance(found, bytes) else found or "0" * 56

    def get_worker_id(self) -> str:
        """This process: 56 digits."""
        from ._private.worker import worker_id

        return worker_id(sessions.require()).hex()

    def get_task_id(self) -> str | None:
        """The running task: 48 digits; None on the driver."""
        task_id = self.task_id
        return task_id.hex() if task_id is not None else None

    def get_task_name(self) -> str | None:
        """The name of the running task, as `f` or `Actor.method`; None on the driver."""
        if not self._is_worker():
            return None
        name = self._native().get("name")
        info = loading.Current.info
        if info is None or name is None or "." in name:
            return name
        return f"{info['name']}.{name}"

    def get_task_function_name(self) -> str | None:
        """The running function with its module; None on the driver."""
        if not self._is_worker():
            return None
        name = self._native().get("name")
        if loading.Current.info is not None:
            return f"{_module_name(loading.Current.info)}.{self.get_task_name()}"
        info = self._info()
        return f"{_module_name(info)}.{info['name']}" if info is not None else name

    def get_actor_id(self) -> str | None:
        """The actor that this is: 32 digits; None outside of one."""
        actor_id = self.actor_id
        return actor_id.hex() if actor_id is not None else None

    def get_actor_name(self) -> str | None:
        """The name that the actor was given; "" for one without, None outside of one."""
        info = loading.Current.info
        return None if info is None else info.get("actor_name") or ""

    @property
    def namespace(self) -> str:
        """The namespace of the job."""
        return sessions.require().namespace

    @property
    def was_current_actor_reconstructed(self) -> bool:
        """Whether the actor was restarted. Raises AssertionError outside of one."""
        assert self.actor_id is not None, "This method should't be called inside Ray tasks."
        return loading.Current.restarts > 0

    @property
    def current_actor(self) -> Any:
        """A handle of the actor that this is. Raises RuntimeError outside of one."""
        from .actor import ActorHandle

        if self._is_local_actor():
            from ._private import local

            return ActorHandle(local.current_core())
        core = _native.current_actor() if self._is_worker() and self.actor_id is not None else None
        if core is None:
            raise RuntimeError("This method is only available in an actor.")
        return ActorHandle(core)

    @staticmethod
    def _is_local_actor() -> bool:
        session = sessions.current()
        if session is None or not session.is_local:
            return False
        from ._private import local

        return local.current_core() is not None

    def get_placement_group_id(self) -> str | None:
        """The placement group that this runs in: 36 digits; None outside of one."""
        from .util.placement_group import get_current_placement_group

        group = get_current_placement_group()
        return group.id.hex() if group is not None else None

    @property
    def current_placement_group_id(self) -> Any:
        """The id of the placement group that this runs in, as an object."""
        from .util.placement_group import get_current_placement_group

        group = get_current_placement_group()
        return group.id if group is not None else None

    @property
    def should_capture_child_tasks_in_placement_group(self) -> bool:
        """Whether what this submits runs in its placement group, too."""
        return placement.Current.placed is not None and placement.Current.placed.is_capturing

    def get_assigned_resources(self) -> dict[str, float]:
        """What the running task or the actor holds, by name."""
        assert self._is_worker(), "This method is only available when the process is a worker."
        info = self._info()
        return dict(info["resources"]) if info is not None else {}

    def get_accelerator_ids(self) -> dict[str, list[str]]:
        """The GPUs that this was given, under "GPU"."""
        from ._private.api import get_gpu_ids

        return {"GPU": [str(gpu) for gpu in get_gpu_ids()]}

    get_resource_ids = get_accelerator_ids

    def get_node_labels(self) -> dict[str, str]:
        """The labels of the node."""
        return {"ray.io/node-id": self.get_node_id()}

    @property
    def runtime_env(self) -> Any:
        """The runtime environment that this runs in."""
        from .runtime_env import RuntimeEnv

        session = sessions.require()
        found = environments.current() if self._is_worker() else session.job.get("given_runtime_env") or {}
        return RuntimeEnv(_validate=False, **found)

    def get_runtime_env_string(self) -> str:
        """The runtime environment as JSON."""
        import json

        return json.dumps(dict(self.runtime_env))

    @property
    def gcs_address(self) -> Any:
        """The session's address."""
        return sessions.require().address_info.get("gcs_address")

    def get_session_name(self) -> str:
        """The session's name."""
        session = sessions.require()
        return str(session.info.get("session_id") or self._native().get("session_id") or "")

    def get_temp_dir(self) -> str:
        """The directory that the session's directory is in."""
        return os.path.dirname(str(sessions.require().info.get("session_dir") or "/tmp/raylet/session"))

    def is_canceled(self) -> bool:
        """Whether somebody has cancelled the running call.

        Raises RuntimeError on the driver and in a method of an async actor, which is cancelled by asyncio.
        """
        if not self._is_worker():
            raise RuntimeError("This method is only available in a task or an actor.")
        call = hosting.current_call.get()
        if call is None:
            return _native.is_cancelled()
        info = loading.Current.info
        if info is not None and info["is_async"]:
            raise RuntimeError("This method is not supported in an async actor.")
        return call.is_cancelled()


def _module_name(info: dict[str, Any]) -> str:
    """A module as tasks name it: a script by its file."""
    module = info.get("module") or ""
    if module != "__main__":
        return module
    path = sessions.require().job.get("main_file")
    return os.path.splitext(os.path.basename(path))[0] if path else module


_context = RuntimeContext()


def get_runtime_context() -> RuntimeContext:
    """The context of the calling thread; a session is started where there is none."""
    sessions.ensure()
    return _context

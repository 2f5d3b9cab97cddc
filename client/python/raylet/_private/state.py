"""What a program may ask about the whole, under the names of `ray._private.state`.

The one thing to know: `native()` is the way from here and from `util` to the extension, in a session.
This file must not keep anything but what the session itself knows.
"""

from __future__ import annotations

import json
from types import ModuleType
from typing import Any


def native() -> ModuleType:
    """The extension, with a session: one is started where there is none and that is allowed."""
    from .. import _native
    from . import session

    session.ensure()
    return _native


def ask(what: str) -> Any:
    """What the raylet says: the rows of `"tasks"`, `"actors"`, `"objects"`, `"workers"`, `"clients"` or
    `"placement-groups"`, or the whole's `"status"` or `"timeline"`."""
    return json.loads(native().ask(what))


class GlobalState:
    """Facts of the session."""

    def _info(self) -> dict[str, Any]:
        from . import session

        return session.ensure().info

    def session_id(self) -> str:
        """The session's name."""
        return str(self._info().get("session_id", ""))

    def session_directory(self) -> str:
        """Where the session's files are."""
        return str(self._info().get("session_dir", ""))

    def node_id(self) -> str:
        """The node's id in hex."""
        from .. import get_runtime_context

        return get_runtime_context().get_node_id()

    def node_ip_address(self) -> str:
        """The address that the node goes by."""
        from .services import get_node_ip_address

        return get_node_ip_address()

    def cluster_resources(self) -> dict[str, float]:
        """As `ray.cluster_resources`."""
        return cluster_resources()

    def available_resources(self) -> dict[str, float]:
        """As `ray.available_resources`."""
        return available_resources()

    def node_table(self) -> list[dict[str, Any]]:
        """As `ray.nodes`."""
        return nodes()

    def placement_group_table(self, placement_group_id: Any = None) -> dict[str, Any]:
        """The rows of all placement groups by their ids, or that of one."""
        from ..util.placement_group import placement_group_table

        rows = placement_group_table()
        return rows if placement_group_id is None else rows.get(placement_group_id.hex(), {})


state = GlobalState()


def nodes() -> list[dict[str, Any]]:
    """As `ray.nodes`."""
    from .. import nodes as answer

    return answer()


def cluster_resources() -> dict[str, float]:
    """As `ray.cluster_resources`."""
    from .. import cluster_resources as answer

    return answer()


def available_resources() -> dict[str, float]:
    """As `ray.available_resources`."""
    from .. import available_resources as answer

    return answer()


def total_resources_per_node() -> dict[str, dict[str, float]]:
    """All resources, by the node's id."""
    return {state.node_id(): cluster_resources()}


def available_resources_per_node() -> dict[str, dict[str, float]]:
    """Free resources, by the node's id."""
    return {state.node_id(): available_resources()}


def current_node_id() -> str:
    """The name of the node's own resource."""
    return f"node:{state.node_ip_address()}"


def timeline(filename: str | None = None) -> Any:
    """As `ray.timeline`."""
    from .. import timeline as answer

    return answer(filename)


def actors(actor_id: str | None = None, job_id: Any = None, actor_state_name: str | None = None) -> dict[str, Any]:
    """The rows of actors by their ids, or that of one; those alone of a job, or in a state."""
    from ..util.state.api import _actor_rows

    job = None if job_id is None else job_id.hex()
    rows = {row.actor_id: _actor_entry(row) for row in _actor_rows()}
    if actor_id is not None:
        return rows.get(actor_id, {})
    return {
        name: row
        for name, row in rows.items()
        if job in (None, row["JobID"]) and actor_state_name in (None, row["State"])
    }


def _actor_entry(row: Any) -> dict[str, Any]:
    return {
        "ActorID": row.actor_id,
        "ActorClassName": row.class_name,
        "IsDetached": row.is_detached,
        "Name": row.name,
        "JobID": row.job_id,
        "Address": {"IPAddress": state.node_ip_address(), "NodeID": row.node_id},
        "State": row.state,
        "NumRestarts": row.num_restarts,
        "PID": row.pid,
    }


def jobs() -> list[dict[str, Any]]:
    """The jobs that are not over."""
    from ..util.state.api import _job_rows

    rows = list(_job_rows())
    return [{"JobID": row.job_id, "IsDead": row.status != "RUNNING", "DriverInfo": row.driver_info} for row in rows]


__all__ = ["GlobalState", "ask", "native", "state"]

"""The questions of the state API.

The one thing to know: the raylet answers with rows of its own, in which actors and workers have numbers;
here they become the rows, ids and words that programs know. `address`, `timeout` and
`raise_on_missing_output` are taken and mean nothing: the raylet is here and answers at once. This file
must not keep anything between two questions.
"""

from __future__ import annotations

import fnmatch
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol, TypeVar

from ... import nodes
from ..._private.state import ask, state
from ..placement_group import placement_group_table
from .common import (
    DEFAULT_LIMIT,
    DEFAULT_RPC_TIMEOUT,
    RAY_MAX_LIMIT_FROM_API_SERVER,
    ActorState,
    ClusterEventState,
    Filter,
    JobState,
    ListApiOptions,
    NodeState,
    ObjectState,
    PlacementGroupState,
    RuntimeEnvState,
    StateSchema,
    TaskState,
    WorkerState,
)

# How often a log that is followed is looked at.
FOLLOW_DELAY_SECONDS = 0.05

# What the raylet calls a task's state, where that differs.
TASK_STATES = {"QUEUED": "SUBMITTED_TO_WORKER"}
OBJECT_STATES = {"Promised": "PENDING_NODE_ASSIGNMENT", "Writing": "RUNNING"}


def _hex(value: Any) -> str:
    return value.hex() if isinstance(value, bytes) else value or ""


def _job_id(number: int) -> str:
    return number.to_bytes(4, "little").hex()


def _worker_id(number: int | None) -> str | None:
    return None if number is None else f"{number:056x}"


def _actor_id(row: dict[str, Any]) -> str:
    """The middle of the id of the object that stands for it; its number where that is gone."""
    found = _hex(row["id"])
    return found[16:48] if found else f"{row['actor']:032x}"


def _task_rows() -> Iterator[TaskState]:
    actors = {row["actor"]: row for row in ask("actors")}
    for row in ask("tasks"):
        actor = actors.get(row["actor"])
        yield TaskState(
            task_id=_hex(row["task"]),
            attempt_number=max(0, row["attempts"] - 1),
            name=row["name"],
            state=TASK_STATES.get(row["state"], row["state"]),
            job_id=_job_id(row["job"]),
            actor_id=None if row["actor"] is None else _actor_id(actor or {"id": None, "actor": row["actor"]}),
            type="NORMAL_TASK" if row["actor"] is None else "ACTOR_TASK",
            func_or_class_name=row["name"],
            node_id=state.node_id(),
            worker_id=_worker_id(row["worker"]),
            worker_pid=row["pid"],
            language="PYTHON",
            required_resources=dict(row["demand"]),
        )


def _actor_rows() -> Iterator[ActorState]:
    for row in ask("actors"):
        cause = row["death_cause"]
        yield ActorState(
            actor_id=_actor_id(row),
            class_name=row["class"],
            state=row["state"],
            job_id=_job_id(row["job"]),
            name=row["name"] or "",
            node_id=state.node_id(),
            pid=row["pid"] or 0,
            ray_namespace=row["namespace"] or "",
            required_resources=dict(row["demand"]),
            death_cause=None if cause is None else {"actor_died_error_context": {"error_message": cause}},
            is_detached=row["is_detached"],
            repr_name="",
            num_restarts=row["restart_count"],
            num_restarts_due_to_lineage_reconstruction=0,
            num_restarts_due_to_node_preemption=0,
        )


def _object_rows() -> Iterator[ObjectState]:
    drivers = {row["pid"] for row in _jobs()}
    for row in ask("objects"):
        for holder in row["holders"] or ({"pid": 0, "pins": 0},):
            yield ObjectState(
                object_id=_hex(row["id"]),
                object_size=row["bytes"],
                task_status=OBJECT_STATES.get(row["state"], "FINISHED"),
                reference_type="PINNED_IN_MEMORY" if holder["pins"] else "LOCAL_REFERENCE",
                type="DRIVER" if holder["pid"] in drivers else "WORKER",
                pid=holder["pid"],
                ip=state.node_ip_address(),
            )


def _worker_rows() -> Iterator[WorkerState]:
    for row in ask("workers"):
        yield WorkerState(
            worker_id=_worker_id(row["worker"]) or "",
            worker_type="WORKER",
            node_id=state.node_id(),
            ip=state.node_ip_address(),
            pid=row["pid"] or 0,
        )
    for row in _jobs():
        # A driver has no number among the workers: its job's stands for it.
        driver = _job_id(row["job"]) + "ff" * 24
        yield WorkerState(
            worker_id=driver,
            worker_type="DRIVER",
            node_id=state.node_id(),
            ip=state.node_ip_address(),
            pid=row["pid"] or 0,
            is_alive=not row["has_left"],
        )


def _jobs() -> list[dict[str, Any]]:
    return ask("status")["work"]["jobs"]


def _job_rows() -> Iterator[JobState]:
    for row in _jobs():
        job_id = _job_id(row["job"])
        yield JobState(
            job_id=job_id,
            status="SUCCEEDED" if row["has_left"] else "RUNNING",
            driver_info={"id": job_id, "node_ip_address": state.node_ip_address(), "pid": str(row["pid"] or "")},
        )


def _node_rows() -> Iterator[NodeState]:
    for node in nodes():
        yield NodeState(
            node_id=node["NodeID"],
            node_ip=node["NodeManagerAddress"],
            state="ALIVE" if node["Alive"] else "DEAD",
            node_name=node.get("NodeName", node["NodeManagerAddress"]),
            resources_total=dict(node["Resources"]),
            labels=dict(node.get("Labels") or {}),
        )


def _group_rows() -> Iterator[PlacementGroupState]:
    for group_id, row in placement_group_table().items():
        yield PlacementGroupState(
            placement_group_id=group_id,
            name=row["name"],
            creator_job_id=group_id[-8:],
            state=row["state"],
            bundles=[
                {"bundle_id": {"placement_group_id": group_id, "bundle_index": str(index)}, "unit_resources": bundle}
                for index, bundle in row["bundles"].items()
            ],
            is_detached=False,
            stats=row["stats"],
        )


def _listing(rows: Iterable[Any], filters: Any, limit: int, detail: bool) -> list[Any]:
    return ListApiOptions(limit=limit, detail=detail, filters=filters).selected(rows)


_Row = TypeVar("_Row", bound=StateSchema)


class _List(Protocol[_Row]):
    """Lists what there is; see `list_tasks`."""

    def __call__(
        self,
        address: str | None = None,
        filters: list[Filter] | None = None,
        limit: int = DEFAULT_LIMIT,
        timeout: float = DEFAULT_RPC_TIMEOUT,
        detail: bool = False,
        raise_on_missing_output: bool = True,
        _explain: bool = False,
    ) -> list[_Row]: ...


def _lister(name: str, rows: Callable[[], Iterable[_Row]], doc: str) -> _List[_Row]:
    def listing(
        address: str | None = None,
        filters: list[Filter] | None = None,
        limit: int = DEFAULT_LIMIT,
        timeout: float = DEFAULT_RPC_TIMEOUT,
        detail: bool = False,
        raise_on_missing_output: bool = True,
        _explain: bool = False,
    ) -> list[_Row]:
        return _listing(rows(), filters, limit, detail)

    listing.__name__ = listing.__qualname__ = name
    listing.__doc__ = doc
    return listing


list_tasks = _lister(
    "list_tasks",
    _task_rows,
    """The tasks and calls that have not ended.

    `filters` are triples of a field, `"="` or `"!="`, and a value; `limit` rows at most; fields that are
    detail are `None` unless `detail`. Raises `ValueError` for a filter that cannot be.
    """,
)
list_actors = _lister("list_actors", _actor_rows, "The actors, as `list_tasks`.")
list_objects = _lister("list_objects", _object_rows, "The objects by who holds them, as `list_tasks`.")
list_workers = _lister("list_workers", _worker_rows, "The workers and drivers, as `list_tasks`.")
list_placement_groups = _lister("list_placement_groups", _group_rows, "The placement groups, as `list_tasks`.")
list_nodes = _lister("list_nodes", _node_rows, "The one node, as `list_tasks`.")
list_jobs = _lister("list_jobs", _job_rows, "The jobs that are not over, as `list_tasks`.")


list_runtime_envs: _List[RuntimeEnvState] = _lister(
    "list_runtime_envs", lambda: (), "Nothing: environments are not installed here, they are forked."
)
list_cluster_events: _List[ClusterEventState] = _lister(
    "list_cluster_events", lambda: (), "Nothing: there is no cluster."
)


def _one(rows: Iterable[Any], key: str, value: Any) -> Any:
    return next((row for row in rows if row[key] == value), None)


def get_task(id: Any, address: str | None = None, timeout: float = DEFAULT_RPC_TIMEOUT, _explain: bool = False) -> Any:
    """The row of a task by its id, or by the reference to its result; `None` where there is none."""
    return _one(_task_rows(), "task_id", id if isinstance(id, str) else id.task_id().hex())


def get_actor(
    id: str, address: str | None = None, timeout: float = DEFAULT_RPC_TIMEOUT, _explain: bool = False
) -> ActorState | None:
    """The row of an actor; `None` where there is none."""
    return _one(_actor_rows(), "actor_id", id)


def get_objects(
    id: str, address: str | None = None, timeout: float = DEFAULT_RPC_TIMEOUT, _explain: bool = False
) -> list[ObjectState]:
    """The rows of an object."""
    return [row for row in _object_rows() if row.object_id == id]


def get_worker(
    id: str, address: str | None = None, timeout: float = DEFAULT_RPC_TIMEOUT, _explain: bool = False
) -> WorkerState | None:
    """The row of a worker; `None` where there is none."""
    return _one(_worker_rows(), "worker_id", id)


def get_node(
    id: str, address: str | None = None, timeout: float = DEFAULT_RPC_TIMEOUT, _explain: bool = False
) -> NodeState | None:
    """The row of a node; `None` where there is none."""
    return _one(_node_rows(), "node_id", id)


def get_job(
    id: str, address: str | None = None, timeout: float = DEFAULT_RPC_TIMEOUT, _explain: bool = False
) -> JobState | None:
    """The row of a job; `None` where there is none."""
    return _one(_job_rows(), "job_id", id)


def get_placement_group(
    id: str, address: str | None = None, timeout: float = DEFAULT_RPC_TIMEOUT, _explain: bool = False
) -> PlacementGroupState | None:
    """The row of a placement group; `None` where there is none."""
    return _one(_group_rows(), "placement_group_id", id)


def _summary(per_key: dict[str, Any], summary_by: str, **totals: float) -> dict[str, Any]:
    return {"cluster": {"summary": per_key, "summary_by": summary_by, **totals}}


def summarize_tasks(
    address: str | None = None,
    timeout: float = DEFAULT_RPC_TIMEOUT,
    raise_on_missing_output: bool = True,
    _explain: bool = False,
) -> dict[str, Any]:
    """How many tasks of each function are in which state."""
    per_name: dict[str, Any] = {}
    rows = list(_task_rows())
    for row in rows:
        entry = per_name.setdefault(
            row.func_or_class_name,
            {"func_or_class_name": row.func_or_class_name, "type": row.type, "state_counts": Counter()},
        )
        entry["state_counts"][row.state] += 1
    calls = sum(row.type == "ACTOR_TASK" for row in rows)
    return _summary(
        per_name, "func_name", total_tasks=len(rows) - calls, total_actor_tasks=calls, total_actor_scheduled=0
    )


def summarize_actors(
    address: str | None = None,
    timeout: float = DEFAULT_RPC_TIMEOUT,
    raise_on_missing_output: bool = True,
    _explain: bool = False,
) -> dict[str, Any]:
    """How many actors of each class are in which state."""
    per_class: dict[str, Any] = {}
    rows = list(_actor_rows())
    for row in rows:
        entry = per_class.setdefault(row.class_name, {"class_name": row.class_name, "state_counts": Counter()})
        entry["state_counts"][row.state] += 1
    return _summary(per_class, "class", total_actors=len(rows))


def summarize_objects(
    address: str | None = None,
    timeout: float = DEFAULT_RPC_TIMEOUT,
    raise_on_missing_output: bool = True,
    _explain: bool = False,
) -> dict[str, Any]:
    """How many objects there are, and how large; call sites are not kept."""
    rows = {row.object_id: row for row in _object_rows()}
    size_bytes = sum(row.object_size for row in rows.values())
    entry = {
        "total_objects": len(rows),
        "total_size_mb": size_bytes / 1e6,
        "task_state_counts": Counter(row.task_status for row in rows.values()),
        "ref_type_counts": Counter(row.reference_type for row in rows.values()),
    }
    return _summary({"disabled": entry}, "callsite", total_objects=len(rows), total_size_mb=size_bytes / 1e6)


def _log_directory() -> Path:
    return Path(state.session_directory()) / "logs"


def list_logs(
    address: str | None = None,
    node_id: str | None = None,
    node_ip: str | None = None,
    glob_filter: str | None = None,
    timeout: float = DEFAULT_RPC_TIMEOUT,
) -> dict[str, list[str]]:
    """The names of the files that workers' output is in; those alone that `glob_filter` matches."""
    directory = _log_directory()
    names = sorted(path.name for path in directory.iterdir()) if directory.is_dir() else []
    return {"worker_out": [name for name in names if fnmatch.fnmatch(name, glob_filter or "*")]}


def get_log(
    address: str | None = None,
    node_id: str | None = None,
    node_ip: str | None = None,
    filename: str | None = None,
    actor_id: str | None = None,
    task_id: str | None = None,
    pid: int | None = None,
    follow: bool = False,
    tail: int = -1,
    timeout: float = DEFAULT_RPC_TIMEOUT,
    suffix: str = "out",
    encoding: str | None = "utf-8",
    errors: str | None = "strict",
    submission_id: str | None = None,
    attempt_number: int = 0,
    _interval: float | None = None,
    filter_ansi_code: bool = False,
) -> Iterator[str]:
    """The lines of a log file, named itself or by whose it is: its last `tail` ones (all where it is -1).

    Goes on with what is written from then where `follow`. Raises `FileNotFoundError` where there is none.
    """
    path = _log_path(filename, pid if pid is not None else _pid_of(actor_id, task_id))
    with open(path, encoding=encoding, errors=errors) as lines:
        kept = lines.readlines()
        yield from kept if tail < 0 else kept[max(0, len(kept) - tail) :]
        while follow:
            line = lines.readline()
            if line:
                yield line
            else:
                time.sleep(_interval or FOLLOW_DELAY_SECONDS)


def _pid_of(actor_id: str | None, task_id: str | None) -> int | None:
    if actor_id is not None:
        actor = get_actor(actor_id)
        return None if actor is None else actor.pid
    task = None if task_id is None else get_task(task_id)
    return None if task is None else task.worker_pid


def _log_path(filename: str | None, pid: int | None) -> Path:
    if filename is not None:
        return _log_directory() / filename
    found = sorted(_log_directory().glob(f"worker-*-{pid}.log")) if pid else []
    if not found:
        raise FileNotFoundError(f"there is no log of process {pid}")
    return found[-1]


class StateApiClient:
    """The listings by the names of what they list."""

    def __init__(self, address: str | None = None, **_unused: Any) -> None:
        self.address = address

    def list(self, resource: Any, options: ListApiOptions | None = None, **_unused: Any) -> list[Any]:
        """The rows of a resource: `"tasks"`, `"actors"`, `"objects"`, `"workers"`, `"nodes"`, `"jobs"`
        or `"placement_groups"`."""
        rows = _ROWS[getattr(resource, "value", resource)]
        return (options or ListApiOptions(limit=RAY_MAX_LIMIT_FROM_API_SERVER)).selected(rows())


_ROWS: dict[str, Any] = {
    "actors": _actor_rows,
    "jobs": _job_rows,
    "nodes": _node_rows,
    "objects": _object_rows,
    "placement_groups": _group_rows,
    "tasks": _task_rows,
    "workers": _worker_rows,
}

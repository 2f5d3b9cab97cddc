"""The rows of the state API.

The one thing to know: a row is a dataclass whose fields can be read as a dict's, too; fields marked
`detail` are `None` unless they were asked for. Times are milliseconds since 1970, sizes bytes, ids hex.
This file must not ask anybody anything.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from typing import Any, TypeVar

Row = TypeVar("Row", bound="StateSchema")
Filter = tuple[str, str, Any]

DEFAULT_LIMIT = 100
DEFAULT_RPC_TIMEOUT = 30
RAY_MAX_LIMIT_FROM_API_SERVER = 10_000


def _detail() -> Any:
    return field(default=None, metadata={"detail": True})


@dataclass
class StateSchema:
    """A row."""

    @classmethod
    def columns(cls) -> set[str]:
        """The names of all fields."""
        return {one.name for one in fields(cls)}

    def asdict(self) -> dict[str, Any]:
        """The row as a dict."""
        return asdict(self)

    def __getitem__(self, key: str) -> Any:
        try:
            return getattr(self, key)
        except AttributeError:
            raise KeyError(key) from None

    def __setitem__(self, key: str, value: Any) -> None:
        setattr(self, key, value)

    def __contains__(self, key: object) -> bool:
        return key in self.columns()

    def get(self, key: str, default: Any = None) -> Any:
        """The field, or `default` where there is none."""
        return getattr(self, key, default)

    def without_detail(self: Row) -> Row:
        """The row, with `None` in the fields that are detail."""
        for one in fields(self):
            if one.metadata.get("detail"):
                setattr(self, one.name, None)
        return self


@dataclass
class TaskState(StateSchema):
    """A task, or a call of an actor."""

    task_id: str = ""
    attempt_number: int = 0
    name: str = ""
    state: str = ""
    job_id: str = ""
    actor_id: str | None = None
    type: str = "NORMAL_TASK"
    func_or_class_name: str = ""
    parent_task_id: str = ""
    node_id: str | None = None
    worker_id: str | None = None
    worker_pid: int | None = None
    error_type: str | None = None
    language: str | None = _detail()
    required_resources: dict[str, float] | None = _detail()
    runtime_env_info: dict[str, Any] | None = _detail()
    placement_group_id: str | None = _detail()
    events: list[dict[str, Any]] | None = _detail()
    profiling_data: dict[str, Any] | None = _detail()
    creation_time_ms: int | None = _detail()
    start_time_ms: int | None = _detail()
    end_time_ms: int | None = _detail()
    task_log_info: dict[str, Any] | None = _detail()
    error_message: str | None = _detail()
    is_debugger_paused: bool | None = _detail()
    call_site: str | None = _detail()
    label_selector: dict[str, str] | None = _detail()


@dataclass
class ActorState(StateSchema):
    """An actor; the last dead ones have rows, too."""

    actor_id: str = ""
    class_name: str = ""
    state: str = ""
    job_id: str = ""
    name: str | None = None
    node_id: str | None = None
    pid: int | None = None
    ray_namespace: str | None = None
    serialized_runtime_env: str | None = _detail()
    required_resources: dict[str, float] | None = _detail()
    death_cause: dict[str, Any] | None = _detail()
    is_detached: bool | None = _detail()
    placement_group_id: str | None = _detail()
    repr_name: str | None = _detail()
    num_restarts: int | None = _detail()
    num_restarts_due_to_lineage_reconstruction: int | None = _detail()
    num_restarts_due_to_node_preemption: int | None = _detail()
    call_site: str | None = _detail()
    label_selector: dict[str, str] | None = _detail()


@dataclass
class ObjectState(StateSchema):
    """An object, once for each process that holds it."""

    object_id: str = ""
    object_size: int = 0
    task_status: str = ""
    attempt_number: int = 0
    reference_type: str = ""
    call_site: str = ""
    type: str = ""
    pid: int = 0
    ip: str = ""


@dataclass
class WorkerState(StateSchema):
    """A worker."""

    worker_id: str = ""
    is_alive: bool = True
    worker_type: str = "WORKER"
    exit_type: str | None = None
    node_id: str = ""
    ip: str = ""
    pid: int = 0
    exit_detail: str | None = _detail()
    worker_launch_time_ms: int | None = _detail()
    worker_launched_time_ms: int | None = _detail()
    start_time_ms: int | None = _detail()
    end_time_ms: int | None = _detail()
    debugger_port: int | None = _detail()
    num_paused_threads: int | None = _detail()


@dataclass
class PlacementGroupState(StateSchema):
    """A placement group."""

    placement_group_id: str = ""
    name: str = ""
    creator_job_id: str = ""
    state: str = ""
    bundles: list[dict[str, Any]] | None = _detail()
    is_detached: bool | None = _detail()
    stats: dict[str, Any] | None = _detail()


@dataclass
class NodeState(StateSchema):
    """The node."""

    node_id: str = ""
    node_ip: str = ""
    is_head_node: bool = True
    state: str = "ALIVE"
    state_message: str | None = None
    node_name: str = ""
    resources_total: dict[str, float] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    start_time_ms: int | None = _detail()
    end_time_ms: int | None = _detail()


@dataclass
class JobState(StateSchema):
    """A job: a driver, or what goes on after one."""

    job_id: str = ""
    submission_id: str | None = None
    entrypoint: str = ""
    type: str = "DRIVER"
    status: str = ""
    message: str | None = None
    error_type: str | None = None
    driver_info: dict[str, Any] | None = None
    metadata: dict[str, str] | None = _detail()
    start_time: int | None = _detail()
    end_time: int | None = _detail()
    runtime_env: dict[str, Any] | None = _detail()


@dataclass
class RuntimeEnvState(StateSchema):
    """An environment of workers."""

    runtime_env: dict[str, Any] = field(default_factory=dict)
    success: bool = True
    creation_time_ms: float | None = None
    node_id: str = ""
    ref_cnt: int | None = _detail()
    error: str | None = _detail()


@dataclass
class ClusterEventState(StateSchema):
    """Something that happened."""

    severity: str = ""
    time: str = ""
    source_type: str = ""
    message: str = ""
    event_id: str = ""
    custom_fields: dict[str, Any] | None = _detail()


@dataclass
class ListApiOptions:
    """What of a listing is wanted."""

    limit: int = DEFAULT_LIMIT
    timeout: float = DEFAULT_RPC_TIMEOUT
    detail: bool = False
    filters: list[Filter] | None = None

    def __post_init__(self) -> None:
        if not 0 < self.limit <= RAY_MAX_LIMIT_FROM_API_SERVER:
            raise ValueError(f"Given limit {self.limit} is not in 1..{RAY_MAX_LIMIT_FROM_API_SERVER}.")
        for _, predicate, _ in self.filters or ():
            if predicate not in ("=", "!="):
                raise ValueError(f"Unsupported filter predicate {predicate} is given. Available predicates: =, !=.")

    def selected(self, rows: Iterable[Row]) -> list[Row]:
        """The rows that are wanted."""
        kept = [row for row in rows if all(_holds(row, one) for one in self.filters or ())]
        kept = kept[: self.limit]
        return kept if self.detail else [row.without_detail() for row in kept]


def _holds(row: StateSchema, wanted: Filter) -> bool:
    key, predicate, value = wanted
    if key not in row:
        raise ValueError(f"Invalid filter key '{key}' for {type(row).__name__}; there are {sorted(row.columns())}.")
    return _is_same(row[key], value) == (predicate == "=")


def _is_same(found: Any, wanted: Any) -> bool:
    """Texts are the same in any case, and numbers as texts, as on a command line."""
    if found is None or wanted is None:
        return found is wanted
    return str(found).lower() == str(wanted).lower()


__all__ = [
    "ActorState",
    "ClusterEventState",
    "DEFAULT_LIMIT",
    "DEFAULT_RPC_TIMEOUT",
    "JobState",
    "ListApiOptions",
    "NodeState",
    "ObjectState",
    "PlacementGroupState",
    "RAY_MAX_LIMIT_FROM_API_SERVER",
    "RuntimeEnvState",
    "StateSchema",
    "TaskState",
    "WorkerState",
]

"""What is built over the core: pools, queues, placement groups, the state of things.

The one thing to know: the function `placement_group` has the name of its module, so it is bound here
at once; what is rarely used is imported when it is asked for. This file must not hold more than what
binds names.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .actor_pool import ActorPool
from .helpers import as_completed, map_unordered
from .placement_group import (
    get_current_placement_group,
    get_placement_group,
    placement_group,
    placement_group_table,
    remove_placement_group,
)

if TYPE_CHECKING:
    from . import accelerators, iter
    from .._private.services import get_node_instance_id, get_node_ip_address
    from .check_serialize import inspect_serializability
    from .client_connect import connect, disconnect
    from .debug import disable_log_once_globally, enable_periodic_logging, log_once
    from .serialization import deregister_serializer, register_serializer

_LATER = {
    "connect": "client_connect",
    "deregister_serializer": "serialization",
    "disable_log_once_globally": "debug",
    "disconnect": "client_connect",
    "enable_periodic_logging": "debug",
    "inspect_serializability": "check_serialize",
    "log_once": "debug",
    "register_serializer": "serialization",
}
_MODULES = {"accelerators", "iter", "metrics", "multiprocessing", "queue", "scheduling_strategies", "state"}
_SERVICES = {"get_node_instance_id", "get_node_ip_address"}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f".{name}", __name__)
    if name in _SERVICES:
        home: Any = importlib.import_module(".._private.services", __name__)
    elif name in _LATER:
        home = importlib.import_module(f".{_LATER[name]}", __name__)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(home, name)
    globals()[name] = found
    return found


def list_named_actors(all_namespaces: bool = False) -> list[Any]:
    """The names of all living named actors of this namespace.

    Dicts with `name` and `namespace` of all namespaces where `all_namespaces`.
    """
    from .. import get_runtime_context
    from .state.api import _actor_rows

    rows = [row for row in _actor_rows() if row.name and row.state != "DEAD"]
    if all_namespaces:
        return [{"name": row.name, "namespace": row.ray_namespace} for row in rows]
    here = get_runtime_context().namespace
    return [row.name for row in rows if row.ray_namespace == here]


__all__ = [
    "ActorPool",
    "accelerators",
    "as_completed",
    "connect",
    "deregister_serializer",
    "disable_log_once_globally",
    "disconnect",
    "enable_periodic_logging",
    "get_current_placement_group",
    "get_node_instance_id",
    "get_node_ip_address",
    "get_placement_group",
    "inspect_serializability",
    "iter",
    "list_named_actors",
    "log_once",
    "map_unordered",
    "placement_group",
    "placement_group_table",
    "register_serializer",
    "remove_placement_group",
]

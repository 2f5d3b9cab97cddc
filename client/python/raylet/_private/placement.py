"""Where a call is to run: what the options on scheduling come to for the native side.

The one thing to know: there is one node, so only placement groups change anything; a hard affinity to another node
can never be met.

This module must not reserve anything.
"""

from __future__ import annotations

from typing import Any

from ..exceptions import ActorUnschedulableError, TaskUnschedulableError
from .session import Session


def placement_of(
    options: dict[str, Any], held: dict[str, float], placing: dict[str, float], what: str
) -> dict[str, Any]:
    """The native options that say where: `placement` is `(promise, bundle index)`, False for no group and None for that
    of the running task if it captures its children; `is_capturing` is whether this one captures its own.

    Raises ValueError where no bundle has room for `held` or `placing`.
    """
    group, index, is_capturing = _named_group(options)
    if group == "default":
        return {"placement": None}
    if group is None or group.is_empty:
        return {"placement": False}
    from ..util.placement_group import check_placement_group_index, check_resource_shape

    check_placement_group_index(group, index)
    check_resource_shape(group, held, placing, what)
    return {"placement": (group.promise, index), "is_capturing": is_capturing}


def _named_group(options: dict[str, Any]) -> tuple[Any, int, bool]:
    strategy = options.get("scheduling_strategy")
    if strategy is not None and hasattr(strategy, "placement_group"):
        return (
            strategy.placement_group,
            strategy.placement_group_bundle_index,
            bool(strategy.placement_group_capture_child_tasks),
        )
    return (
        options.get("placement_group", "default"),
        options.get("placement_group_bundle_index", -1),
        bool(options.get("placement_group_capture_child_tasks")),
    )


def unschedulable(options: dict[str, Any], session: Session, is_actor: bool) -> Exception | None:
    """The error of a call that is bound to a node which is not this one, or None."""
    strategy = options.get("scheduling_strategy")
    wanted = getattr(strategy, "node_id", None)
    if wanted is None or getattr(strategy, "soft", True) or wanted == session.info.get("node_id"):
        return None
    text = (
        f"The node specified via NodeAffinitySchedulingStrategy doesn't exist any more or is infeasible, and "
        f"soft=False was specified: {wanted}"
    )
    return ActorUnschedulableError(text) if is_actor else TaskUnschedulableError(text)

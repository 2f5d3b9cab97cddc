"""Where a call is to run: what the options on scheduling come to for the native side.

The one thing to know: there is one node, so only placement groups change anything; a hard affinity to another node
can never be met. What is placed in a group has workers of its own, told by its definition, so the group of a process
is one for its life and a call outside of groups pays nothing.

This module must not reserve anything.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ..exceptions import ActorUnschedulableError, TaskUnschedulableError
from .environments import group_number
from .session import Session


class Placed(NamedTuple):
    """In which group something runs, and whether what it submits runs there, too."""

    promise: Any
    is_capturing: bool


class Current:
    """The group that this process runs in."""

    placed: Placed | None = None


def enter(placed: tuple[Any, bool] | None) -> None:
    """In a worker: what its definition says of where it runs."""
    Current.placed = None if placed is None else Placed(*placed)


def placement_of(
    options: dict[str, Any], held: dict[str, float], placing: dict[str, float], what: str, environment: int
) -> dict[str, Any]:
    """The native options that say where: `placement` is `(promise, bundle index)` or None, `placed` is what the
    definition tells the worker, and `group` is which workers may run it, of those of an environment.

    Raises ValueError where no bundle has room for `held` or `placing`.
    """
    group, index, is_capturing = _named_group(options)
    if group == "default":
        captured = Current.placed if Current.placed is not None and Current.placed.is_capturing else None
        return _placed(captured, -1, environment)
    if group is None or group.is_empty:
        return _placed(None, -1, environment)
    from ..util.placement_group import check_placement_group_index, check_resource_shape

    check_placement_group_index(group, index)
    check_resource_shape(group, held, placing, what)
    return _placed(Placed(group.promise, is_capturing), index, environment)


def _placed(placed: Placed | None, index: int, environment: int) -> dict[str, Any]:
    if placed is None:
        return {"placement": None, "placed": None, "group": environment}
    text = f"{environment} {placed.promise.hex()} {placed.is_capturing}"
    group = group_number(text)
    return {"placement": (placed.promise, index), "placed": tuple(placed), "group": group}


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

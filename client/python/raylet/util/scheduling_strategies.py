"""Where a task or actor is to run, as objects for the option `scheduling_strategy`.

The one thing to know: there is one node, so all but a placement group only say whether it is the right
one. This file must not schedule.
"""

from __future__ import annotations

import string
from typing import TYPE_CHECKING, Any, Union

if TYPE_CHECKING:
    from .placement_group import PlacementGroup

NODE_ID_CHARACTERS = 56


class PlacementGroupSchedulingStrategy:
    """In what a group reserved: in bundle `placement_group_bundle_index`, or in any where it is -1.

    Where `placement_group_capture_child_tasks`, what the task submits runs in the group, too.
    """

    def __init__(
        self,
        placement_group: PlacementGroup | None,
        placement_group_bundle_index: int = -1,
        placement_group_capture_child_tasks: bool | None = None,
    ) -> None:
        self.placement_group = placement_group
        self.placement_group_bundle_index = placement_group_bundle_index
        self.placement_group_capture_child_tasks = placement_group_capture_child_tasks


class NodeAffinitySchedulingStrategy:
    """On one node, by its id in hex; elsewhere, too, where `soft`. Raises `ValueError` for what is no id."""

    def __init__(
        self, node_id: str, soft: bool, _spill_on_unavailable: bool = False, _fail_on_unavailable: bool = False
    ) -> None:
        self.node_id: str = node_id if isinstance(node_id, str) else node_id.hex()
        self.soft = soft
        self._spill_on_unavailable = _spill_on_unavailable
        self._fail_on_unavailable = _fail_on_unavailable
        if not _is_node_id(self.node_id):
            raise ValueError(
                f"Invalid node_id '{self.node_id}'. Node ID must be a valid hex string. "
                "To get a list of all nodes and their IDs in your cluster, use ray.nodes()."
            )
        if _spill_on_unavailable and not soft:
            raise ValueError("_spill_on_unavailable cannot be set when soft is False.")
        if _fail_on_unavailable and soft:
            raise ValueError("_fail_on_unavailable cannot be set when soft is True.")


def _is_node_id(text: str) -> bool:
    is_hex = len(text) == NODE_ID_CHARACTERS and all(character in string.hexdigits for character in text)
    return is_hex and text.lower() != "f" * NODE_ID_CHARACTERS


class _Values:
    def __init__(self, *values: str) -> None:
        name = type(self).__name__
        if not values:
            raise ValueError(f"The variadic parameter of the {name} operator must be a non-empty tuple.")
        for position, value in enumerate(values):
            if not isinstance(value, str):
                raise ValueError(
                    f"Type of value in position {position} for the {name} operator must be str "
                    f"but got {value} of type {type(value)}."
                )
        self.values = list(values)


class In(_Values):
    """The label has one of these values."""


class NotIn(_Values):
    """The label has none of these values."""


class Exists:
    """The node has the label."""


class DoesNotExist:
    """The node does not have the label."""


Operator = Union[In, NotIn, Exists, DoesNotExist]


class NodeLabelSchedulingStrategy:
    """On a node with such labels: those of `hard` must hold, those of `soft` should."""

    def __init__(self, hard: dict[str, Operator] | None, *, soft: dict[str, Operator] | None = None) -> None:
        self.hard = _checked(hard, "hard")
        self.soft = _checked(soft, "soft")
        if not (self.hard or self.soft):
            raise ValueError(
                "The `hard` and `soft` parameter of NodeLabelSchedulingStrategy cannot both be empty."
            )


def _checked(labels: Any, parameter: str) -> dict[str, Operator]:
    if labels is None:
        return {}
    if not isinstance(labels, dict):
        raise ValueError(f"The {parameter} parameter must be a map but got type {type(labels)}.")
    for key, value in labels.items():
        if not isinstance(key, str):
            raise ValueError(f"The map key of the {parameter} parameter must be of type str but got {type(key)}.")
        if not isinstance(value, (In, NotIn, Exists, DoesNotExist)):
            raise ValueError(
                f"The map value for key {key} of the {parameter} parameter must be one of the In, NotIn, Exists "
                f"or DoesNotExist operators but got {type(value)}."
            )
    return dict(labels)


SchedulingStrategyT = Union[
    None,
    str,
    PlacementGroupSchedulingStrategy,
    NodeAffinitySchedulingStrategy,
    NodeLabelSchedulingStrategy,
]

__all__ = [
    "DoesNotExist",
    "Exists",
    "In",
    "NodeAffinitySchedulingStrategy",
    "NodeLabelSchedulingStrategy",
    "NotIn",
    "PlacementGroupSchedulingStrategy",
    "SchedulingStrategyT",
]

"""Placement groups: resources reserved together, all or nothing.

The one thing to know: the raylet names a group by a promise that it seals when everything is reserved,
so whoever waits for a group waits for an object; a handle is that reference and a copy of the bundles.
This file must not reserve or count anything.
"""

from __future__ import annotations

import functools
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from .. import get, put, remote, wait

if TYPE_CHECKING:
    from .. import ObjectRef

VALID_PLACEMENT_GROUP_STRATEGIES = ("PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD")
ID_BYTES = 18
# Removed groups that this process still tells about.
REMOVED_COUNT_MAX = 1000


class PlacementGroupID:
    """The name of a group: 18 bytes, of which the last 4 are its job's."""

    __slots__ = ("_bytes",)

    def __init__(self, value: bytes) -> None:
        if len(value) != ID_BYTES:
            raise ValueError(f"a placement group's id has {ID_BYTES} bytes, not {len(value)}")
        self._bytes = bytes(value)

    @classmethod
    def of(cls, promise: bytes) -> PlacementGroupID:
        """That of the group whose promise has this id of 28 bytes: what tells its task and its
        number apart, and its job."""
        return cls(promise[:8] + bytes(2) + promise[24:28] + promise[20:24])

    @classmethod
    def nil(cls) -> PlacementGroupID:
        return cls(b"\xff" * ID_BYTES)

    @classmethod
    def from_hex(cls, text: str) -> PlacementGroupID:
        return cls(bytes.fromhex(text))

    def hex(self) -> str:
        return self._bytes.hex()

    def binary(self) -> bytes:
        return self._bytes

    def is_nil(self) -> bool:
        return self._bytes == b"\xff" * ID_BYTES

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PlacementGroupID) and self._bytes == other._bytes

    def __hash__(self) -> int:
        return hash(self._bytes)

    def __repr__(self) -> str:
        return f"PlacementGroupID({self.hex()})"

    def __reduce__(self) -> tuple[Any, ...]:
        return PlacementGroupID, (self._bytes,)


class PlacementGroup:
    """A handle to a group; equal to every other handle of the same."""

    def __init__(self, promise: ObjectRef | None, bundles: list[dict[str, float]] | None = None) -> None:
        self.promise = promise
        self.id = PlacementGroupID.nil() if promise is None else PlacementGroupID.of(promise.binary())
        self.bundle_cache = bundles

    @staticmethod
    def empty() -> PlacementGroup:
        """The handle of no group."""
        return PlacementGroup(None)

    @property
    def is_empty(self) -> bool:
        """Whether this is no group's handle."""
        return self.promise is None

    def ready(self) -> ObjectRef:
        """A reference whose value is this handle, once everything is reserved."""
        if self.promise is None:
            return put(self)
        return _handle_task().remote(self, self.promise)

    def wait(self, timeout_seconds: float = 30) -> bool:
        """Whether everything is reserved within so many seconds."""
        if self.promise is None:
            return True
        if not wait([self.promise], timeout=timeout_seconds)[0]:
            return False
        from ..exceptions import RayError

        try:
            get(self.promise)
        except RayError:
            # It was removed before it was ready.
            return False
        return True

    @property
    def bundle_specs(self) -> list[dict[str, float]]:
        """What each bundle reserves."""
        if not self.bundle_cache:
            self.bundle_cache = list(placement_group_table(self).get("bundles", {}).values())
        return self.bundle_cache

    @property
    def bundle_count(self) -> int:
        """How many bundles there are."""
        return len(self.bundle_specs)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PlacementGroup) and self.id == other.id

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        return f"PlacementGroup({self.id.hex()}, bundles={self.bundle_cache})"

    def __reduce__(self) -> tuple[Any, ...]:
        return PlacementGroup, (self.promise, self.bundle_cache)


def _handle(group: PlacementGroup, _is_ready: None) -> PlacementGroup:
    return group


@functools.cache
def _handle_task() -> Any:
    """The task that gives a group's handle once its promise has a value."""
    return remote(num_cpus=0)(_handle)


class _Known:
    """The groups that this process made or removed, so that it can tell of those that are gone."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._session: str | None = None
        self._made: dict[str, tuple[PlacementGroup, dict[str, Any]]] = {}
        self._removed: OrderedDict[str, dict[str, Any]] = OrderedDict()

    def _of(self, session: str) -> None:
        if session != self._session:
            self._session, self._made, self._removed = session, {}, OrderedDict()

    def made(self, group: PlacementGroup, about: dict[str, Any]) -> None:
        with self._lock:
            self._of(_session())
            self._made[group.id.hex()] = group, about

    def removed(self, group: PlacementGroup) -> None:
        group_id = group.id.hex()
        with self._lock:
            self._of(_session())
            _, about = self._made.pop(group_id, (group, {}))
        row = _row(group_id, {**about, "state": "REMOVED"}, group.bundle_cache or [])
        with self._lock:
            self._removed.setdefault(group_id, row)
            while len(self._removed) > REMOVED_COUNT_MAX:
                self._removed.popitem(last=False)

    def handle(self, group_id: str) -> PlacementGroup | None:
        with self._lock:
            self._of(_session())
            return self._made.get(group_id, (None,))[0]

    def removed_rows(self) -> dict[str, dict[str, Any]]:
        with self._lock:
            self._of(_session())
            return dict(self._removed)


_known = _Known()


def _session() -> str:
    from .._private.state import state

    return state.session_id()


def placement_group(
    bundles: list[dict[str, float]],
    strategy: str | None = None,
    name: str = "",
    lifetime: str | None = None,
    _soft_target_node_id: str | None = None,
    bundle_label_selector: list[dict[str, str]] | None = None,
    topology_strategy: dict[str, str] | None = None,
) -> PlacementGroup:
    """Reserves resources together; returns at once.

    Each bundle is what it reserves by name, e.g. `{"CPU": 1, "memory": 2**30}`. On one node every
    `strategy` comes to the same, but `STRICT_SPREAD` of several bundles never becomes ready. The group
    ends with its job unless `lifetime` is `"detached"`. Raises `ValueError` for what no group can be.
    """
    _check_strategy(strategy, topology_strategy)
    _check_bundles(bundles)
    if bundle_label_selector is not None and len(bundle_label_selector) != len(bundles):
        raise ValueError(
            f"Invalid bundle label selector {bundle_label_selector}. "
            "The length of `bundle_label_selector` should equal the length of `bundles`."
        )
    if lifetime not in (None, "detached"):
        raise ValueError(f"Placement group `lifetime` argument must be either `None` or 'detached'. Got {lifetime}.")
    from .._private.state import native

    specs = [{resource: float(amount) for resource, amount in bundle.items()} for bundle in bundles]
    wanted = [{resource: amount for resource, amount in spec.items() if amount} for spec in specs]
    promise = native().placement_group(wanted, strategy or "PACK", name, lifetime == "detached")
    group = PlacementGroup(promise, specs)
    _known.made(group, {"name": name, "strategy": strategy or "PACK"})
    return group


def _check_strategy(strategy: str | None, topology_strategy: dict[str, str] | None) -> None:
    if topology_strategy is not None and strategy is not None:
        raise ValueError("`strategy` and `topology_strategy` cannot both be specified.")
    if strategy is not None and strategy not in VALID_PLACEMENT_GROUP_STRATEGIES:
        raise ValueError(
            f"Invalid placement group strategy {strategy}. "
            f"Supported strategies are: {VALID_PLACEMENT_GROUP_STRATEGIES}."
        )


def _check_bundles(bundles: Any) -> None:
    if not isinstance(bundles, list):
        raise ValueError(f"Placement group bundles must be a list, got {type(bundles)}.")
    example = 'For example: `[{"CPU": 1.0}, {"GPU": 1.0}]`.'
    wanted = f"Bundles must be a non-empty list of resource dictionaries. {example}"
    if not bundles:
        raise ValueError(f"{wanted} Got empty list instead.")
    for bundle in bundles:
        if not _is_bundle(bundle):
            raise ValueError(wanted)
        if not any(bundle.values()):
            raise ValueError(
                f"Bundles cannot be an empty dictionary or resources with only 0 values. Bundles: {bundles}"
            )
        if "object_store_memory" in bundle:
            from .._private.warned import warn

            warn("Setting 'object_store_memory' for bundles is deprecated: it reserves nothing.")


def _is_bundle(bundle: Any) -> bool:
    if not isinstance(bundle, dict):
        return False
    return all(isinstance(name, str) and isinstance(amount, (int, float)) for name, amount in bundle.items())


def remove_placement_group(placement_group: PlacementGroup) -> None:
    """Gives back what a group reserves, and ends what runs in it."""
    assert placement_group is not None
    from .._private.state import native

    if placement_group.promise is None:
        return
    native().remove_placement_group(placement_group.promise)
    _known.removed(placement_group)


def get_placement_group(placement_group_name: str) -> PlacementGroup:
    """The group that was made under this name. Raises `ValueError` where there is none."""
    if not placement_group_name:
        raise ValueError("Please supply a non-empty value to get_placement_group")
    for row in _asked_rows():
        if row["name"] == placement_group_name and row["state"] != "REMOVED" and row["id"]:
            return _found(row)
    raise ValueError(f"Failed to look up placement group with name: {placement_group_name}")


def _found(row: dict[str, Any]) -> PlacementGroup:
    from .. import ObjectRef

    promise = _promise_id(row)
    known = _known.handle(PlacementGroupID.of(promise).hex())
    return known or PlacementGroup(ObjectRef(promise), [dict(bundle) for bundle in row["bundles"]])


def placement_group_table(placement_group: PlacementGroup | None = None) -> dict[str, Any]:
    """The row of a group, empty where it is unknown; those of all groups by id where none is named.

    A row has `placement_group_id`, `name`, `strategy`, `state` (`PENDING`, `CREATED` or `REMOVED`),
    `bundles` by number and what else Ray lists.
    """
    rows = _known.removed_rows()
    for row in _asked_rows():
        if row["id"]:
            group_id = PlacementGroupID.of(_promise_id(row)).hex()
            rows.setdefault(group_id, _row(group_id, row, row["bundles"]))
    return rows if placement_group is None else rows.get(placement_group.id.hex(), {})


def _asked_rows() -> list[dict[str, Any]]:
    from .._private.state import ask

    return ask("placement-groups")


def _promise_id(row: dict[str, Any]) -> bytes:
    return row["id"] if isinstance(row["id"], bytes) else bytes.fromhex(row["id"])


def _row(group_id: str, row: dict[str, Any], bundles: list[dict[str, float]]) -> dict[str, Any]:
    from .._private.state import state

    return {
        "placement_group_id": group_id,
        "name": row.get("name", ""),
        "bundles": {index: dict(bundle) for index, bundle in enumerate(bundles)},
        "bundles_to_node_id": {index: state.node_id() for index in range(len(bundles))},
        "strategy": row.get("strategy", "PACK"),
        "state": row.get("state", "CREATED"),
        "stats": {
            "end_to_end_creation_latency_ms": 0.0,
            "scheduling_latency_ms": 0.0,
            "scheduling_attempt": 1,
            "highest_retry_delay_ms": 0.0,
            "scheduling_state": "FINISHED",
        },
    }


def get_current_placement_group() -> PlacementGroup | None:
    """The group that the calling task or actor runs in; `None` where there is none, as in drivers."""
    from .._private.placement import Current

    if Current.placed is None:
        return None
    group = PlacementGroup(Current.placed.promise)
    return _known.handle(group.id.hex()) or group


def check_placement_group_index(placement_group: PlacementGroup, bundle_index: int) -> None:
    """Raises `ValueError` where the group has no such bundle."""
    if placement_group.is_empty:
        if bundle_index != -1:
            raise ValueError("If placement group is not set, the value of bundle index must be -1.")
    elif not -1 <= bundle_index < placement_group.bundle_count:
        raise ValueError(
            f"placement group bundle index {bundle_index} is invalid. "
            f"Valid placement group indexes: 0-{placement_group.bundle_count}"
        )


def check_resource_shape(
    placement_group: PlacementGroup, resources: dict[str, float], placing: dict[str, float], what: str
) -> None:
    """Raises `ValueError` where no bundle has room for what `what` holds, or needs to be placed."""
    bundles = placement_group.bundle_specs
    if not _fits_some(resources, bundles):
        raise ValueError(
            f"Cannot schedule {what} with the placement group because the resource request "
            f"{resources} cannot fit into any bundles for the placement group, {bundles}."
        )
    if not _fits_some(placing, bundles):
        raise ValueError(
            f"Cannot schedule {what} with the placement group because the actor requires "
            f"{placing.get('CPU', 0)} CPU for creation, but it cannot fit into any bundles for the placement group, "
            f"{bundles}. Consider creating a placement group with CPU resources."
        )


def _fits_some(wanted: dict[str, float], bundles: list[dict[str, float]]) -> bool:
    return any(all(bundle.get(name, 0) >= amount for name, amount in wanted.items()) for bundle in bundles)


__all__ = [
    "PlacementGroup",
    "PlacementGroupID",
    "get_current_placement_group",
    "get_placement_group",
    "placement_group",
    "placement_group_table",
    "remove_placement_group",
]

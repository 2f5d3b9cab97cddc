"""What Ray calls experimental and libraries use nevertheless: a key-value store and progress bars.

The one thing to know: nothing here is needed by the rest of the package.
"""

from __future__ import annotations

from typing import Any

from . import internal_kv, tqdm_ray

__all__ = ["get_object_locations", "internal_kv", "tqdm_ray"]


def get_object_locations(obj_refs: list[Any], timeout_ms: int = -1) -> dict[Any, dict[str, Any]]:
    """Where the values of references are: on this node, where they have one."""
    from .. import _native, get_runtime_context

    node_id = get_runtime_context().get_node_id()
    return {
        ref: {"node_ids": [node_id] if _native.is_ready(ref) else [], "object_size": 0, "did_spill": False}
        for ref in obj_refs
    }

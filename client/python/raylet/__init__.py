"""Ray's programming model on one machine, with nothing between a process and its data.

The one thing to know: `import raylet as ray` is enough for a program that uses Ray's core. Sub-packages are imported
when they are first used, so that importing this one is quick.

This module must not import third-party modules.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "2.60.0"
__commit__ = "raylet"

from . import _native, exceptions
from ._private.api import (
    RayContext,
    available_resources,
    cancel,
    cluster_resources,
    get,
    get_actor,
    get_gpu_ids,
    init,
    is_initialized,
    kill,
    nodes,
    put,
    remote,
    shutdown,
    timeline,
    wait,
)
from ._private.generator import DynamicObjectRefGenerator, ObjectRefGenerator

ObjectRef = _native.ObjectRef
ObjectID = ObjectRef

SCRIPT_MODE = 0
WORKER_MODE = 1
LOCAL_MODE = 2

# What is found in a module that is imported when it is first asked for.
_LATER: dict[str, tuple[str, str | None]] = {
    "ArrowBuilder": ("_private.tables", "ArrowBuilder"),
    "empty": ("_private.arrays", "empty"),
    "method": ("actor", "method"),
    "get_runtime_context": ("runtime_context", "get_runtime_context"),
    "ActorID": ("_raylet", "ActorID"),
    "JobID": ("_raylet", "JobID"),
    "NodeID": ("_raylet", "NodeID"),
    "TaskID": ("_raylet", "TaskID"),
    "WorkerID": ("_raylet", "WorkerID"),
    "UniqueID": ("_raylet", "UniqueID"),
    "FunctionID": ("_raylet", "FunctionID"),
    "ActorClassID": ("_raylet", "ActorClassID"),
    "JobConfig": ("job_config", "JobConfig"),
    "Language": ("_private.languages", "Language"),
    "LoggingConfig": ("_private.languages", "LoggingConfig"),
    "profile": ("_private.profiling", "profile"),
    "show_in_dashboard": ("_private.languages", "show_in_dashboard"),
}
_MODULES = (
    "_private",
    "_raylet",
    "actor",
    "cloudpickle",
    "compat",
    "dag",
    "experimental",
    "job_config",
    "remote_function",
    "runtime_context",
    "runtime_env",
    "types",
    "util",
)

if TYPE_CHECKING:
    from ._private.arrays import empty
    from ._private.languages import Language, LoggingConfig
    from ._private.tables import ArrowBuilder
    from ._raylet import ActorClassID, ActorID, FunctionID, JobID, NodeID, TaskID, UniqueID, WorkerID
    from .actor import method
    from .job_config import JobConfig
    from .runtime_context import get_runtime_context

__all__ = [
    "ActorClassID",
    "ActorID",
    "ArrowBuilder",
    "DynamicObjectRefGenerator",
    "FunctionID",
    "JobConfig",
    "JobID",
    "LOCAL_MODE",
    "Language",
    "LoggingConfig",
    "NodeID",
    "ObjectID",
    "ObjectRef",
    "ObjectRefGenerator",
    "RayContext",
    "SCRIPT_MODE",
    "TaskID",
    "UniqueID",
    "WORKER_MODE",
    "WorkerID",
    "__version__",
    "available_resources",
    "cancel",
    "cluster_resources",
    "empty",
    "exceptions",
    "get",
    "get_actor",
    "get_gpu_ids",
    "get_runtime_context",
    "init",
    "is_initialized",
    "kill",
    "method",
    "nodes",
    "put",
    "remote",
    "shutdown",
    "timeline",
    "wait",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f".{name}", __name__)
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _LATER[name]
    found = getattr(importlib.import_module(f".{module}", __name__), attribute or name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER, *_MODULES})

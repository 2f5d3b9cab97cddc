"""Names that programs import from `ray._raylet`.

The one thing to know: they are defined elsewhere; this module only gathers them.
"""

from . import _native
from ._private.generator import DynamicObjectRefGenerator, ObjectRefGenerator
from ._private.ids import (
    ActorClassID,
    ActorID,
    BaseID,
    FunctionID,
    JobID,
    NodeID,
    TaskID,
    UniqueID,
    WorkerID,
)

ObjectRef = _native.ObjectRef
ObjectID = ObjectRef

OPTIMIZED = True
STREAMING_GENERATOR_RETURN = -2
RESOURCE_UNIT_SCALING = 10_000

__all__ = [
    "ActorClassID",
    "ActorID",
    "BaseID",
    "DynamicObjectRefGenerator",
    "FunctionID",
    "JobID",
    "NodeID",
    "OPTIMIZED",
    "ObjectID",
    "ObjectRef",
    "ObjectRefGenerator",
    "RESOURCE_UNIT_SCALING",
    "STREAMING_GENERATOR_RETURN",
    "TaskID",
    "UniqueID",
    "WorkerID",
]

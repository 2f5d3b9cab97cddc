"""Types for annotations: `ObjectRef[int]` is a reference to an int.

The one thing to know: they say nothing at run time.
"""

from . import _native

ObjectRef = _native.ObjectRef

__all__ = ["ObjectRef"]

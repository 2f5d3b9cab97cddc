"""Serializers of a program's own for its types.

The one thing to know: they hold in the process that registers them, for what it sends; what was sent brings its
deserializer along. This module must not know how values travel.
"""

from .._private.pickling import deregister_serializer, register_serializer

__all__ = ["deregister_serializer", "register_serializer"]

"""`connect` and `disconnect` of Ray Client.

The one thing to know: there is no such client here; see `client`. This file must not connect.
"""

from .client import ray

connect = ray.connect
disconnect = ray.disconnect

__all__ = ["connect", "disconnect"]

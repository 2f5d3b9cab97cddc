"""The machine as programs ask for it, under the names of `ray._private.services`.

The one thing to know: everything runs on this machine, so its address is a name by which the node goes,
never one that is connected to. This file must not send anything.
"""

from __future__ import annotations

import functools
import socket

LOOPBACK = "127.0.0.1"
# Nothing is sent to it: a datagram socket that is connected only knows its own address.
SOMEWHERE = ("192.0.2.1", 9)


@functools.cache
def get_node_ip_address(address: str | None = None) -> str:
    """The address of the interface that leads out, or the loopback's where none does."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect(SOMEWHERE)
            return str(probe.getsockname()[0])
    except OSError:
        return LOOPBACK


def get_node_instance_id() -> str:
    """The cloud's name of this machine; empty, for nobody asked a cloud."""
    return ""


__all__ = ["get_node_instance_id", "get_node_ip_address"]

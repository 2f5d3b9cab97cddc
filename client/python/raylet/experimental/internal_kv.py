"""A key-value store of the session, for libraries that use Ray's.

The one thing to know: it is a named actor, made at the first write, that lives as long as the session.

This module must not be used for anything that is read often.
"""

from __future__ import annotations

from typing import Any

_NAME = "raylet_internal_kv"
_NAMESPACE = "raylet"


class _Store:
    """The table, in an actor."""

    def __init__(self) -> None:
        self.table: dict[tuple[bytes | None, bytes], bytes] = {}

    def put(self, namespace: bytes | None, key: bytes, value: bytes, overwrite: bool) -> bool:
        exists = (namespace, key) in self.table
        if overwrite or not exists:
            self.table[namespace, key] = value
        return exists

    def get(self, namespace: bytes | None, key: bytes) -> bytes | None:
        return self.table.get((namespace, key))

    def delete(self, namespace: bytes | None, key: bytes, by_prefix: bool) -> int:
        keys = self.keys(namespace, key) if by_prefix else [key]
        return sum(self.table.pop((namespace, key), None) is not None for key in keys)

    def keys(self, namespace: bytes | None, prefix: bytes) -> list[bytes]:
        return [key for space, key in self.table if space == namespace and key.startswith(prefix)]


def _store() -> Any:
    from .. import remote

    options = {"name": _NAME, "namespace": _NAMESPACE, "lifetime": "detached", "get_if_exists": True, "num_cpus": 0}
    return remote(_Store).options(**options).remote()


def _bytes(value: str | bytes | None) -> bytes | None:
    return value.encode() if isinstance(value, str) else value


def _internal_kv_initialized() -> bool:
    from .. import is_initialized

    return is_initialized()


def _internal_kv_get(key: str | bytes, *, namespace: str | bytes | None = None) -> bytes | None:
    """The value of a key, or None."""
    from .. import get

    return get(_store().get.remote(_bytes(namespace), _bytes(key)))


def _internal_kv_exists(key: str | bytes, *, namespace: str | bytes | None = None) -> bool:
    """Whether a key has a value."""
    return _internal_kv_get(key, namespace=namespace) is not None


def _internal_kv_put(
    key: str | bytes, value: str | bytes, overwrite: bool = True, *, namespace: str | bytes | None = None
) -> bool:
    """Give a key a value; whether it had one."""
    from .. import get

    return get(_store().put.remote(_bytes(namespace), _bytes(key), _bytes(value), overwrite))


def _internal_kv_del(
    key: str | bytes, *, del_by_prefix: bool = False, namespace: str | bytes | None = None
) -> int:
    """Remove a key, or all keys that begin with it; how many there were."""
    from .. import get

    return get(_store().delete.remote(_bytes(namespace), _bytes(key), del_by_prefix))


def _internal_kv_list(prefix: str | bytes, *, namespace: str | bytes | None = None) -> list[bytes]:
    """The keys that begin with something."""
    from .. import get

    return get(_store().keys.remote(_bytes(namespace), _bytes(prefix)))

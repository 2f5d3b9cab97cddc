"""What a driver exports: the code of remote functions and classes, once per session.

The one thing to know: the definition that a call names is the pair `(info, reference to the code)`. A worker reads
`info` first, so that it can make the runtime environment before it reads the code, which may import from it.

This module must not know what a task or an actor does with its code.
"""

from __future__ import annotations

import hashlib
import inspect
import logging
import uuid
import weakref
from typing import Any, NamedTuple

from .session import Session

logger = logging.getLogger("ray")

SIZE_WARNED = 10**7
SIZE_REFUSED = 10**8

_known: weakref.WeakValueDictionary[bytes, Code] = weakref.WeakValueDictionary()


class Exported(NamedTuple):
    """Something exported: the key it has in the workers' tables and its definition."""

    key: int
    definition: Any


class Code:
    """A function or class to be exported, and what it was exported as.

    Its identity travels with it: a worker that gets a remote function and calls it uses the same key.
    """

    def __init__(self, value: Any, name: str, module: str, identity: bytes | None = None) -> None:
        self.value = value
        self.name = name
        self.module = module
        self.identity = identity or uuid.uuid4().bytes
        self.parts: dict[Any, Any] = {}
        self.session_number = 0
        _known[self.identity] = self

    def parcel(self) -> tuple[Any, ...]:
        """What travels to another process, where `of_parcel` makes the same code of it."""
        return self.value, self.name, self.module, self.identity

    @staticmethod
    def of_parcel(parcel: tuple[Any, ...]) -> Code:
        """The code of a parcel; the one that this process has of that identity, if any."""
        return _known.get(parcel[3]) or Code(*parcel)

    @property
    def description(self) -> str:
        """What errors call it."""
        return f"{self.module}.{self.name}"

    def reference(self, session: Session, extra: Any = None) -> Any:
        """The reference to the exported `(code, extra)`, which is put at its first use in `session`.

        Raises TypeError where it cannot be pickled and ValueError where it is too large.
        """
        self._forget_other_sessions(session)
        part = ("code", extra)
        if part not in self.parts:
            self.parts[part] = self._put((self.value, extra))
        return self.parts[part]

    def export(self, session: Session, info: dict[str, Any], variant: str, extra: Any = None) -> Exported:
        """What calls name: the definition with this `info`, under a key that `variant` tells from others."""
        self._forget_other_sessions(session)
        part = ("definition", variant, extra)
        if part not in self.parts:
            reference = self.reference(session, extra)
            from .. import _native

            definition = _native.put((info, reference))
            self.parts[part] = Exported(self._key(variant, extra), definition)
        return self.parts[part]

    def _forget_other_sessions(self, session: Session) -> None:
        if self.session_number != session.number:
            self.parts, self.session_number = {}, session.number

    def _key(self, variant: str, extra: Any) -> int:
        digest = hashlib.sha256(self.identity)
        for word in (self.module, self.name, variant, repr(extra)):
            digest.update(word.encode() + b"\0")
        digest.update(self._source())
        return int.from_bytes(digest.digest()[:8], "little")

    def _source(self) -> bytes:
        code = getattr(self.value, "__code__", None)
        return code.co_code if code is not None else self.name.encode()

    def _put(self, value: Any) -> Any:
        from .. import _native

        kind = "actor" if inspect.isclass(self.value) else "remote function"
        try:
            reference = _native.put(value)
        except TypeError as error:
            raise TypeError(self._unserializable()) from error
        size = getattr(_native, "size_of", lambda _: 0)(reference)
        check_size(size, self.name, kind)
        return reference

    def _unserializable(self) -> str:
        import io

        from ..util.check_serialize import inspect_serializability

        report = io.StringIO()
        inspect_serializability(self.value, print_file=report)
        what = "actor class" if inspect.isclass(self.value) else "function"
        return f"Could not serialize the {what} {self.description}:\n{report.getvalue()}"


def check_size(size: int, name: str, kind: str) -> None:
    """Warn of a definition above 10 MB and refuse one above 100 MB, with Ray's texts."""
    if size < SIZE_WARNED:
        return
    mib = size // 2**20
    tip = (
        "Check that its definition is not implicitly capturing a large array or other object in scope. Tip: use "
        "ray.put() to put large objects in the Ray object store."
    )
    if size < SIZE_REFUSED:
        logger.warning("The %s %s is very large (%d MiB). %s", kind, name, mib, tip)
        return
    raise ValueError(
        f"The {kind} {name} is too large ({mib} MiB > FUNCTION_SIZE_ERROR_THRESHOLD={SIZE_REFUSED // 2**20} MiB). {tip}"
    )

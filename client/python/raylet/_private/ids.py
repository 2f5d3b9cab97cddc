"""The ids of jobs, tasks, actors, workers and nodes as objects, for programs that ask for them.

The one thing to know: an id is its bytes; two are equal when kind and bytes are.
"""

from __future__ import annotations

import os
from typing import Any, ClassVar


class BaseID:
    """Some bytes that name something; all 0xFF: nothing."""

    SIZE: ClassVar[int] = 28
    __slots__ = ("_bytes",)

    def __init__(self, value: bytes) -> None:
        if len(value) != self.SIZE:
            raise ValueError(f"ID string needs to have length {self.SIZE}, got {len(value)}")
        self._bytes = bytes(value)

    @classmethod
    def from_hex(cls, text: str) -> Any:
        """The id of a hexadecimal text. Raises ValueError for one of another length."""
        return cls(bytes.fromhex(text))

    @classmethod
    def from_binary(cls, value: bytes) -> Any:
        """The id of these bytes."""
        return cls(value)

    @classmethod
    def nil(cls) -> Any:
        """The id of nothing."""
        return cls(b"\xff" * cls.SIZE)

    @classmethod
    def from_random(cls) -> Any:
        """An id that nobody has."""
        return cls(os.urandom(cls.SIZE))

    @classmethod
    def size(cls) -> int:
        """The number of bytes."""
        return cls.SIZE

    def binary(self) -> bytes:
        """The bytes."""
        return self._bytes

    def hex(self) -> str:
        """The bytes as lower case hexadecimal digits."""
        return self._bytes.hex()

    def is_nil(self) -> bool:
        """Whether it names nothing."""
        return self._bytes == b"\xff" * self.SIZE

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other._bytes == self._bytes  # type: ignore[attr-defined]

    def __hash__(self) -> int:
        return hash(self._bytes)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.hex()})"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._bytes,)


class JobID(BaseID):
    """Names a job: all that one driver started."""

    SIZE = 4
    __slots__ = ()

    @classmethod
    def from_int(cls, number: int) -> JobID:
        """The id of the job of this number."""
        return cls(number.to_bytes(4, "big"))


class ActorID(BaseID):
    """Names an actor; the last four bytes are its job's."""

    SIZE = 16
    __slots__ = ()

    @property
    def job_id(self) -> JobID:
        """The job that made it."""
        return JobID(self._bytes[12:])


class TaskID(BaseID):
    """Names a task; the last sixteen bytes are its actor's, or 0xFF and its job's."""

    SIZE = 24
    __slots__ = ()

    def actor_id(self) -> ActorID:
        """The actor whose call it is."""
        return ActorID(self._bytes[8:])

    def job_id(self) -> JobID:
        """The job that it belongs to."""
        return JobID(self._bytes[20:])


class WorkerID(BaseID):
    """Names a process of a session."""

    __slots__ = ()


class NodeID(BaseID):
    """Names a node."""

    __slots__ = ()


class UniqueID(BaseID):
    """Names anything."""

    __slots__ = ()


class FunctionID(UniqueID):
    """Names an exported function."""

    __slots__ = ()


class ActorClassID(UniqueID):
    """Names an exported class."""

    __slots__ = ()

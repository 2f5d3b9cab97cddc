"""What a generator task gives: references that come one after the other.

The one thing to know: items are taken by a native stream; awaiting the next one registers a callback instead of
holding a thread.

This module must not read values: it hands out references.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    import asyncio


class ObjectRefGenerator:
    """The references of a generator's items, in order, each as soon as its item is there.

    Iterate it, also with `async for`. An exception in the generator is the value of the last reference.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._is_finished = False

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        return self._next_sync(None)

    def _next_sync(self, timeout_s: float | None = None) -> Any:
        """The next reference, or a nil one after so many seconds. Raises StopIteration at the end."""
        if self._is_finished:
            raise StopIteration
        from .. import _native
        from ..exceptions import GetTimeoutError

        if timeout_s is not None and timeout_s < 0:
            timeout_s = None
        try:
            ref = self._stream.next(timeout_s)
        except GetTimeoutError:
            return _native.ObjectRef.nil()
        if ref is None:
            self._is_finished = True
            raise StopIteration
        return ref

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        if not self._is_finished and not self._stream.is_next_ready():
            await self._until_next()
        try:
            return self._next_sync(None)
        except StopIteration:
            raise StopAsyncIteration from None

    async def _until_next(self) -> None:
        import asyncio

        from . import futures

        loop = asyncio.get_running_loop()
        while not self._stream.is_next_ready():
            waiter: asyncio.Future[None] = loop.create_future()

            def wake(waiter: asyncio.Future[None] = waiter) -> None:
                try:
                    loop.call_soon_threadsafe(futures._succeed, waiter, None)
                except RuntimeError:
                    # The loop is closed: nobody waits.
                    pass

            self._stream.on_next(wake)
            await waiter

    def send(self, value: Any) -> NoReturn:
        """Nothing can be sent into a task."""
        raise NotImplementedError("`gen.send` is not supported.")

    def throw(self, *error: Any) -> NoReturn:
        """Nothing can be thrown into a task."""
        raise NotImplementedError("`gen.throw` is not supported.")

    def close(self) -> NoReturn:
        """Dropping the generator ends it."""
        raise NotImplementedError("`gen.close` is not supported.")

    def completed(self) -> Any:
        """A reference that gets a value when the generator has ended."""
        return self._stream.completed()

    @property
    def _generator_ref(self) -> Any:
        return self.completed()

    def task_id(self) -> Any:
        """The bytes of the id of the task that yields."""
        return self.completed().task_id()

    def next_ready(self) -> bool:
        """Whether the next reference, or the end, is there."""
        return self._is_finished or self._stream.is_next_ready()

    def is_finished(self) -> bool:
        """Whether every reference has been handed out."""
        return self._is_finished

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "You cannot return or pass a generator to other task. Serializing a ObjectRefGenerator is not allowed."
        )

    def __repr__(self) -> str:
        return f"ObjectRefGenerator({self._generator_ref.hex()})"

    __str__ = __repr__


class DynamicObjectRefGenerator:
    """The references of a generator task of `num_returns="dynamic"`: the value of its one reference."""

    def __init__(self, refs: list[Any]) -> None:
        self._refs = refs

    def __iter__(self) -> Iterator[Any]:
        return iter(self._refs)

    def __len__(self) -> int:
        return len(self._refs)

"""A first-in, first-out queue between tasks and actors.

The one thing to know: it is one async actor that holds an `asyncio.Queue`, so whoever has the `Queue`
may use it from anywhere. This file must not keep items in the caller.
"""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Iterable
from typing import Any

from .. import get, kill, remote, wait


class Empty(queue.Empty):
    """There is no item, or none within the time."""


class Full(queue.Full):
    """There is no room, or none within the time."""


def _check(timeout: float | None) -> None:
    if timeout is not None and timeout < 0:
        raise ValueError("'timeout' must be a non-negative number")


class Queue:
    """A queue for any number of producers and consumers, in any process of the session.

    `maxsize` items fit in it, any number where it is 0. `actor_options` are those of the actor that
    holds them, for instance `{"num_cpus": 1}`.
    """

    def __init__(self, maxsize: int = 0, actor_options: dict[str, Any] | None = None) -> None:
        self.maxsize = maxsize
        self.actor: Any = remote(_QueueActor).options(**(actor_options or {})).remote(maxsize)

    def __len__(self) -> int:
        return self.size()

    def size(self) -> int:
        """How many items are in it."""
        return get(self.actor.qsize.remote())

    def qsize(self) -> int:
        """How many items are in it."""
        return self.size()

    def empty(self) -> bool:
        """Whether no item is in it."""
        return get(self.actor.empty.remote())

    def full(self) -> bool:
        """Whether no more item fits."""
        return get(self.actor.full.remote())

    def _put(self, item: Any, block: bool, timeout: float | None) -> Any:
        if not block:
            return self.actor.put_nowait.remote(item)
        _check(timeout)
        return self.actor.put.remote(item, timeout)

    def _get(self, block: bool, timeout: float | None) -> Any:
        if not block:
            return self.actor.get_nowait.remote()
        _check(timeout)
        return self.actor.get.remote(timeout)

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Appends an item; waits `timeout` seconds for room (for ever where it is `None`) if `block`.

        Raises `Full`, and `ValueError` for a negative timeout.
        """
        try:
            get(self._put(item, block, timeout))
        except asyncio.QueueFull:
            raise Full from None

    async def put_async(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """As `put`, in an event loop."""
        try:
            await self._put(item, block, timeout)
        except asyncio.QueueFull:
            raise Full from None

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Takes the first item; waits `timeout` seconds for one (for ever where it is `None`) if `block`.

        Raises `Empty`, and `ValueError` for a negative timeout.
        """
        try:
            return get(self._get(block, timeout))
        except asyncio.QueueEmpty:
            raise Empty from None

    async def get_async(self, block: bool = True, timeout: float | None = None) -> Any:
        """As `get`, in an event loop."""
        try:
            return await self._get(block, timeout)
        except asyncio.QueueEmpty:
            raise Empty from None

    def put_nowait(self, item: Any) -> None:
        """As `put(item, block=False)`."""
        self.put(item, block=False)

    def get_nowait(self) -> Any:
        """As `get(block=False)`."""
        return self.get(block=False)

    def put_nowait_batch(self, items: Iterable[Any]) -> None:
        """Appends all items, in order, or none. Raises `Full`, and `TypeError` for what has no items."""
        if not isinstance(items, Iterable):
            raise TypeError("Argument 'items' must be an Iterable")
        get(self.actor.put_nowait_batch.remote(list(items)))

    def get_nowait_batch(self, num_items: int) -> list[Any]:
        """Takes `num_items` items. Raises `Empty` where there are fewer: none is taken then."""
        if not isinstance(num_items, int):
            raise TypeError("Argument 'num_items' must be an int")
        if num_items < 0:
            raise ValueError("'num_items' must be nonnegative")
        return get(self.actor.get_nowait_batch.remote(num_items))

    def shutdown(self, force: bool = False, grace_period_s: float = 5) -> None:
        """Ends the actor: at once where `force`, else after its calls, for which it has `grace_period_s` seconds."""
        if self.actor is not None:
            if force or not wait([self.actor.__ray_terminate__.remote()], timeout=grace_period_s)[0]:
                kill(self.actor, no_restart=True)
        self.actor = None


class _QueueActor:
    """Holds the items; the event loop is the lock."""

    def __init__(self, maxsize: int) -> None:
        self.maxsize = maxsize
        self.queue: asyncio.Queue[Any] = asyncio.Queue(maxsize)

    def qsize(self) -> int:
        return self.queue.qsize()

    def empty(self) -> bool:
        return self.queue.empty()

    def full(self) -> bool:
        return self.queue.full()

    async def put(self, item: Any, timeout: float | None = None) -> None:
        try:
            await asyncio.wait_for(self.queue.put(item), timeout)
        except asyncio.TimeoutError:
            raise Full from None

    async def get(self, timeout: float | None = None) -> Any:
        try:
            return await asyncio.wait_for(self.queue.get(), timeout)
        except asyncio.TimeoutError:
            raise Empty from None

    def put_nowait(self, item: Any) -> None:
        self.queue.put_nowait(item)

    def get_nowait(self) -> Any:
        return self.queue.get_nowait()

    def put_nowait_batch(self, items: list[Any]) -> None:
        if self.maxsize > 0 and len(items) + self.qsize() > self.maxsize:
            raise Full(f"Cannot add {len(items)} items to queue of size {self.qsize()} and maxsize {self.maxsize}.")
        for item in items:
            self.queue.put_nowait(item)

    def get_nowait_batch(self, num_items: int) -> list[Any]:
        if num_items > self.qsize():
            raise Empty(f"Cannot get {num_items} items from queue of size {self.qsize()}.")
        return [self.queue.get_nowait() for _ in range(num_items)]


__all__ = ["Empty", "Full", "Queue"]

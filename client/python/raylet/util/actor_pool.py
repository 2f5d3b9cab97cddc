"""A fixed set of actors that share a list of work.

The one thing to know: each actor has one call at a time; what is submitted while all are busy waits
here, in the driver, in order. This file must not start or end actors.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from .. import get, wait

if TYPE_CHECKING:
    from ..actor import ActorHandle

V = TypeVar("V")


def _key(future: Any) -> Any:
    """A call with several results is known by all of them."""
    return tuple(future) if isinstance(future, list) else future


class ActorPool:
    """Hands values to idle actors and their results back, in order or as they come.

    `actors` are handles. A function `fn(actor, value)` given to the methods makes the call and
    returns its `ObjectRef`.

        pool = ActorPool([Actor.remote(), Actor.remote()])
        list(pool.map(lambda actor, value: actor.double.remote(value), [1, 2, 3]))
    """

    def __init__(self, actors: Iterable[ActorHandle]) -> None:
        self._idle: list[Any] = list(actors)
        # A call's future -> its number and its actor; the number -> its future.
        self._running: dict[Any, tuple[int, Any]] = {}
        self._futures: dict[int, Any] = {}
        self._next_submitted = 0
        self._next_returned = 0
        self._waiting: deque[tuple[Callable[[Any, Any], Any], Any]] = deque()

    def map(self, fn: Callable[[ActorHandle, V], Any], values: Iterable[V]) -> Iterator[Any]:
        """The results of `fn` for all values, in the values' order; earlier submissions are dropped."""
        while self.has_next():
            try:
                self.get_next(timeout=0, ignore_if_timedout=True)
            except TimeoutError:
                pass
        for value in values:
            self.submit(fn, value)
        return self._drain(self.get_next)

    def map_unordered(self, fn: Callable[[ActorHandle, V], Any], values: Iterable[V]) -> Iterator[Any]:
        """The results of `fn` for all values as they come; earlier submissions are waited for and dropped."""
        while self.has_next():
            try:
                self.get_next_unordered(timeout=0)
            except TimeoutError:
                pass
        for value in values:
            self.submit(fn, value)
        return self._drain(self.get_next_unordered)

    def _drain(self, following: Callable[[], Any]) -> Iterator[Any]:
        while self.has_next():
            yield following()

    def submit(self, fn: Callable[[ActorHandle, V], Any], value: V) -> None:
        """Calls `fn` with an idle actor, now or when one becomes idle."""
        if not self._idle:
            self._waiting.append((fn, value))
            return
        actor = self._idle.pop()
        future = fn(actor, value)
        self._running[_key(future)] = (self._next_submitted, actor)
        self._futures[self._next_submitted] = future
        self._next_submitted += 1

    def has_next(self) -> bool:
        """Whether a result is still to be had."""
        return bool(self._running)

    def get_next(self, timeout: float | None = None, ignore_if_timedout: bool = False) -> Any:
        """The next result in the order of submission.

        Raises `StopIteration` when there is none, `TimeoutError` after `timeout` seconds (the call is
        then given up where `ignore_if_timedout`), `ValueError` after `get_next_unordered` took results
        of later calls.
        """
        if not self.has_next():
            raise StopIteration("No more results to get")
        if self._next_returned >= self._next_submitted:
            raise ValueError("It is not allowed to call get_next() after get_next_unordered().")
        number = self._next_returned
        future = self._futures[number]
        is_late = timeout is not None and not _is_ready(future, timeout)
        if is_late and not ignore_if_timedout:
            raise TimeoutError("Timed out waiting for result")
        del self._futures[number]
        self._next_returned += 1
        _, actor = self._running.pop(_key(future))
        return self._finish(future, actor, is_late)

    def get_next_unordered(self, timeout: float | None = None, ignore_if_timedout: bool = False) -> Any:
        """The result of whichever call ends first.

        Raises `StopIteration` when there is none, `TimeoutError` after `timeout` seconds (some call is
        then given up where `ignore_if_timedout`).
        """
        if not self.has_next():
            raise StopIteration("No more results to get")
        futures = list(self._running)
        first = {_first(future): future for future in futures}
        ready, _ = wait(list(first), num_returns=1, timeout=timeout)
        if not ready and not ignore_if_timedout:
            raise TimeoutError("Timed out waiting for result")
        key = first[ready[0]] if ready else futures[0]
        number, actor = self._running.pop(key)
        future = self._futures.pop(number)
        self._next_returned = max(self._next_returned, number + 1)
        return self._finish(future, actor, not ready)

    def _finish(self, future: Any, actor: Any, is_late: bool) -> Any:
        from ..exceptions import ActorDiedError

        if is_late:
            self._give_back(actor)
            raise TimeoutError(f"Timed out waiting for result. The task {future} has been ignored.")
        is_alive = True
        try:
            return get(future)
        except ActorDiedError:
            # One that is dead would take every call that follows, and fail it.
            is_alive = False
            raise
        finally:
            self._give_back(actor, is_alive)

    def _give_back(self, actor: Any, is_alive: bool = True) -> None:
        if is_alive:
            self._idle.append(actor)
        if self._waiting and self._idle:
            self.submit(*self._waiting.popleft())

    def has_free(self) -> bool:
        """Whether an actor is idle and nothing waits for one."""
        return bool(self._idle) and not self._waiting

    def pop_idle(self) -> ActorHandle | None:
        """Takes an idle actor out of the pool; `None` where there is none."""
        return self._idle.pop() if self.has_free() else None

    def push(self, actor: ActorHandle) -> None:
        """Takes an actor into the pool. Raises `ValueError` where it is in already."""
        busy = [running for _, running in self._running.values()]
        if actor in self._idle or actor in busy:
            raise ValueError("Actor already belongs to current ActorPool")
        self._give_back(actor)


def _first(key: Any) -> Any:
    return key[0] if isinstance(key, tuple) else key


def _is_ready(future: Any, timeout: float) -> bool:
    futures = list(future) if isinstance(future, list) else [future]
    ready, _ = wait(futures, num_returns=len(futures), timeout=timeout)
    return len(ready) == len(futures)


__all__ = ["ActorPool"]

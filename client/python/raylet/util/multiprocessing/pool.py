"""The interface of `multiprocessing.Pool`, over actors.

The one thing to know: items travel in chunks, a call of an actor each; the results of a chunk are one
object, with what its items raised inside. A result is waited for by whoever asks for it: only callbacks
need a thread, one per pool. This file must not start processes but by creating actors.
"""

from __future__ import annotations

import functools
import itertools
import logging
import os
import queue
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from multiprocessing import TimeoutError
from multiprocessing.pool import RemoteTraceback  # type: ignore[attr-defined]
from typing import Any

from ... import cluster_resources, get, init, is_initialized, kill, remote, wait
from ..debug import log_once

logger = logging.getLogger(__name__)

# Chunks that each actor gets of a map, where the caller does not say how large they are.
CHUNKS_PER_ACTOR = 4

Item = tuple[tuple[Any, ...], dict[str, Any]]


class PoolTaskError(Exception):
    """What an item of a chunk raised, and where, as it travels among the results."""

    def __init__(self, underlying: Exception, where: str = "") -> None:
        super().__init__(underlying, where)
        self.underlying = underlying
        self.where = where

    def error(self) -> Exception:
        """What the item raised, with the remote traceback as its cause."""
        if self.where:
            self.underlying.__cause__ = RemoteTraceback(f'\n"""\n{self.where}"""')
        return self.underlying


class _PoolActor:
    """Runs chunks in its process."""

    def __init__(self, initializer: Callable[..., Any] | None, initargs: Iterable[Any]) -> None:
        if initializer:
            initializer(*initargs)

    def ping(self) -> None:
        """Returns once the initializer has."""

    def run_batch(self, func: Callable[..., Any], batch: list[Item]) -> list[Any]:
        return [_outcome(func, args, kwargs) for args, kwargs in batch]


def _outcome(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    try:
        return func(*args, **kwargs)
    except Exception as error:
        # The first frame is this function's.
        frames = error.__traceback__.tb_next if error.__traceback__ else None
        return PoolTaskError(error, "".join(traceback.format_exception(type(error), error, frames)))


@functools.cache
def _actor_class() -> Any:
    return remote(num_cpus=0)(_PoolActor)


def _batch(ref: Any) -> list[Any]:
    """The results of a chunk; an actor that died is a result, too."""
    from ...exceptions import RayError

    try:
        return get(ref)
    except RayError as error:
        return [PoolTaskError(error)]


def _value(result: Any) -> Any:
    if isinstance(result, PoolTaskError):
        raise result.error()
    return result


class _Callbacks:
    """The thread that runs callbacks, one after the other, started when one is first needed."""

    def __init__(self) -> None:
        self._ended: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._is_running = False

    def add(self, refs: list[Any], call: Callable[[], None]) -> None:
        """Has `call` run once all of `refs` have a value."""
        left = itertools.count(len(refs) - 1, -1)

        def one_is_ready(_: Any) -> None:
            if next(left) == 0:
                self._ended.put(call)

        self._start()
        for ref in refs:
            ref.future().add_done_callback(one_is_ready)

    def _start(self) -> None:
        with self._lock:
            if not self._is_running:
                threading.Thread(target=self._run, name="raylet-pool-callbacks", daemon=True).start()
            self._is_running = True

    def _run(self) -> None:
        while (call := self._ended.get()) is not None:
            try:
                call()
            except Exception:
                logger.exception("A callback of a pool raised.")

    def close(self) -> None:
        """Lets the thread end after the callbacks that are due."""
        with self._lock:
            if self._is_running:
                self._ended.put(None)
            self._is_running = False


class AsyncResult:
    """The results of `apply_async`, `map_async` and `starmap_async`; made by a pool alone."""

    def __init__(self, refs: list[Any], is_single: bool) -> None:
        self._refs = refs
        self._is_single = is_single
        self._called_back: threading.Event | None = None
        self._outcomes: list[Any] | None = None

    def call_back(
        self,
        callbacks: _Callbacks,
        callback: Callable[[Any], Any] | None,
        error_callback: Callable[[Exception], Any] | None,
    ) -> None:
        """Has one of the callbacks run when all is there."""
        self._called_back = threading.Event()

        def call() -> None:
            try:
                self._settle(callback, error_callback)
            finally:
                assert self._called_back is not None
                self._called_back.set()

        if self._refs:
            callbacks.add(self._refs, call)
        else:
            call()

    def _settle(self, callback: Any, error_callback: Any) -> None:
        failed = next((one for one in self._results() if isinstance(one, PoolTaskError)), None)
        if failed is not None:
            if error_callback:
                error_callback(failed.error())
        elif callback:
            callback(self._results()[0] if self._is_single else list(self._results()))

    def wait(self, timeout: float | None = None) -> None:
        """Returns when all is there and called back, or after `timeout` seconds."""
        if self._called_back is not None:
            self._called_back.wait(timeout)
        elif self._refs:
            wait(self._refs, num_returns=len(self._refs), timeout=timeout)

    def get(self, timeout: float | None = None) -> Any:
        """The result, or a list of them.

        Raises what an item raised, and `multiprocessing.TimeoutError` after `timeout` seconds.
        """
        self.wait(timeout)
        if not self.ready():
            raise TimeoutError
        results = [_value(result) for result in self._results()]
        return results[0] if self._is_single else results

    def ready(self) -> bool:
        """Whether all is there."""
        if self._called_back is not None:
            return self._called_back.is_set()
        return not self._refs or not wait(self._refs, num_returns=len(self._refs), timeout=0)[1]

    def successful(self) -> bool:
        """Whether nothing was raised. Raises `ValueError` before all is there."""
        if not self.ready():
            raise ValueError(f"{self!r} not ready")
        return not any(isinstance(result, PoolTaskError) for result in self._results())

    def _results(self) -> list[Any]:
        if self._outcomes is None:
            self._outcomes = [result for ref in self._refs for result in _batch(ref)]
        return self._outcomes


class IMapIterator:
    """The results of `imap` and `imap_unordered`; made by a pool alone.

    At most one chunk per actor is under way: whoever is slow to take results is not flooded.
    """

    def __init__(self, pool: Pool, func: Callable[..., Any], iterable: Iterable[Any], chunksize: int) -> None:
        self._pool = pool
        self._func = func
        self._items = iter(iterable)
        self._chunksize = chunksize
        # The chunks under way, first submitted first.
        self._running: deque[Any] = deque()
        self._ready: deque[Any] = deque()
        for _ in range(pool.size):
            self._submit()

    def _submit(self) -> None:
        batch: list[Item] = [((item,), {}) for item in itertools.islice(self._items, self._chunksize)]
        if batch:
            self._running.append(self._pool.run_batch(self._func, batch))

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        return self.next()

    def next(self, timeout: float | None = None) -> Any:
        """The next result.

        Raises what its item raised, `StopIteration` after the last, and `multiprocessing.TimeoutError`
        after `timeout` seconds.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._ready:
            if not self._running:
                raise StopIteration
            ref = self._ended(None if deadline is None else max(0.0, deadline - time.monotonic()))
            self._running.remove(ref)
            self._submit()
            self._ready.extend(_batch(ref))
        return _value(self._ready.popleft())

    def _ended(self, timeout: float | None) -> Any:
        """A chunk that has ended and whose turn it is."""
        ready, _ = wait(self._candidates(), num_returns=1, timeout=timeout)
        if not ready:
            raise TimeoutError
        return ready[0]

    def _candidates(self) -> list[Any]:
        raise NotImplementedError


class OrderedIMapIterator(IMapIterator):
    """Results in the order of their items."""

    def _candidates(self) -> list[Any]:
        return [self._running[0]]


class UnorderedIMapIterator(IMapIterator):
    """Results as they come."""

    def _candidates(self) -> list[Any]:
        return list(self._running)


class Pool:
    """A pool of actors with the interface of `multiprocessing.Pool`.

    `processes` actors (one per CPU of the session where it is `None`) each run `initializer(*initargs)`
    when they start and are replaced after `maxtasksperchild` chunks. `ray_address` is where to connect
    where there is no session yet, `ray_remote_args` are options of the actors. Raises `ValueError` where
    there are fewer CPUs than `processes`.
    """

    def __init__(
        self,
        processes: int | None = None,
        initializer: Callable[..., Any] | None = None,
        initargs: Iterable[Any] | None = None,
        maxtasksperchild: int | None = None,
        context: Any = None,
        ray_address: str | None = None,
        ray_remote_args: dict[str, Any] | None = None,
    ) -> None:
        self._is_closed = False
        self._initializer = initializer
        self._initargs = tuple(initargs or ())
        self._options = dict(ray_remote_args or {})
        self._calls_max = maxtasksperchild or -1
        self._ending: list[Any] = []
        self._callbacks = _Callbacks()
        self._turn = 0
        if context and log_once("context_argument_warning"):
            logger.warning("The 'context' argument of a pool means nothing here: its processes are actors.")
        count = _process_count(processes, ray_address)
        self._actors = [self._new_actor() for _ in range(count)]
        self._call_counts = [0] * count
        get([actor.ping.remote() for actor in self._actors])

    @property
    def size(self) -> int:
        """How many actors it has."""
        return len(self._actors)

    def _new_actor(self) -> Any:
        return _actor_class().options(**self._options).remote(self._initializer, self._initargs)

    def run_batch(self, func: Callable[..., Any], batch: list[Item]) -> Any:
        """Has the next actor run a chunk; a reference to its list of results."""
        index = self._turn
        self._turn = (index + 1) % len(self._actors)
        ref = self._actors[index].run_batch.remote(func, batch)
        self._call_counts[index] += 1
        if self._call_counts[index] == self._calls_max:
            self._end_when_done(self._actors[index])
            self._actors[index], self._call_counts[index] = self._new_actor(), 0
        return ref

    def apply(
        self, func: Callable[..., Any], args: Iterable[Any] | None = None, kwargs: dict[str, Any] | None = None
    ) -> Any:
        """`func(*args, **kwargs)` in one of the actors."""
        return self.apply_async(func, args, kwargs).get()

    def apply_async(
        self,
        func: Callable[..., Any],
        args: Iterable[Any] | None = None,
        kwargs: dict[str, Any] | None = None,
        callback: Callable[[Any], Any] | None = None,
        error_callback: Callable[[Exception], Any] | None = None,
    ) -> AsyncResult:
        """As `apply`, without waiting; a callback gets the result, or what was raised."""
        self._check_running()
        refs = [self.run_batch(func, [(tuple(args or ()), dict(kwargs or {}))])]
        return self._result(refs, True, callback, error_callback)

    def map(self, func: Callable[[Any], Any], iterable: Iterable[Any], chunksize: int | None = None) -> list[Any]:
        """`[func(item) for item in iterable]`, `chunksize` items a call, the actors in turn."""
        return self.map_async(func, iterable, chunksize).get()

    def map_async(
        self,
        func: Callable[[Any], Any],
        iterable: Iterable[Any],
        chunksize: int | None = None,
        callback: Callable[[list[Any]], Any] | None = None,
        error_callback: Callable[[Exception], Any] | None = None,
    ) -> AsyncResult:
        """As `map`, without waiting; a callback gets all results, or what was raised first."""
        items: list[Item] = [((item,), {}) for item in iterable]
        return self._chunks(func, items, chunksize, callback, error_callback)

    def starmap(
        self, func: Callable[..., Any], iterable: Iterable[Iterable[Any]], chunksize: int | None = None
    ) -> list[Any]:
        """`[func(*item) for item in iterable]`, as `map`."""
        return self.starmap_async(func, iterable, chunksize=chunksize).get()

    def starmap_async(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Iterable[Any]],
        callback: Callable[[list[Any]], Any] | None = None,
        error_callback: Callable[[Exception], Any] | None = None,
        chunksize: int | None = None,
    ) -> AsyncResult:
        """As `starmap`, without waiting, as `map_async`."""
        items: list[Item] = [(tuple(item), {}) for item in iterable]
        return self._chunks(func, items, chunksize, callback, error_callback)

    def imap(
        self, func: Callable[[Any], Any], iterable: Iterable[Any], chunksize: int | None = 1
    ) -> OrderedIMapIterator:
        """As `map`, as an iterator that submits as results are taken."""
        self._check_running()
        return OrderedIMapIterator(self, func, *self._sized(iterable, chunksize))

    def imap_unordered(
        self, func: Callable[[Any], Any], iterable: Iterable[Any], chunksize: int | None = 1
    ) -> UnorderedIMapIterator:
        """As `imap`, results as they come."""
        self._check_running()
        return UnorderedIMapIterator(self, func, *self._sized(iterable, chunksize))

    def _sized(self, iterable: Iterable[Any], chunksize: int | None) -> tuple[Iterable[Any], int]:
        if chunksize is not None or isinstance(iterable, Iterator):
            return iterable, chunksize or 1
        items = list(iterable)
        return items, self._chunksize(len(items))

    def _chunksize(self, count: int) -> int:
        return max(1, -(-count // (len(self._actors) * CHUNKS_PER_ACTOR)))

    def _chunks(
        self, func: Callable[..., Any], items: list[Item], size: int | None, callback: Any, error_callback: Any
    ) -> AsyncResult:
        self._check_running()
        size = size or self._chunksize(len(items))
        refs = [self.run_batch(func, items[start : start + size]) for start in range(0, len(items), size)]
        return self._result(refs, False, callback, error_callback)

    def _result(self, refs: list[Any], is_single: bool, callback: Any, error_callback: Any) -> AsyncResult:
        result = AsyncResult(refs, is_single)
        if callback or error_callback:
            result.call_back(self._callbacks, callback, error_callback)
        return result

    def _check_running(self) -> None:
        if self._is_closed:
            raise ValueError("Pool not running")

    def __enter__(self) -> Pool:
        self._check_running()
        return self

    def __exit__(self, *exception: object) -> None:
        self.terminate()

    def __del__(self) -> None:
        callbacks = getattr(self, "_callbacks", None)
        if callbacks is not None:
            callbacks.close()

    def _end_when_done(self, actor: Any) -> None:
        """Has an actor end after the chunks that it was given."""
        self._ending.append(actor.__ray_terminate__.remote())

    def close(self) -> None:
        """Takes nothing more; what was submitted is finished."""
        if not self._is_closed:
            self._is_closed = True
            for actor in self._actors:
                self._end_when_done(actor)

    def terminate(self) -> None:
        """Takes nothing more and stops what runs."""
        self.close()
        for actor in self._actors:
            kill(actor)

    def join(self) -> None:
        """Waits until the actors of a closed pool have ended. Raises `ValueError` where it is not closed."""
        if not self._is_closed:
            raise ValueError("Pool is still running")
        if self._ending:
            wait(self._ending, num_returns=len(self._ending))
        self._ending = []


def _process_count(processes: int | None, address: str | None) -> int:
    """How many actors a pool gets; starts or joins a session first where there is none."""
    _connect(processes, address)
    cpu_count = int(cluster_resources()["CPU"])
    count = cpu_count if processes is None else processes
    if count <= 0:
        raise ValueError("Processes in the pool must be >0.")
    if cpu_count < count:
        raise ValueError(
            f"Tried to start a pool with {count} processes on an existing ray cluster, "
            f"but there are only {cpu_count} CPUs in the ray cluster."
        )
    return count


def _connect(processes: int | None, address: str | None) -> None:
    if is_initialized():
        return
    wanted = address or os.environ.get("RAY_ADDRESS")
    if wanted is None or wanted == "local":
        init(address=wanted, num_cpus=processes)
    else:
        init(address=address)


__all__ = ["AsyncResult", "Pool", "PoolTaskError", "TimeoutError"]

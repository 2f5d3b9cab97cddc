"""Iterators whose items are made in actors, in shards.

The one thing to know: nothing is made before the items are asked for; a shard is an actor and what is
to be done with its items. What few programs use of Ray's module is here, no more. This file must not
keep items in the driver.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from .. import get, remote, wait

# Items that one call brings at most.
CHUNK_ITEMS = 64

Step = Callable[[Iterator[Any]], Iterator[Any]]


class _Shard:
    """Makes the items of one shard, some at a time."""

    def __init__(self, source: Iterable[Any] | Callable[[], Iterable[Any]], is_repeated: bool) -> None:
        self._source = source
        self._is_repeated = is_repeated
        self._items: Iterator[Any] = iter(())

    def start(self, steps: list[Step]) -> None:
        source = self._source() if callable(self._source) else self._source
        items: Iterator[Any] = itertools.cycle(source) if self._is_repeated else iter(source)
        for step in steps:
            items = step(items)
        self._items = items

    def next(self, count: int) -> list[Any]:
        """The next items; fewer than `count` at the end."""
        return list(itertools.islice(self._items, count))


def _chunks(items: Iterator[Any], count: int) -> Iterator[list[Any]]:
    while chunk := list(itertools.islice(items, count)):
        yield chunk


class LocalIterator:
    """Items that come to this process."""

    def __init__(self, make: Callable[[], Iterator[Any]]) -> None:
        self._make = make

    def __iter__(self) -> Iterator[Any]:
        return self._make()

    def transform(self, fn: Step) -> LocalIterator:
        """What `fn` makes of the items."""
        return LocalIterator(lambda: iter(fn(self._make())))

    def for_each(self, fn: Callable[[Any], Any]) -> LocalIterator:
        """`fn(item)` for each."""
        return self.transform(lambda items: map(fn, items))

    def filter(self, fn: Callable[[Any], bool]) -> LocalIterator:
        """The items of which `fn` is true."""
        return self.transform(lambda items: filter(fn, items))

    def batch(self, n: int) -> LocalIterator:
        """Lists of `n` items."""
        return self.transform(lambda items: _chunks(items, n))

    def flatten(self) -> LocalIterator:
        """The items of the items."""
        return self.transform(itertools.chain.from_iterable)

    def take(self, n: int) -> list[Any]:
        """The first `n` items."""
        return list(itertools.islice(self, n))

    def show(self, n: int = 20) -> None:
        """Prints the first `n` items."""
        for item in self.take(n):
            print(item)


class ParallelIterator:
    """Items made in actors; `steps` run there."""

    def __init__(self, actors: Sequence[Any], steps: Sequence[Step] = ()) -> None:
        self._actors = list(actors)
        self._steps = list(steps)

    def transform(self, fn: Step) -> ParallelIterator:
        """What `fn` makes of each shard's items."""
        return ParallelIterator(self._actors, [*self._steps, fn])

    def for_each(self, fn: Callable[[Any], Any]) -> ParallelIterator:
        """`fn(item)` for each."""
        return self.transform(lambda items: map(fn, items))

    def filter(self, fn: Callable[[Any], bool]) -> ParallelIterator:
        """The items of which `fn` is true."""
        return self.transform(lambda items: filter(fn, items))

    def batch(self, n: int) -> ParallelIterator:
        """Lists of `n` items of a shard."""

        def batches(items: Iterator[Any]) -> Iterator[list[Any]]:
            while chunk := list(itertools.islice(items, n)):
                yield chunk

        return self.transform(batches)

    def flatten(self) -> ParallelIterator:
        """The items of the items."""
        return self.transform(itertools.chain.from_iterable)

    def num_shards(self) -> int:
        """How many shards there are."""
        return len(self._actors)

    def shards(self) -> list[LocalIterator]:
        """Each shard's items."""
        return [self.get_shard(index) for index in range(self.num_shards())]

    def get_shard(self, shard_index: int) -> LocalIterator:
        """One shard's items. Raises `ValueError` where there is no such shard."""
        if not 0 <= shard_index < self.num_shards():
            raise ValueError(f"shard {shard_index} is not in 0..{self.num_shards() - 1}")
        return LocalIterator(lambda: self._one(self._actors[shard_index]))

    def _one(self, actor: Any) -> Iterator[Any]:
        get(actor.start.remote(self._steps))
        while True:
            chunk = get(actor.next.remote(CHUNK_ITEMS))
            yield from chunk
            if len(chunk) < CHUNK_ITEMS:
                return

    def gather_sync(self) -> LocalIterator:
        """The items of all shards, one of each in turn."""
        return LocalIterator(self._in_turn)

    def _in_turn(self) -> Iterator[Any]:
        left = [iter(shard) for shard in self.shards()]
        while left:
            for shard in list(left):
                try:
                    yield next(shard)
                except StopIteration:
                    left.remove(shard)

    def gather_async(self, batch_ms: int = 0, num_async: int = 1) -> LocalIterator:
        """The items of all shards as they come."""
        return LocalIterator(self._as_they_come)

    def _as_they_come(self) -> Iterator[Any]:
        get([actor.start.remote(self._steps) for actor in self._actors])
        running = {actor.next.remote(CHUNK_ITEMS): actor for actor in self._actors}
        while running:
            ready, _ = wait(list(running))
            actor = running.pop(ready[0])
            chunk = get(ready[0])
            if len(chunk) == CHUNK_ITEMS:
                running[actor.next.remote(CHUNK_ITEMS)] = actor
            yield from chunk

    def take(self, n: int) -> list[Any]:
        """The first `n` items."""
        return self.gather_sync().take(n)

    def show(self, n: int = 20) -> None:
        """Prints the first `n` items."""
        self.gather_sync().show(n)

    def __iter__(self) -> Iterator[Any]:
        raise TypeError("You must use it.gather_sync() or it.gather_async() to iterate over the results.")


def from_iterators(generators: Sequence[Any], repeat: bool = False, name: str | None = None) -> ParallelIterator:
    """A shard for each iterable, or function that gives one."""
    actor_class = remote(num_cpus=0)(_Shard)
    return ParallelIterator([actor_class.remote(source, repeat) for source in generators])


def from_items(items: Sequence[Any], num_shards: int = 2, repeat: bool = False) -> ParallelIterator:
    """The items, dealt to the shards in turn."""
    return from_iterators([list(items[index::num_shards]) for index in range(num_shards)], repeat)


def from_range(n: int, num_shards: int = 2, repeat: bool = False) -> ParallelIterator:
    """The numbers below `n`, each shard a run of them."""
    size = -(-n // num_shards)
    runs = [range(min(n, index * size), min(n, (index + 1) * size)) for index in range(num_shards)]
    return from_iterators(runs, repeat)


__all__ = ["LocalIterator", "ParallelIterator", "from_items", "from_iterators", "from_range"]

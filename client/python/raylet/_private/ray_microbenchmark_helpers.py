"""How the rows of the microbenchmark are measured: `timeit`, with the contract of Ray's own.

The one thing to know: a row is `(name, mean, deviation)` of calls per second times `multiplier`, over
four rounds of at least two seconds, after a pause and a second of warming up. `TESTS_TO_RUN` and
`TESTS_TO_SKIP` in the environment are parts of the names to run, or not. This file must not know what
it measures.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

ROUND_COUNT = 4
ROUND_SECONDS = 2.0
WARM_UP_SECONDS = 1.0

filter_pattern = os.environ.get("TESTS_TO_RUN", "")
skip_pattern = os.environ.get("TESTS_TO_SKIP", "")

Row = tuple[str, float, float]


def _is_wanted(name: str) -> bool:
    return filter_pattern in name and not (skip_pattern and skip_pattern in name)


def _row(name: str, rates: list[float]) -> list[Row | None]:
    mean, deviation = statistics.fmean(rates), statistics.pstdev(rates)
    print(name, "per second", round(mean, 2), "+-", round(deviation, 2), flush=True)
    return [(name, mean, deviation)]


def timeit(
    name: str, fn: Callable[[], Any], multiplier: float = 1, warmup_time_sec: float = 10
) -> list[Row | None]:
    """Calls `fn` and says how often a second; `[None]` where the row is not wanted."""
    if not _is_wanted(name):
        return [None]
    time.sleep(warmup_time_sec)
    begin, count = time.perf_counter(), 0
    while time.perf_counter() - begin < WARM_UP_SECONDS:
        fn()
        count += 1
    step = count // 10 + 1
    return _row(name, [_round(fn, step) * multiplier for _ in range(ROUND_COUNT)])


def _round(fn: Callable[[], Any], step: int) -> float:
    begin, count = time.perf_counter(), 0
    while time.perf_counter() - begin < ROUND_SECONDS:
        for _ in range(step):
            fn()
        count += step
    return count / (time.perf_counter() - begin)


async def asyncio_timeit(
    name: str, async_fn: Callable[[], Awaitable[Any]], multiplier: float = 1, warmup_time_sec: float = 10
) -> list[Row | None]:
    """As `timeit`, of a coroutine function, in the running event loop."""
    if not _is_wanted(name):
        return [None]
    time.sleep(warmup_time_sec)
    begin, count = time.perf_counter(), 0
    while time.perf_counter() - begin < WARM_UP_SECONDS:
        await async_fn()
        count += 1
    step = count // 10 + 1
    return _row(name, [await _async_round(async_fn, step) * multiplier for _ in range(ROUND_COUNT)])


async def _async_round(async_fn: Callable[[], Awaitable[Any]], step: int) -> float:
    begin, count = time.perf_counter(), 0
    while time.perf_counter() - begin < ROUND_SECONDS:
        for _ in range(step):
            await async_fn()
        count += step
    return count / (time.perf_counter() - begin)


@contextmanager
def ray_setup_and_teardown(**init_args: Any) -> Iterator[None]:
    """A session around what is measured."""
    from .. import init, shutdown

    init(**init_args)
    try:
        yield None
    finally:
        shutdown()


__all__ = ["asyncio_timeit", "ray_setup_and_teardown", "timeit"]

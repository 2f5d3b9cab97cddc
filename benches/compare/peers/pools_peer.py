"""What a Python user has without Ray: pools_peer.py multiprocessing|loky|futures

Reads {"do": ..., "count": ...} a line and answers {"nanos": [...]}, the whole time by the items; ends, and
ends its processes, when its input does. As many processes as cores, started and used before anything is
timed. Items go in chunks: `Pool.map` and joblib choose them, `ProcessPoolExecutor.map` is given `Pool`'s.
"""

import concurrent.futures
import multiprocessing
import os
import sys
import time

import lines

CORES = os.cpu_count()
MILLISECOND_NS = 1_000_000
# As `multiprocessing.Pool` has it: so many chunks for each process.
CHUNKS_PER_PROCESS = 4


def same(item):
    return item


def spin(item):
    end = time.perf_counter_ns() + MILLISECOND_NS
    while time.perf_counter_ns() < end:
        pass
    return item


def multiprocessing_map():
    return multiprocessing.Pool(CORES).map


def futures_map():
    executor = concurrent.futures.ProcessPoolExecutor(CORES)

    def run(function, items):
        chunk = -(-len(items) // (CORES * CHUNKS_PER_PROCESS))
        return list(executor.map(function, items, chunksize=chunk))

    return run


def loky_map():
    import joblib

    parallel = joblib.Parallel(CORES, backend="loky")
    return lambda function, items: parallel(joblib.delayed(function)(item) for item in items)


MAPS = {"multiprocessing": multiprocessing_map, "loky": loky_map, "futures": futures_map}


class Peer:
    def __init__(self, which):
        self.map = MAPS[which]()
        self.noop_items(CORES * 100)

    def noop_items(self, count):
        return self.items(same, count)

    def millisecond_items(self, count):
        return self.items(spin, count)

    pool_items = noop_items

    def items(self, function, count):
        items = range(count)
        start = time.perf_counter_ns()
        assert self.map(function, items) == list(items)
        return [(time.perf_counter_ns() - start) / count]


if __name__ == "__main__":
    lines.serve(Peer(sys.argv[1]))

"""The copies of `ray_perf.py`'s two rows of gigabytes, and nothing else: the same source pages into warm memory.

Reads {"do": ..., "count": ...} a line and answers {"nanos": [...]}, nanoseconds of one call of what the row
calls; ends when its input does. The source is `np.zeros` as in the rows: pages that nobody has written, so
that reading them reads the zero page, after a fault for each where they are read for the first time.
"""

import ctypes
import mmap
import multiprocessing
import os
import time

import lines
import numpy as np

SINGLE_BYTES = 100 * 1024 * 1024 * 8
MULTI_BYTES = 10 * 1024 * 1024 * 8
MULTI_PUTS = 100
CORES = os.cpu_count()


def warm(size):
    """Shared pages, every one of them written once."""
    pages = mmap.mmap(-1, size)
    ctypes.memset(address(pages), 1, size)
    return pages


def address(pages):
    return ctypes.addressof(ctypes.c_char.from_buffer(pages))


def copy(pages, source):
    ctypes.memmove(address(pages), source.ctypes.data, source.nbytes)


def copy_fresh(puts):
    """A process' part of the row of several clients: a fresh source for each put, as the row has it."""
    start = time.perf_counter_ns()
    for _ in range(puts):
        copy(PLACE[0], np.zeros(MULTI_BYTES // 8, dtype=np.int64))
    return time.perf_counter_ns() - start


PLACE = []


def make_place():
    PLACE.append(warm(MULTI_BYTES))


class Peer:
    def __init__(self):
        self.pool = multiprocessing.Pool(CORES, make_place)
        self.single = None

    def single_put(self, count):
        if self.single is None:
            self.single = warm(SINGLE_BYTES), np.zeros(SINGLE_BYTES // 8, dtype=np.int64)
        nanos = []
        for _ in range(count):
            start = time.perf_counter_ns()
            copy(*self.single)
            nanos.append(time.perf_counter_ns() - start)
        return nanos

    def multi_put(self, count):
        nanos = []
        for _ in range(count):
            start = time.perf_counter_ns()
            self.pool.map(copy_fresh, [MULTI_PUTS // CORES] * CORES, chunksize=1)
            nanos.append((time.perf_counter_ns() - start) * MULTI_PUTS / (MULTI_PUTS // CORES * CORES))
        return nanos


def main():
    peer = Peer()
    try:
        lines.serve(peer)
    finally:
        peer.pool.terminate()


main()

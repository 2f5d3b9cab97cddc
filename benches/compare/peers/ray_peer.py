"""Ray's object store on one node: put and get of small and large values.

Reads {"do": ..., "count": ...} a line and answers {"nanos": [...]}; ends, and ends Ray, when its
input does. Whatever Ray prints goes to standard error.
"""

import json
import os
import shutil
import sys
import tempfile
import time

answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
os.sched_setaffinity(0, range(os.cpu_count()))

import numpy as np  # noqa: E402
import ray  # noqa: E402

SMALL = bytes(range(1, 101))
LARGE_BYTES = 100 << 20
LARGE_PLACES = 4


class Peer:
    def __init__(self):
        self.small = ray.put(SMALL)
        self.source = None
        self.live = []

    def get(self, count):
        nanos = []
        for _ in range(count):
            start = time.perf_counter_ns()
            value = ray.get(self.small)
            value[0]
            del value
            nanos.append(time.perf_counter_ns() - start)
        return nanos

    def put_small(self, count):
        nanos, live = [], []
        for _ in range(count):
            start = time.perf_counter_ns()
            reference = ray.put(SMALL)
            nanos.append(time.perf_counter_ns() - start)
            live.append(reference)
        return nanos

    def put_large(self, count):
        if self.source is None:
            self.source = np.random.default_rng(1).integers(1, 255, LARGE_BYTES, dtype=np.uint8)
        nanos = []
        for _ in range(count):
            del self.live[: len(self.live) - LARGE_PLACES + 1]
            start = time.perf_counter_ns()
            reference = ray.put(self.source)
            nanos.append(time.perf_counter_ns() - start)
            self.live.append(reference)
            del reference
        return nanos


def answer(nanos):
    answers.write(json.dumps({"nanos": nanos}) + "\n")
    answers.flush()


def main():
    # Ray's sockets live below this directory and their names must stay short.
    directory = tempfile.mkdtemp(prefix="bench-ray-")
    try:
        ray.init(
            num_cpus=1,
            include_dashboard=False,
            object_store_memory=2 << 30,
            logging_level="ERROR",
            log_to_driver=False,
            _temp_dir=directory,
        )
        peer = Peer()
        answer([])
        for line in sys.stdin:
            command = json.loads(line)
            answer(getattr(peer, command["do"])(command["count"]))
    finally:
        ray.shutdown()
        shutil.rmtree(directory, ignore_errors=True)


main()

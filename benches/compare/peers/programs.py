"""A user's programs, the same lines on Ray and on whatever else has its API: programs.py MODULE

Reads {"do": ..., "count": ...} a line and answers {"nanos": [...]}; ends, and ends its session, when its
input does. The one thing to know: nothing here may ask which of the two it runs on, but for Ray's
directory, which has to be removed.
"""

import importlib
import os
import shutil
import sys
import tempfile
import time

import lines

ray = importlib.import_module(sys.argv[1])

CORES = os.cpu_count()
STORE_BYTES = 2 << 30
# 100 MB of float64.
ARGUMENT = 12_500_000
READS = 7
MILLISECOND_NS = 1_000_000


def noop():
    pass


def same(item):
    return item


def spin(item):
    end = time.perf_counter_ns() + MILLISECOND_NS
    while time.perf_counter_ns() < end:
        pass
    return item


def first_element(array):
    return float(array[0])


def without_argument():
    return 1.0


def many_references(count):
    return [ray.put(1) for _ in range(count)]


def hold(gate):
    while not os.path.exists(gate):
        time.sleep(0.01)


class Answering:
    def answer(self):
        return 1


class Peer:
    def __init__(self, directory):
        self.gate = os.path.join(directory, "gate")
        self.actors = []
        self.made = None
        self.held = []
        self.queued = []
        self.pool = None

    def actor_start(self, count):
        """Each from `.remote()` to an answer; its end is not timed."""
        answering = ray.remote(Answering)
        nanos = []
        for _ in range(count):
            start = time.perf_counter_ns()
            actor = answering.remote()
            ray.get(actor.answer.remote())
            nanos.append(time.perf_counter_ns() - start)
            ray.kill(actor)
        return nanos

    def actors_started(self, count):
        """All of them at once, to an answer from each; they stay."""
        answering = ray.remote(Answering)
        start = time.perf_counter_ns()
        self.actors = [answering.remote() for _ in range(count)]
        answers = ray.get([actor.answer.remote() for actor in self.actors])
        nanos = time.perf_counter_ns() - start
        assert answers == [1] * count
        return [nanos]

    def large_argument(self, count):
        """What a task with an argument of 100 MB takes longer than one without, turn by turn."""
        # Here, because workers begin with what their driver has imported, and actors are weighed.
        import numpy as np

        large = ray.put(np.ones(ARGUMENT))
        given, bare = ray.remote(first_element), ray.remote(without_argument)
        differences = []
        for _ in range(count):
            start = time.perf_counter_ns()
            assert ray.get(given.remote(large)) == 1.0
            between = time.perf_counter_ns()
            ray.get(bare.remote())
            differences.append(between - start - (time.perf_counter_ns() - between))
        return differences

    def references_in_object(self, count):
        """A task's list of so many references, read again and again; letting go of it is not timed."""
        self.made = self.made or ray.remote(many_references).remote(count)
        ray.wait([self.made])
        nanos = []
        for _ in range(READS):
            start = time.perf_counter_ns()
            references = ray.get(self.made)
            nanos.append(time.perf_counter_ns() - start)
            assert len(references) == count
            del references
        return nanos

    def hold_cores(self, count):
        """Every CPU is held by a task until the queue is run."""
        holding = ray.remote(hold)
        ray.get(ray.remote(noop).remote())
        self.held = [holding.remote(self.gate) for _ in range(CORES)]
        return []

    def queue(self, count):
        queued = ray.remote(noop)
        self.queued = [queued.remote() for _ in range(count)]
        return []

    def run_queue(self, count):
        """From the opening of the gate to the last result."""
        start = time.perf_counter_ns()
        with open(self.gate, "w"):
            pass
        assert ray.get(self.queued) == [None] * count
        nanos = time.perf_counter_ns() - start
        ray.get(self.held)
        return [nanos]

    def noop_items(self, count):
        return items(ray.remote(same), count)

    def millisecond_items(self, count):
        return items(ray.remote(spin), count)

    def pool_items(self, count):
        """The whole list through the pool that is a drop-in for `multiprocessing.Pool`."""
        if self.pool is None:
            pools = importlib.import_module(sys.argv[1] + ".util.multiprocessing")
            self.pool = pools.Pool(CORES)
        start = time.perf_counter_ns()
        assert self.pool.map(same, range(count)) == list(range(count))
        return [(time.perf_counter_ns() - start) / count]


def items(function, count):
    """One task an item, as a list; the whole time by the items."""
    start = time.perf_counter_ns()
    assert ray.get([function.remote(item) for item in range(count)]) == list(range(count))
    return [(time.perf_counter_ns() - start) / count]


def main():
    # Ray's sockets live below this directory and their names must stay short.
    directory = tempfile.mkdtemp(prefix="bench-ray-")
    try:
        ray.init(
            address="local",
            num_cpus=CORES,
            include_dashboard=False,
            object_store_memory=STORE_BYTES,
            logging_level="ERROR",
            log_to_driver=False,
            _temp_dir=directory,
        )
        lines.serve(Peer(directory))
    finally:
        ray.shutdown()
        shutil.rmtree(directory, ignore_errors=True)


main()

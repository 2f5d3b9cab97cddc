"""Ray's tasks and actors on one node: calls one after the other, many at once, in a chain; its start.

Reads {"do": ..., "count": ...} a line and answers {"nanos": [...]}, nanoseconds of one call; what is
about many at once answers with one figure, the whole time by the calls. Ends, and ends Ray, when its
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

import ray  # noqa: E402

WARM_UP = 50


def noop():
    pass


def after(previous):
    return previous + 1


class Touched:
    def touch(self):
        pass


class Peer:
    def __init__(self, directory):
        start = time.perf_counter_ns()
        ray.init(
            num_cpus=os.cpu_count(),
            include_dashboard=False,
            object_store_memory=1 << 30,
            logging_level="ERROR",
            log_to_driver=False,
            _temp_dir=directory,
        )
        self.noop = ray.remote(noop)
        ray.get(self.noop.remote())
        self.started = time.perf_counter_ns() - start
        self.after = ray.remote(after)
        self.actor = None

    def start(self, count):
        return [self.started]

    def touched(self):
        if self.actor is None:
            # No CPU of its own, as Ray has actors by default: all stay for tasks.
            self.actor = ray.remote(Touched).remote()
            ray.get(self.actor.touch.remote())
        return self.actor

    def task(self, count):
        return one_by_one(self.noop, count)

    def actor_call(self, count):
        return one_by_one(self.touched().touch, count)

    def tasks_in_flight(self, count):
        return at_once(self.noop, count)

    def actor_calls_in_flight(self, count):
        return at_once(self.touched().touch, count)

    def chain(self, count):
        start = time.perf_counter_ns()
        last = 0
        for _ in range(count):
            last = self.after.remote(last)
        assert ray.get(last) == count
        return [(time.perf_counter_ns() - start) / count]


def one_by_one(function, count):
    nanos = []
    for _ in range(count):
        start = time.perf_counter_ns()
        ray.get(function.remote())
        nanos.append(time.perf_counter_ns() - start)
    return nanos


def at_once(function, count):
    start = time.perf_counter_ns()
    ray.get([function.remote() for _ in range(count)])
    return [(time.perf_counter_ns() - start) / count]


def answer(nanos):
    answers.write(json.dumps({"nanos": nanos}) + "\n")
    answers.flush()


def main():
    # Ray's sockets live below this directory and their names must stay short.
    directory = tempfile.mkdtemp(prefix="bench-ray-")
    try:
        peer = Peer(directory)
        one_by_one(peer.noop, WARM_UP)
        answer([])
        for line in sys.stdin:
            command = json.loads(line)
            answer(getattr(peer, command["do"])(command["count"]))
    finally:
        ray.shutdown()
        shutil.rmtree(directory, ignore_errors=True)


main()

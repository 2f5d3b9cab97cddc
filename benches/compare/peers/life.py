"""One life of a session in a fresh interpreter: life.py MODULE

Prints {"import": ..., "init": ..., "first task": ..., "shutdown": ...}, nanoseconds, as its last line.
The one thing to know: nothing is imported before the module but what tells the time, so that its
import pays for all that it needs.
"""

import time

start = time.perf_counter_ns()

import sys  # noqa: E402

module = __import__(sys.argv[1])
imported = time.perf_counter_ns() - start


def noop():
    pass


def timed(step):
    start = time.perf_counter_ns()
    step()
    return time.perf_counter_ns() - start


def main():
    init = timed(lambda: module.init(address="local", include_dashboard=False, logging_level="ERROR"))
    first_task = timed(lambda: module.get(module.remote(noop).remote()))
    shutdown = timed(module.shutdown)
    print(f'{{"import": {imported}, "init": {init}, "first task": {first_task}, "shutdown": {shutdown}}}')


main()

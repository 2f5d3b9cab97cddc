"""Ray's own microbenchmark, its file unmodified: ray_perf_rows.py PATH_OF_RAY_PERF WARM_UP_SECONDS

Which rows it runs is Ray's own affair: TESTS_TO_RUN in the environment. It prints a line for each. The
one thing to know: whatever `import ray` finds here is measured, by the `timeit` of Ray's wheel, from the
file beside Ray's microbenchmark. The rows of Ray Client, a proxy that needs packages Ray does not bring,
are left out on both sides.
"""

import importlib.util
import os
import runpy
import sys
import types

import ray  # noqa: F401

HARNESS = "ray._private.ray_microbenchmark_helpers"
CLIENT = "ray._private.ray_client_microbenchmark"


def load_harness(directory, warm_up_seconds):
    path = os.path.join(directory, "ray_microbenchmark_helpers.py")
    spec = importlib.util.spec_from_file_location(HARNESS, path)
    harness = importlib.util.module_from_spec(spec)
    sys.modules[HARNESS] = harness
    spec.loader.exec_module(harness)
    # timeit(name, fn, multiplier=1, warmup_time_sec=10)
    multiplier, _ = harness.timeit.__defaults__
    harness.timeit.__defaults__ = (multiplier, warm_up_seconds)


def leave_client_out():
    client = types.ModuleType(CLIENT)
    client.main = lambda results=None: results
    sys.modules[CLIENT] = client


def main():
    path, warm_up_seconds = sys.argv[1], float(sys.argv[2])
    load_harness(os.path.dirname(path), warm_up_seconds)
    leave_client_out()
    sys.argv[1:] = []
    runpy.run_path(path, run_name="__main__")


main()

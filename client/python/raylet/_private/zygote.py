"""The zygote's interpreter: warmed up, single-threaded, forked into workers.

The one thing to know: what is imported here is shared by every worker and paid for once; nothing imported here may
start a thread or hold a connection.

This module must not run the program's code: a worker does, after the fork.
"""

from __future__ import annotations

import importlib
import os
import sys
import types


def main() -> None:
    """Take the role that the environment names; returns only where it names none."""
    from . import session

    job = session.job_of_environment()
    _take_over(job)
    _warm_up(job)
    from .. import _native

    _native.run_role()


def _take_over(job: dict[str, object]) -> None:
    """The driver's paths and arguments; an empty `__main__`, as the driver's own travels by value."""
    if isinstance(job.get("path"), list):
        sys.path[:] = job["path"]  # type: ignore[index]
    if isinstance(job.get("argv"), list):
        sys.argv[:] = job["argv"]  # type: ignore[index]
    if job.get("executable"):
        sys.executable = str(job["executable"])
    prefixes = job.get("prefixes")
    if isinstance(prefixes, list):
        sys.prefix, sys.exec_prefix = prefixes
    main_module = types.ModuleType("__main__")
    if job.get("main_file"):
        main_module.__file__ = str(job["main_file"])
    sys.modules["__main__"] = main_module


def _warm_up(job: dict[str, object]) -> None:
    """Import what nearly every worker needs, and what the driver had when it began."""
    names = ["cloudpickle", "raylet", "raylet.actor", "raylet.remote_function", "raylet._private.loading"]
    names += ["raylet._private.api", "raylet._private.hosting", "raylet._private.worker_process"]
    names += ["raylet._private.hooks", "raylet._private.pickling", "raylet.runtime_context", "traceback"]
    modules = job.get("modules")
    names += modules if isinstance(modules, list) else []
    for name in names:
        try:
            importlib.import_module(name)
        except ImportError as error:
            # Whoever needs it says so again.
            print(f"raylet: the workers start without {name}: {error}", file=sys.stderr)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()

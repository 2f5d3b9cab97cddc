"""The zygote's interpreter: warmed up, single-threaded, forked into workers.

The one thing to know: what is imported here is shared by every worker and paid for once; nothing imported here may
start a thread or hold a connection.

This module must not run the program's code: a worker does, after the fork.
"""

from __future__ import annotations

import gc
import importlib
import os
import sys
import types
from typing import Any


def main() -> None:
    """Take the role that the environment names; returns only where it names none."""
    from . import session

    job = session.job_of_environment()
    _take_over(job)
    _warm_up()
    from .. import _native

    _native.run_role()


def _take_over(job: dict[str, Any]) -> None:
    """The driver's paths and arguments; an empty `__main__`, as the driver's own travels by value."""
    if isinstance(job.get("path"), list):
        sys.path[:] = job["path"]
    if isinstance(job.get("argv"), list):
        sys.argv[:] = job["argv"]
    main_module = types.ModuleType("__main__")
    if job.get("main_file"):
        main_module.__file__ = str(job["main_file"])
    sys.modules["__main__"] = main_module


# What every worker needs at once, and what most need by and by.
_FIRST = ["cloudpickle", "raylet._private.loading", "raylet._private.worker_process", "raylet._private.hooks"]
_FIRST += ["raylet._private.worker", "raylet._private.ids"]
_LATER = ["raylet.actor", "raylet.remote_function", "raylet._private.pickling", "raylet.runtime_context"]
# Of asyncio one by one: a fork waits for one import.
_LATER += ["socket", "ssl", "subprocess", "selectors", "concurrent.futures.thread", "asyncio", "raylet._private.hosting"]


def _warm_up() -> None:
    """Import what every worker needs: the first task waits for this."""
    _import_all(_FIRST)
    # Keeps the collector of workers, who turn it on, from writing to what they share with the zygote.
    gc.freeze()


def idle() -> bool:
    """Import one module more that most workers need, or that the driver had when it began; whether there are more."""
    global _left
    if _left is None:
        from . import session

        modules = session.job_of_environment().get("modules")
        _left = _LATER + (modules if isinstance(modules, list) else [])
    if _left:
        _import_all([_left.pop(0)])
        # A worker may be forked before the last one is imported.
        gc.freeze()
        return True
    return False


# What is still to be imported; None before the first is.
_left: list[str] | None = None


def _import_all(names: list[str]) -> None:
    for name in names:
        try:
            importlib.import_module(name)
        except ImportError as error:
            # Whoever needs it says so again.
            print(f"raylet: the workers start without {name}: {error}", file=sys.stderr)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()

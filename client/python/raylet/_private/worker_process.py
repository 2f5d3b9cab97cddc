"""A worker's process: what is done after the fork and before the end.

The one thing to know: the zygote has read the driver's paths and arguments already; a worker only undoes what a fork
must not share: the state of random numbers, and what is left in buffers.

This module must not import what the program did not.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
import threading
from typing import Any

from . import session as sessions
from .session import Session


def started() -> None:
    """Make this process a worker of its driver's job."""
    job = sessions.job_of_environment()
    sessions.set_current(Session("worker", {}, job))
    _seed_random()
    _buffer_lines()
    signal.signal(signal.SIGINT, interrupt)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if os.environ.get("RAYLET_COMPAT") == "1":
        from . import alias

        alias.install_in_worker()
    from . import worker

    worker.global_worker.mode = worker.WORKER_MODE


def interrupt(signum: int, frame: Any) -> None:
    """Raise KeyboardInterrupt if the running task was cancelled; a signal that comes late or from a terminal is
    nothing to a worker."""
    from .. import _native

    if _native.interrupted():
        raise KeyboardInterrupt


def _seed_random() -> None:
    """Fork copies generators of random numbers; the standard one is seeded anew by itself."""
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed()


def _buffer_lines() -> None:
    """Streams of this process's own: the zygote's may have been made for a file, and now a pipe is in its place."""
    for name, fd in (("stdout", 1), ("stderr", 2)):
        stream = open(fd, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def exiting(code: int) -> None:
    """Do what an interpreter does at its end: wait for the program's threads, call its exit handlers, flush."""
    with contextlib.suppress(Exception):
        threading._shutdown()  # type: ignore[attr-defined]
    with contextlib.suppress(BaseException):
        atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()

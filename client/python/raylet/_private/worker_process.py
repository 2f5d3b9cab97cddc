"""A worker's process: what is done after the fork and before the end.

The one thing to know: the zygote has read the driver's paths and arguments already; a worker only undoes what a fork
must not share: the state of random numbers, and what is left in buffers.

This module must not import what the program did not.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import io
import os
import signal
import sys
import threading
from typing import Any

from .. import _native
from . import errors
from . import session as sessions
from .session import Session

# What the raylet takes for a label, and how much of one it is given.
LABEL = "\x1eraylet-label\x1e"
LABEL_LENGTH_MAX = 200


def started() -> None:
    """Make this process a worker of its driver's job."""
    job = sessions.job_of_environment()
    sessions.set_current(Session("worker", {}, job))
    gc.enable()
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
    if _native.interrupted() and _native.running() is not None and not errors.is_describing:
        raise KeyboardInterrupt


def _seed_random() -> None:
    """Fork copies generators of random numbers; the standard one is seeded anew by itself."""
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed()


def _buffer_lines() -> None:
    """Streams of this process's own: the zygote's may have been made for a file, and now a pipe is in its place."""
    sys.stdout = sys.__stdout__ = Labelled(1)  # type: ignore[misc]
    sys.stderr = sys.__stderr__ = Labelled(2)  # type: ignore[misc]


class Labelled(io.TextIOWrapper):
    """A standard stream of a worker that says, in a line of its own before the first after a change, what runs.

    The raylet takes such a line as the label of those that follow.
    """

    actor_label: str | None = None

    def __init__(self, descriptor: int) -> None:
        raw = open(descriptor, "wb", closefd=False)
        super().__init__(raw, encoding="utf-8", errors="backslashreplace", line_buffering=True)
        self.said: str | None = None
        self.is_at_start = True

    def write(self, text: str) -> int:
        """Write text; Python's own `print` comes here with each of its parts."""
        if self.is_at_start and text:
            self.say(Labelled.actor_label or _native.running())
        if text:
            self.is_at_start = text.endswith("\n")
        return super().write(text)

    def say(self, label: str | None) -> None:
        """Have the following lines labelled so."""
        if label is not None and label != self.said:
            self.said = label
            super().write(f"{LABEL}{' '.join(label.split())[:LABEL_LENGTH_MAX]}\n")


def say_first(label: str) -> None:
    """Label the lines of a process that has no label yet, as what is written past Python has none else."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, Labelled) and stream.said is None:
            stream.say(label)


def label_actor(info: dict[str, Any], instance: Any = None) -> None:
    """Have this actor's lines labelled with its class's name, or with its own `repr` where it has one."""
    Labelled.actor_label = info["name"]
    if instance is not None and type(instance).__repr__ is not object.__repr__:
        with contextlib.suppress(Exception):
            Labelled.actor_label = repr(instance)


def exiting(code: int) -> None:
    """Do what an interpreter does at its end: wait for the program's threads, call its exit handlers, flush.

    An actor that ends does so before it says that it has; handlers run once.
    """
    with contextlib.suppress(Exception):
        threading._shutdown()  # type: ignore[attr-defined]
    with contextlib.suppress(BaseException):
        atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()

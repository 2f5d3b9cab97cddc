"""A driver's process: the programs it starts, its signals, its end, and what it asks of the raylet.

The one thing to know: everything that a driver started ends with it, also when it is killed; what is done here at the
end only lets late output through first.

This module must not know calls.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import time
from typing import Any

from .session import Session

NOFILE_WANTED = 65536
# How long a driver that ends waits for the last lines of its workers; Ray's waits 0.5 s.
LAST_WORDS_S = 0.2

_has_begun = False


def programs(job: dict[str, Any]) -> dict[str, Any]:
    """How the native side starts the raylet and the zygote: the interpreter with a few lines each."""
    from . import session

    executable, arguments, environment = session.zygote_program(job)
    return {
        "executable": executable,
        "arguments": arguments,
        "environment": environment,
        "directory": os.getcwd(),
        "raylet_executable": executable,
        "raylet_arguments": ["-I", "-S", "-c", _raylet_code()],
    }


def _raylet_code() -> str:
    """Lines that run the raylet in an interpreter without any of the package's Python modules."""
    from .. import _native

    # By the import system's own frozen modules, which are there: `importlib.util` takes as long as the interpreter.
    return (
        "import _frozen_importlib as f, _frozen_importlib_external as e\n"
        f"path = {_native.__file__!r}\n"
        "loader = e.ExtensionFileLoader('raylet._native', path)\n"
        "spec = f.ModuleSpec('raylet._native', loader, origin=path)\n"
        "module = loader.create_module(spec)\n"
        "loader.exec_module(module)\n"
        "module.run_role()"
    )


# What a driver's first calls need, so that it is there when its session is.
_NEEDED_SOON = ["cloudpickle", "raylet.remote_function", "raylet.actor", "raylet._private.pickling"]
_NEEDED_SOON += ["raylet._private.invocation", "raylet._private.signature", "raylet._private.code"]
_NEEDED_SOON += ["raylet._private.errors", "raylet._private.worker", "socket", "signal", "resource"]


def warm_up() -> None:
    """Import what comes next, while nobody has anything better to do."""
    import importlib

    for name in _NEEDED_SOON:
        # Whoever needs it says what is wrong with it.
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


def began(session: Session) -> None:
    """Once a session has begun: limits, signals, the end of the process."""
    global _has_begun
    import signal
    import threading

    from . import worker

    worker.global_worker.mode = worker.LOCAL_MODE if session.is_local else worker.SCRIPT_MODE
    if not _has_begun:
        _has_begun = True
        atexit.register(_at_exit)
        os.register_at_fork(after_in_child=_forked)
    _raise_file_limit()
    if threading.current_thread() is threading.main_thread():
        with contextlib.suppress(ValueError):
            if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
                signal.signal(signal.SIGTERM, _terminated)


def ended(session: Session) -> None:
    """Once a session has ended."""
    from . import local, logs, worker

    worker.global_worker.mode = None
    local.forget()
    logs.flush()


def _terminated(signum: int, frame: Any) -> None:
    sys.exit(signum)


def _at_exit() -> None:
    from . import api
    from . import session as sessions

    current = sessions.current()
    if current is not None and current.kind == "driver":
        # What workers printed last is on its way through the raylet.
        time.sleep(LAST_WORDS_S)
    api.shutdown(_exiting_interpreter=True)


def _forked() -> None:
    """In a child that the program forked: it is no driver, and must not end the session of one."""
    from . import session as sessions

    current = sessions.current()
    if current is not None and current.kind != "worker":
        sessions.set_current(None)


def _raise_file_limit() -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = max(soft, min(hard, NOFILE_WANTED) if hard != resource.RLIM_INFINITY else NOFILE_WANTED)
    if wanted > soft:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def configure_logging(level: int | str, form: str | None) -> None:
    """Have the logger "ray" write to stderr at `level`."""
    import logging

    logger = logging.getLogger("ray")
    chosen = level if isinstance(level, int) else logging.getLevelName(str(level).upper())
    logger.setLevel(chosen if isinstance(chosen, int) else logging.INFO)
    logger.propagate = False
    if not logger.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(
            logging.Formatter(form or "%(asctime)s\t%(levelname)s %(filename)s:%(lineno)s -- %(message)s")
        )
        logger.addHandler(handler)


# What the raylet says ------------------------------------------------------------


def resources(which: str) -> dict[str, float]:
    """Resources by name: "total" or "available"."""
    from . import api, session

    if session.require().is_local:
        return {"CPU": float(os.cpu_count() or 1)}
    status = api.ask("status")
    work, store = status["work"], status["store"]
    found = {name: float(amount) for name, amount in work["capacity"].items() if amount > 0}
    found["object_store_memory"] = float(store["capacity_bytes"])
    if which == "available":
        for name, amount in work["used"].items():
            # Tenths do not add up in binary; amounts are counted in ten thousandths.
            found[name] = round(found.get(name, 0.0) - amount, 4)
        found["object_store_memory"] -= store["used_bytes"]
    return found


def timeline_events() -> list[dict[str, Any]]:
    """What ran when, as events of a Chrome trace."""
    from . import api, session

    if session.require().is_local:
        return []
    trace = api.ask("timeline")
    return trace["traceEvents"] if isinstance(trace, dict) else trace

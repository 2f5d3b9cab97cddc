"""The session of this process: what `init` made, and what a worker was given.

The one thing to know: there is at most one `Session` at a time; `current()` gives it, `ensure()` makes one where a
call may start one by itself.

This module must not import what needs third-party modules: `import raylet` imports it.
"""

from __future__ import annotations

import itertools
import os
import sys
import threading
from typing import Any

from ..exceptions import RaySystemError

JOB_VARIABLE = "RAYLET_JOB"
NOT_STARTED = "Ray has not been started yet. You can start Ray with 'ray.init()'."

_numbers = itertools.count(1)


class Session:
    """One connection of this process to a raylet.

    `kind` is "driver", "worker" or "local". `job` is what every worker of the job is told: namespace, runtime_env.
    """

    def __init__(self, kind: str, info: dict[str, Any], job: dict[str, Any]) -> None:
        self.kind = kind
        self.number = next(_numbers)
        self.given_info = info
        self.job = job
        self.namespace: str = job.get("namespace") or ""
        self.address_info: dict[str, Any] = {}

    @property
    def info(self) -> dict[str, Any]:
        """node_id, session_dir, session_id, address. A worker knows them from its first call on."""
        if not self.given_info and self.kind == "worker":
            from .. import _native

            self.given_info = _native.facts() or {}
        return self.given_info

    @property
    def is_local(self) -> bool:
        """Whether everything runs in this process."""
        return self.kind == "local"


_current: Session | None = None
lock = threading.RLock()


def current() -> Session | None:
    """The session, or None before `init` and after `shutdown`."""
    return _current


def require() -> Session:
    """The session. Raises RaySystemError where there is none."""
    if _current is None:
        raise RaySystemError(NOT_STARTED)
    return _current


def ensure() -> Session:
    """The session; starts one where there is none, unless RAY_ENABLE_AUTO_CONNECT=0."""
    if _current is not None:
        return _current
    if os.environ.get("RAY_ENABLE_AUTO_CONNECT", "1") in ("0", "false", "False"):
        raise RaySystemError(NOT_STARTED)
    from . import api

    with lock:
        if _current is None:
            api.init()
    return require()


def set_current(session: Session | None) -> None:
    """Make `session` the one of this process."""
    global _current
    _current = session


def job_of_environment() -> dict[str, Any]:
    """What the driver told its workers; empty in a process that is none."""
    import json

    return json.loads(os.environ.get(JOB_VARIABLE) or "{}")


# Options of the interpreter by the names of their flags. Those of `-I` are not handed on: workers have the driver's
# paths and environment anyway.
_OPTIONS = {"debug": "d", "optimize": "O", "dont_write_bytecode": "B", "no_site": "S", "verbose": "v"}
_OPTIONS |= {"bytes_warning": "b", "quiet": "q"}
_OPTIONS_OF_ISOLATED = {"no_user_site": "s", "ignore_environment": "E", "safe_path": "P"}


def interpreter_flags() -> list[str]:
    """How another interpreter is given the options of this one; `subprocess` knows too, and takes long to import."""
    options = _OPTIONS if sys.flags.isolated else {**_OPTIONS, **_OPTIONS_OF_ISOLATED}
    counts = ((letter, int(getattr(sys.flags, name))) for name, letter in options.items())
    flags = [f"-{letter * count}" for letter, count in counts if count]
    flags += [f"-W{option}" for option in sys.warnoptions]
    return flags + [f"-X{name}" if value is True else f"-X{name}={value}" for name, value in sys._xoptions.items()]


def zygote_program(job: dict[str, Any]) -> tuple[str, list[str], dict[str, str]]:
    """How to start the zygote of this driver: the interpreter, its arguments, its environment."""
    import json

    flags = interpreter_flags()
    home = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    # Garbage is not looked for while it imports: there is none, and the first task waits.
    code = f"import gc, sys; gc.disable(); sys.path.insert(0, {home!r}); from raylet._private.zygote import main; main()"
    environment = {**os.environ, JOB_VARIABLE: json.dumps(job)}
    # Libraries that start a thread per core would take the cores from the tasks beside; Ray does the same.
    environment.setdefault("OMP_NUM_THREADS", "1")
    return sys.executable, [*flags, "-c", code], environment


def describe_driver(namespace: str) -> dict[str, Any]:
    """What the workers of this driver have to know of it."""
    main = sys.modules.get("__main__")
    return {
        "namespace": namespace,
        "path": list(sys.path),
        "argv": list(sys.argv) if hasattr(sys, "argv") else [""],
        "main_file": getattr(main, "__file__", None),
        "executable": sys.executable,
        "prefixes": [sys.prefix, sys.exec_prefix],
        "omp": os.environ.get("OMP_NUM_THREADS"),
        "modules": [name for name in ("numpy",) if name in sys.modules],
    }

"""`raylet run`: a program under the name `ray`, as `python` would run it.

The one thing to know: the program is `__main__`, with its own arguments, its directory first on the path,
and its tracebacks begin with its own frames. This file must not start a session: the program does.
"""

from __future__ import annotations

import importlib.util
import io
import os
import runpy
import sys
from types import CodeType, ModuleType, TracebackType
from typing import Any

from . import alias

USAGE = """\
usage: raylet run [-h] (SCRIPT | -m MODULE) [ARGUMENTS...]

Runs a Python program in which `import ray`, `from ray.util.queue import Queue` and so on mean raylet, in
the program itself and in its workers.

  SCRIPT         a Python file, or a directory or zip file with a __main__.py
  -m MODULE      a module by its name, as python -m takes it
  ARGUMENTS      the program's own
"""

INTERRUPTED = 130


def run(arguments: list[str]) -> int:
    """Runs what the arguments name; the exit code, where the program does not set one itself."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE, end="", file=sys.stdout if arguments else sys.stderr)
        return 0 if arguments else 2
    is_module = arguments[0] == "-m"
    if arguments[0].startswith("-") and not is_module or is_module and len(arguments) < 2:
        print(f"raylet run: what is {arguments[0]!r}?\n\n{USAGE}", end="", file=sys.stderr)
        return 2
    alias.install()
    try:
        if is_module:
            _run_module(arguments[1], arguments[2:])
        else:
            _run_script(arguments[0], arguments[1:])
    except SystemExit:
        raise
    except BaseException as error:
        error.__traceback__ = _own_frames(error.__traceback__)
        sys.excepthook(type(error), error, error.__traceback__)
        return INTERRUPTED if isinstance(error, KeyboardInterrupt) else 1
    return 0


def _run_script(script: str, arguments: list[str]) -> None:
    if not os.path.exists(script):
        print(f"raylet run: there is no file {script}", file=sys.stderr)
        raise SystemExit(2)
    sys.argv = [script, *arguments]
    if os.path.isdir(script) or not script.endswith(".py") and _is_archive(script):
        sys.path[0] = script
        runpy.run_path(script, run_name="__main__")
        return
    sys.path[0] = os.path.dirname(os.path.abspath(script))
    with io.open_code(script) as source:
        code = compile(source.read(), script, "exec", dont_inherit=True)
    _execute(code, {"__file__": script})


def _is_archive(script: str) -> bool:
    import zipfile

    return zipfile.is_zipfile(script)


def _run_module(name: str, arguments: list[str]) -> None:
    sys.path[0] = os.getcwd()
    spec = importlib.util.find_spec(name)
    if spec is not None and spec.submodule_search_locations is not None:
        spec = importlib.util.find_spec(f"{name}.__main__")
    loader: Any = None if spec is None else spec.loader
    code = None if loader is None else loader.get_code(spec.name)  # type: ignore[union-attr]
    if spec is None or code is None:
        raise SystemExit(f"raylet run: there is no module {name} that can be run")
    sys.argv = [spec.origin or name, *arguments]
    about = {"__file__": spec.origin, "__spec__": spec, "__package__": spec.parent, "__loader__": loader}
    _execute(code, about)


def _execute(code: CodeType, about: dict[str, Any]) -> None:
    """Runs the code as `__main__`, which it stays to the end of the process, as under `python`."""
    main = ModuleType("__main__")
    main.__dict__.update({"__builtins__": __builtins__, **about})
    sys.modules["__main__"] = main
    exec(code, main.__dict__)


def _own_frames(frames: TracebackType | None) -> TracebackType | None:
    """The frames from the program's first on."""
    while frames is not None and _is_ours(frames.tb_frame.f_code.co_filename):
        frames = frames.tb_next
    return frames


def _is_ours(filename: str) -> bool:
    return filename in (__file__, runpy.__file__) or filename.startswith("<frozen ")


__all__ = ["run"]

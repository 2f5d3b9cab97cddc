"""Runtime environments: checking, merging, shipping and applying them.

The one thing to know: an environment that leaves the process is plain: variables with text values, and folders that
are copies under the session's directory, named by their content. Workers with different environments are never
the same process.

This module must not fetch or install anything: only local folders and variables are supported.
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Any

SUPPORTED = ("env_vars", "working_dir", "py_modules", "excludes", "config", "_metadata")
REFUSED = (
    "pip",
    "uv",
    "conda",
    "container",
    "image_uri",
    "java_jars",
    "java_jvm_options",
    "py_executable",
    "worker_process_setup_hook",
    "nsight",
    "_nsight",
    "rocprof_sys",
    "_rocprof_sys",
    "mpi",
    "docker",
    "eager_install",
)
OWN_WORKERS = 1 << 63
ALWAYS_EXCLUDED = ("__pycache__", ".git")

_applied: dict[str, Any] = {}


def checked(environment: Any) -> dict[str, Any]:
    """A copy of an environment that the program gave; {} for None.

    Raises TypeError for fields of a wrong type and ValueError for what is not supported here.
    """
    if environment is None:
        return {}
    if not isinstance(environment, dict):
        raise TypeError(f"runtime_env must be dict or RuntimeEnv, but got: {type(environment)}")
    for name in environment:
        if name in REFUSED:
            raise ValueError(
                f"runtime_env field '{name}' is not supported: on one machine the driver's own interpreter and its "
                f"packages are used. Supported are {', '.join(SUPPORTED[:4])}."
            )
        if name not in SUPPORTED:
            raise ValueError(f"Unknown runtime_env field '{name}'. Supported are {', '.join(SUPPORTED[:4])}.")
    _check_variables(environment.get("env_vars"))
    _check_folder("working_dir", environment.get("working_dir"))
    _check_modules(environment.get("py_modules"))
    _check_excludes(environment.get("excludes"))
    return {name: value for name, value in environment.items() if value is not None}


def _check_variables(variables: Any) -> None:
    if variables is None:
        return
    if not isinstance(variables, dict):
        raise TypeError(f"runtime_env['env_vars'] must be of type Dict[str, str], got {type(variables)}")
    for key, value in variables.items():
        if not isinstance(key, str):
            raise TypeError(
                "runtime_env['env_vars'] must be of type Dict[str, str], but the key "
                f"{key} is of type {type(key)}"
            )
        if not isinstance(value, str):
            raise TypeError(
                "runtime_env['env_vars'] must be of type Dict[str, str], but the value "
                f"{value} is of type {type(value)}"
            )


def _check_folder(field: str, folder: Any) -> None:
    if folder is None:
        return
    if not isinstance(folder, (str, os.PathLike)):
        raise TypeError(f"`{field}` must be a string, got {type(folder)}")
    if "://" in os.fspath(folder):
        raise ValueError(f"`{field}` must be a local directory here, got a URI: {folder}")
    if not os.path.isdir(folder):
        raise ValueError(f"directory {folder} must be an existing directory, got nothing there")


def _check_modules(modules: Any) -> None:
    if modules is None:
        return
    if not isinstance(modules, list):
        raise TypeError(f"`py_modules` must be a list of strings or modules, got {type(modules)}")
    for module in modules:
        if not isinstance(module, (str, os.PathLike)) and not hasattr(module, "__path__"):
            raise TypeError(f"`py_modules` must be a list of strings or packages, got {type(module)}")


def _check_excludes(excludes: Any) -> None:
    if excludes is not None and not isinstance(excludes, list):
        raise TypeError(f"`excludes` must be a list of strings, got {type(excludes)}")


def merged(below: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`below` with the fields of `over` laid over it; variables are merged one by one."""
    out = {**below, **over}
    variables = {**(below.get("env_vars") or {}), **(over.get("env_vars") or {})}
    if variables:
        out["env_vars"] = variables
    return out


def is_empty(environment: dict[str, Any]) -> bool:
    """Whether an environment changes nothing for a worker."""
    return not any(environment.get(field) for field in ("env_vars", "working_dir", "py_modules"))


def shipped(environment: dict[str, Any], session_dir: str) -> dict[str, Any]:
    """The plain form of a checked environment, its folders copied below `session_dir`."""
    if is_empty(environment):
        return {}
    excludes = tuple(environment.get("excludes") or ())
    out: dict[str, Any] = {}
    if environment.get("env_vars"):
        out["env_vars"] = dict(environment["env_vars"])
    if environment.get("working_dir"):
        folder = os.fspath(environment["working_dir"])
        out["working_dir"] = _snapshot(folder, excludes, session_dir, is_package=False)
    if environment.get("py_modules"):
        folders = [_folder_of(module) for module in environment["py_modules"]]
        out["py_modules"] = [_snapshot(folder, excludes, session_dir, is_package=True) for folder in folders]
    return out


def _folder_of(module: Any) -> str:
    if hasattr(module, "__path__"):
        return next(iter(module.__path__))
    return os.fspath(module)


def group_of(environment: dict[str, Any]) -> int:
    """A number for the workers of a plain environment: 0 for the empty one."""
    import json

    return group_number(json.dumps(environment, sort_keys=True, default=str)) if environment else 0


def group_number(text: str) -> int:
    """The number of the workers that only run what this text describes. Its highest bit says that they are changed by
    it, so that they run nothing else before or after."""
    import hashlib

    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") | OWN_WORKERS


def _files(folder: str, excludes: tuple[str, ...]) -> list[str]:
    """The paths, relative to `folder`, of the files that are not excluded."""
    found = []
    for place, folders, names in os.walk(folder):
        inside = os.path.relpath(place, folder)
        prefix = "" if inside == "." else inside + "/"
        folders[:] = sorted(f for f in folders if not _is_excluded(prefix + f, excludes))
        found += [prefix + name for name in sorted(names) if not _is_excluded(prefix + name, excludes)]
    return found


def _is_excluded(path: str, excludes: tuple[str, ...]) -> bool:
    import fnmatch

    name = path.rsplit("/", 1)[-1]
    if name in ALWAYS_EXCLUDED:
        return True
    for pattern in excludes:
        bare = pattern.strip("/")
        if fnmatch.fnmatch(path, bare) or ("/" not in bare and fnmatch.fnmatch(name, bare)):
            return True
    return False


def _snapshot(folder: str, excludes: tuple[str, ...], session_dir: str, is_package: bool) -> str:
    """A copy of `folder` below the session's directory. Two copies of equal content are one."""
    import hashlib

    folder = os.path.abspath(folder)
    place = os.path.join(session_dir, "runtime_resources")
    if os.path.dirname(folder) == place:
        # Inherited: it is such a copy.
        return folder
    digest = hashlib.sha256(os.path.basename(folder).encode())
    paths = _files(folder, excludes)
    for path in paths:
        full = os.path.join(folder, path)
        state = os.stat(full)
        digest.update(f"{path}\0{state.st_size}\0{state.st_mtime_ns}\0{state.st_ino}\n".encode())
    target = os.path.join(place, digest.hexdigest()[:16])
    if not os.path.isdir(target):
        os.makedirs(place, exist_ok=True)
        _copy(folder, paths, target, os.path.basename(folder) if is_package else "")
    return target


def _copy(folder: str, paths: list[str], target: str, inside: str) -> None:
    """Copy files to `target`, which appears as a whole or not at all."""
    import shutil
    import uuid

    temporary = f"{target}.{uuid.uuid4().hex[:8]}"
    base = os.path.join(temporary, inside)
    os.makedirs(base)
    for path in paths:
        destination = os.path.join(base, path)
        os.makedirs(os.path.dirname(destination), exist_ok=True)
        shutil.copy2(os.path.join(folder, path), destination)
    try:
        os.rename(temporary, target)
    except OSError:
        # Somebody else made the same copy meanwhile.
        shutil.rmtree(temporary, ignore_errors=True)


def current() -> dict[str, Any]:
    """The plain environment of this worker; {} in drivers and in workers without one."""
    return _applied


def apply(environment: dict[str, Any]) -> None:
    """Make this process one with the plain `environment`. Done once in a worker, before the program's code is read."""
    global _applied
    if not environment or environment == _applied:
        return
    for name, value in environment.get("env_vars", {}).items():
        os.environ[name] = os.path.expandvars(value)
    for folder in reversed(environment.get("py_modules", [])):
        _add_path(folder)
    folder = environment.get("working_dir")
    if folder:
        os.chdir(folder)
        _add_path(folder)
    _applied = environment


def _add_path(folder: str) -> None:
    with contextlib.suppress(ValueError):
        sys.path.remove(folder)
    sys.path.insert(0, folder)

"""The name `ray` for this package: the same module objects under both names.

The one thing to know: `ray.a.b` is never loaded a second time; the finder imports `raylet.a.b` and hands
that module out, or `isinstance` and `except` would see two of each class. This file must not import
anything of the package before somebody asks for it: every worker runs it.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import os
import sys
from collections.abc import Iterable, Sequence
from importlib.metadata import Distribution, DistributionFinder
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

OTHER = "ray"
OURS = __name__.partition(".")[0]
# Set in the environment of a driver that uses the other name, and so of its workers.
VARIABLE = "RAYLET_COMPAT"


def is_theirs(name: str) -> bool:
    """Whether a module's name is one of the other's."""
    return name == OTHER or name.startswith(OTHER + ".")


def ours(name: str) -> str:
    """The name here of a module of the other's."""
    return OURS + name[len(OTHER) :]


def _share() -> None:
    """Gives every module of ours that is loaded its other name, too.

    An import of a name that is known binds nothing in its parent: so the function
    `ray.util.placement_group` is not replaced by the module that has its name.
    """
    for name, module in list(sys.modules.items()):
        if name == OURS or name.startswith(OURS + "."):
            sys.modules.setdefault(OTHER + name[len(OURS) :], module)


class _Loader:
    """Hands out a module of ours for a name of the other's."""

    def __init__(self, spec: importlib.machinery.ModuleSpec) -> None:
        self._spec = spec

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        module = importlib.import_module(self._spec.name)
        self._own = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        # It ran already; the import of the other name only took its spec away.
        module.__spec__ = self._own
        _share()

    def get_code(self, fullname: str) -> CodeType | None:
        """What `python -m` with the other's name runs."""
        loader: Any = self._spec.loader
        return loader.get_code(self._spec.name)


class _Distribution(Distribution):
    """What is installed under the other's name, as far as it is asked for its name and version."""

    def read_text(self, filename: str) -> str | None:
        if filename != "METADATA":
            return None
        version = importlib.import_module(OURS).__version__
        return f"Metadata-Version: 2.1\nName: {OTHER}\nVersion: {version}\n"

    def locate_file(self, path: Any) -> Any:
        return Path(__file__).parents[2] / path


class _Finder(DistributionFinder):
    """Answers for the other's name before anybody else does."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if not is_theirs(fullname):
            return None
        try:
            found = importlib.util.find_spec(ours(fullname))
        except ModuleNotFoundError:
            return None
        if found is None:
            return None
        is_package = found.submodule_search_locations is not None
        loader: Any = _Loader(found)
        spec = importlib.machinery.ModuleSpec(fullname, loader, origin=found.origin, is_package=is_package)
        spec.submodule_search_locations = found.submodule_search_locations
        return spec

    def find_distributions(self, context: Any = DistributionFinder.Context()) -> Iterable[Distribution]:  # noqa: B008
        return [_Distribution()] if context.name in (None, OTHER) else []


_finder = _Finder()


def is_installed() -> bool:
    """Whether the other name means this package in this process."""
    return _finder in sys.meta_path


def install() -> None:
    """Makes the other name mean this package, here and in the workers of sessions that begin later.

    Raises `RuntimeError` where the other's package is imported already.
    """
    install_in_worker()
    os.environ[VARIABLE] = "1"


def install_in_worker() -> None:
    """Makes the other name mean this package in this process alone."""
    if is_installed():
        return
    found = sys.modules.get(OTHER)
    if found is not None and found is not sys.modules.get(OURS):
        raise RuntimeError(f"{OTHER} is imported already, from {getattr(found, '__file__', 'somewhere')}")
    sys.meta_path.insert(0, _finder)
    _share()


def uninstall() -> None:
    """Takes the other name away again, from this process."""
    if is_installed():
        sys.meta_path.remove(_finder)
    os.environ.pop(VARIABLE, None)
    for name, module in list(sys.modules.items()):
        if is_theirs(name) and sys.modules.get(ours(name)) is module:
            del sys.modules[name]

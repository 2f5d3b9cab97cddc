"""Which part of a value keeps it from travelling.

The one thing to know: a value that does not pickle is taken apart (a function's globals and closure, an object's
attributes) and each part is tried, down to a depth; the first that fails on each level is followed. The texts are
Ray's, as programs match on them. This module must not be needed for values that travel.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

from .._private import pickling

_RED, _NORMAL, _BRIGHT, _RESET = "\033[31m", "\033[39m", "\033[1m", "\033[0m"
_WIDTH_MAX = 80


class FailureTuple:
    """A part that does not pickle.

    `obj` is the part, `path` the names that lead to it from the value, `parent` what it is a part of.
    """

    def __init__(self, obj: Any, path: tuple[str | None, ...], parent: Any) -> None:
        self.obj = obj
        self.path = path
        self.parent = parent

    def __repr__(self) -> str:
        names = ["unknown" if name is None else str(name) for name in self.path]
        last = names[-1] if names else "unknown"
        return f"FailTuple({last} [path={' -> '.join(names)}, obj={self.obj}, parent={self.parent}])"


def inspect_serializability(
    base_obj: Any, name: str | None = None, depth: int = 3, print_file: Any = None
) -> tuple[bool, set[FailureTuple]]:
    """Whether `base_obj` can travel, and the parts that keep it from doing so.

    The report goes to `print_file`, a text file; without one to standard output. `depth` is how many levels of
    parts are looked at.
    """
    title = f"Checking Serializability of {base_obj}"
    rule = "=" * min(len(title), _WIDTH_MAX)
    look = _Inspection(print_file)
    look.say(rule)
    look.say(title)
    look.say(rule)
    if look.try_part(base_obj, name, depth, None, ()):
        return True, look.failures
    look.say(rule)
    look.conclude()
    look.say(rule)
    look.say(
        "Check https://docs.ray.io/en/master/ray-core/objects/serialization.html#troubleshooting "
        "for more information."
    )
    look.say(rule)
    return False, look.failures


class _Inspection:
    """One walk through a value: what was said and found so far."""

    def __init__(self, print_file: Any) -> None:
        self.failures: set[FailureTuple] = set()
        self.level = 0
        self.print_file = print_file

    def say(self, text: str) -> None:
        print("    " * self.level + text, file=self.print_file)

    def try_part(self, part: Any, name: str | None, depth: int, parent: Any, path: tuple[str | None, ...]) -> bool:
        """Whether the part pickles; if not, its own parts are tried."""
        try:
            pickling.dumps(part)
            return True
        except Exception as error:
            self.say(f"{_RED}!!! FAIL{_NORMAL} serialization: {error}")
        here = path if name is None else (*path, name)
        if depth <= 0:
            self.failures.add(FailureTuple(part, here, parent))
            return False
        if inspect.isfunction(part):
            self.look_into_function(part, depth, here)
        elif type(part) in (dict, list, tuple, set, frozenset):
            self.look_into_container(part, depth, here)
        else:
            self.look_into_object(part, depth, here)
        if not self.failures:
            self.failures.add(FailureTuple(part, here, parent))
        return False

    def look_into_function(self, function: Any, depth: int, path: tuple[str | None, ...]) -> None:
        self.say(f"Inspecting closure of '{function.__qualname__}':")
        closure = inspect.getclosurevars(function)
        found = False
        for kind, names in (("global", closure.globals), ("nonlocal", closure.nonlocals)):
            if names and not found:
                self.say(f"Detected {len(names)} {kind} variables. Checking serializability...")
                found = self.one_fails(names.items(), function, depth, path)
        if not found:
            self.warn(function.__qualname__)

    def look_into_container(self, items: Any, depth: int, path: tuple[str | None, ...]) -> None:
        named = items.items() if type(items) is dict else enumerate(items)
        if not self.one_fails(((f"[{name!r}]", part) for name, part in named), items, depth, path):
            self.warn(f"{type(items).__name__} instance")

    def look_into_object(self, value: Any, depth: int, path: tuple[str | None, ...]) -> None:
        functions = inspect.getmembers(value, predicate=inspect.isfunction)
        members = [
            (name, part)
            for name, part in inspect.getmembers(value)
            if not (name.startswith("__") and name.endswith("__")) and not inspect.isbuiltin(part)
        ]
        found = self.one_fails(functions, value, depth, path) or self.one_fails(members, value, depth, path)
        if not found:
            self.warn(value.__name__ if inspect.isclass(value) else f"{type(value).__name__} instance")

    def one_fails(
        self, parts: Iterable[tuple[str, Any]], parent: Any, depth: int, path: tuple[str | None, ...]
    ) -> bool:
        """Tries the parts up to the first that fails."""
        self.level += 1
        try:
            for name, part in parts:
                self.say(f"Serializing '{name}' {part}...")
                if not self.try_part(part, name, depth - 1, parent, path):
                    return True
            return False
        finally:
            self.level -= 1

    def warn(self, name: str) -> None:
        self.say(
            f"WARNING: Did not find non-serializable object in {name}. It may fail only together with others: "
            "try `inspect_serializability` on its parts."
        )

    def conclude(self) -> None:
        found = "\n".join(str(failure) for failure in self.failures)
        self.say(
            f"Variable: \n\n\t{_BRIGHT}{found}{_RESET}\n\nwas found to be non-serializable. There may be multiple "
            "other undetected variables that were non-serializable. "
        )
        self.say(
            "Consider either removing the instantiation/imports of these variables or moving the instantiation "
            "into the scope of the function/class. "
        )

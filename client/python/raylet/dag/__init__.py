"""Graphs of calls are not supported; this package exists so that asking for one says so.

The one thing to know: every use raises NotImplementedError.
"""

from __future__ import annotations

from typing import Any, NoReturn


def unsupported(what: str) -> NoReturn:
    """Raise NotImplementedError for `what`."""
    raise NotImplementedError(
        f"`{what}` builds a graph of calls (ray.dag), which this package does not have. Call `.remote(...)` instead: "
        "references may be passed on as arguments before they have a value."
    )


class DAGNode:
    """A node of a graph of calls. There are none; the name is for `isinstance`."""


class InputNode(DAGNode):
    """The input of a graph of calls."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        unsupported("InputNode")


class MultiOutputNode(DAGNode):
    """The outputs of a graph of calls."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        unsupported("MultiOutputNode")

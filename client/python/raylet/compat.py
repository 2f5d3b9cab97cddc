"""Existing Ray programs, unmodified: `raylet.compat.install()`, then `import ray`.

The one thing to know: from then on `ray` and everything below it are this package's own modules, in the
driver and in every worker, and `importlib.metadata` knows a distribution `ray`. `raylet run script.py`
does the same for a program that is not to be touched. This file must not change what the modules do.
"""

from __future__ import annotations

from ._private import alias


def install() -> None:
    """Makes `ray` mean this package, in this process and in the workers of sessions that begin later.

    Raises `RuntimeError` where Ray itself is imported already.
    """
    alias.install()


def uninstall() -> None:
    """Takes the name away again."""
    alias.uninstall()


def is_installed() -> bool:
    """Whether `ray` means this package in this process."""
    return alias.is_installed()


__all__ = ["install", "is_installed", "uninstall"]

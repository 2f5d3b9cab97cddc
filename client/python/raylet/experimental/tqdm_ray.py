"""Progress bars of workers, drawn by the driver.

The one thing to know: a worker prints a line with a mark and JSON, which the driver draws instead of printing.

This module must not import tqdm: a bar is a line of text that is written over.
"""

from __future__ import annotations

import json
import os
import sys
import time
import uuid
from collections.abc import Iterable, Iterator
from typing import Any

MAGIC = "__ray_tqdm_magic_token__"
INTERVAL_SECONDS = 0.1
WIDTH = 30


class tqdm:
    """A progress bar over an iterable, or by hand with `update`."""

    def __init__(
        self,
        iterable: Iterable[Any] | None = None,
        desc: str | None = None,
        total: int | None = None,
        unit: str | None = None,
        position: int | None = None,
        flush_interval_s: float | None = None,
    ) -> None:
        if total is None and hasattr(iterable, "__len__"):
            total = len(iterable)  # type: ignore[arg-type]
        self._iterable = iterable
        self._desc = desc or ""
        self._total = total
        self._unit = unit or "it"
        self._x = 0
        self._closed = False
        self._id = uuid.uuid4().hex
        self._printed = 0.0
        self._show()

    def __iter__(self) -> Iterator[Any]:
        for item in self._iterable or ():
            yield item
            self.update(1)

    def set_description(self, desc: str) -> None:
        """The text before the bar."""
        self._desc = desc
        self._show()

    def update(self, n: int = 1) -> None:
        """Go on by so many."""
        self._x += n
        if time.monotonic() - self._printed >= INTERVAL_SECONDS:
            self._show()

    def refresh(self) -> None:
        """Draw it now."""
        self._show()

    def close(self) -> None:
        """Leave the bar as it is."""
        if not self._closed:
            self._closed = True
            self._show()

    def __enter__(self) -> tqdm:
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()

    def _show(self) -> None:
        self._printed = time.monotonic()
        state = {
            "__magic_token__": MAGIC,
            "x": self._x,
            "total": self._total,
            "desc": self._desc,
            "unit": self._unit,
            "closed": self._closed,
            "uuid": self._id,
            "pid": os.getpid(),
        }
        from .._private import session

        current = session.current()
        if current is not None and current.kind == "worker":
            print(json.dumps(state), flush=True)
        else:
            draw(json.dumps(state))


def draw(text: str) -> None:
    """On the driver: draw the bar of a line."""
    try:
        state = json.loads(text)
    except ValueError:
        return
    x, total = state["x"], state["total"]
    done = f"{x}/{total}" if total else str(x)
    filled = int(WIDTH * x / total) if total else 0
    end = "\n" if state["closed"] else ""
    sys.stderr.write(f"\r{state['desc']}: [{'#' * filled:<{WIDTH}}] {done} {state['unit']}{end}")
    sys.stderr.flush()


def safe_print(*args: Any, **kwargs: Any) -> None:
    """Print without disturbing bars."""
    print(*args, **kwargs)

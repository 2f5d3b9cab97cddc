"""What workers print, shown on the driver as `(name pid=123) text`.

The one thing to know: equal lines of several workers within five seconds are shown once, with their number, unless
RAY_DEDUP_LOGS=0; the prefix is cyan unless RAY_COLOR_PREFIX=0.

This module must not hold lines back for longer than that, nor at the end of the session.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from typing import TextIO

WINDOW_SECONDS = 5.0
CYAN, RESET = "\x1b[36m", "\x1b[0m"
# Lines of progress bars, which are drawn, not printed.
TQDM_MAGIC = "__ray_tqdm_magic_token__"


class _Repeated:
    """A line that more than one worker printed."""

    def __init__(self, until: float) -> None:
        self.until = until
        self.count = 0
        self.pids: set[int] = set()
        self.last: tuple[str, int, bool, str] | None = None


class Printer:
    """Prints lines of workers, equal ones once."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.seen: dict[str, _Repeated] = {}

    def show(self, lines: list[tuple[str, int, bool, str]]) -> None:
        """Print lines: name, pid, whether it was stderr, text."""
        with self.lock:
            now = time.monotonic()
            self._release(now)
            is_folding = os.environ.get("RAY_DEDUP_LOGS", "1") != "0"
            for line in lines:
                if TQDM_MAGIC in line[3]:
                    _draw(line[3])
                elif is_folding and line[3].strip():
                    self._fold(line, now)
                else:
                    _print(line, "")
            _flush_streams()

    def _fold(self, line: tuple[str, int, bool, str], now: float) -> None:
        known = self.seen.get(line[3])
        if known is None or line[1] in known.pids and known.count == 0 and len(known.pids) == 1:
            # New, or the same worker again: its own repetitions are all shown.
            self.seen.setdefault(line[3], _Repeated(now + WINDOW_SECONDS)).pids.add(line[1])
            _print(line, "")
            return
        known.pids.add(line[1])
        known.count += 1
        known.last = line

    def _release(self, now: float, is_end: bool = False) -> None:
        for text in [text for text, known in self.seen.items() if is_end or known.until <= now]:
            known = self.seen.pop(text)
            if known.last is not None:
                times = "" if known.count == 1 else f" [repeated {known.count}x across cluster]"
                _print(known.last, times)

    def flush(self) -> None:
        """Print what is held back."""
        with self.lock:
            self._release(time.monotonic(), is_end=True)
            _flush_streams()


def _print(line: tuple[str, int, bool, str], tail: str) -> None:
    name, pid, is_error, text = line
    stream: TextIO | None = sys.stderr if is_error else sys.stdout
    if stream is None:
        return
    before, after = (CYAN, RESET) if os.environ.get("RAY_COLOR_PREFIX") != "0" else ("", "")
    # The raylet's own notices are of no process that the program started.
    label = f"{name} pid={pid}".strip() if pid else name
    shown_tail = f"{before}{tail}{after}" if tail else ""
    try:
        stream.write(f"{before}({label}){after} {text}{shown_tail}\n")
    except (ValueError, OSError):
        # The program closed the stream.
        pass


def _flush_streams() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (ValueError, OSError, AttributeError):
            pass


def _draw(text: str) -> None:
    from ..experimental import tqdm_ray

    tqdm_ray.draw(text)


_printer: Printer | None = None


def printer() -> Printer:
    """The one printer of this process."""
    global _printer
    if _printer is None:
        _printer = Printer()
    return _printer


def show(lines: list[tuple[str, int, bool, str]]) -> None:
    """Print lines of workers."""
    printer().show(lines)


def flush() -> None:
    """Print what is held back."""
    if _printer is not None:
        _printer.flush()

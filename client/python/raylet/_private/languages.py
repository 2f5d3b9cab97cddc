"""Small public types that say how something is to be done: languages, logging.

The one thing to know: there is one language here; logging settings are applied to the logger "ray" and the root.
"""

from __future__ import annotations

import enum
import logging
from dataclasses import dataclass, field


class Language(enum.IntEnum):
    """What a task is written in."""

    PYTHON = 0
    JAVA = 1
    CPP = 2


@dataclass
class LoggingConfig:
    """How the driver's and the workers' records are written: `encoding` "TEXT" or "JSON"."""

    encoding: str = "TEXT"
    log_level: str = "INFO"
    additional_log_standard_attrs: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.encoding not in ("TEXT", "JSON"):
            raise ValueError(f"Invalid encoding type: {self.encoding}. Valid encoding types are: ['TEXT', 'JSON']")

    def _apply(self) -> None:
        logging.getLogger().setLevel(self.log_level)


def show_in_dashboard(message: str, key: str = "", dtype: str = "text") -> None:
    """There is no dashboard: nothing is shown."""

"""Warnings about what the program does, shown at the program's own line.

The one thing to know: Python shows a DeprecationWarning only where the line is the program's, so that one that names a
line of this package is never seen.

This module must not be imported before there is something to warn of.
"""

from __future__ import annotations

import sys
import warnings


def warn(text: str, category: type[Warning] = DeprecationWarning) -> None:
    """Warn of the line of the program from which this package was called."""
    from .errors import is_own_file

    level, frame = 1, sys._getframe()
    while frame.f_back is not None and is_own_file(frame.f_code.co_filename):
        level, frame = level + 1, frame.f_back
    warnings.warn(text, category, stacklevel=level)

"""Arrays made in the store, to be written there and put without a copy.

The one thing to know: what is made here is an ordinary NumPy array over a buffer of the extension, which knows it again
by its address when it is put. This module must not import NumPy before an array is asked for.
"""

from __future__ import annotations

import math
import operator
import sys
from typing import TYPE_CHECKING, Any, Literal, SupportsIndex

from .. import _native
from . import api

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy


def empty(
    shape: SupportsIndex | Iterable[SupportsIndex], dtype: Any = float, order: Literal["C", "F"] = "C"
) -> numpy.ndarray[Any, Any]:
    """Make an array in the store, to be filled and then put without a copy.

    As `numpy.empty`: the array may be written to, and holds what was in the memory. `put` of the whole of it, also
    reshaped or viewed as another dtype, seals the object and copies nothing. Afterwards it is the program's own: what
    is written to it then is not seen by anybody else (a page that is written to becomes a copy), and putting it again
    copies. As an argument of a task it is put, too, unless it is small; what a task returns is copied. Put arrays keep
    their object in memory, also where the store would move it to disk, until they are gone. An array that is dropped
    without a put leaves nothing. In a forked child the array is a private view, which it puts like any array: what the
    child writes stays there, and the rest shows the parent's array, as long as the parent has that.

    What it saves is memory: there is no second copy. Of time it takes about as much as a put that copies, as mapping
    pages costs what copying them costs, and more for arrays of less than tens of megabytes.

    Raises ImportError without NumPy, TypeError for a dtype of Python objects, ValueError for a shape or an order that
    makes no sense, `ObjectStoreFullError` where there is no room.
    """
    try:
        import numpy
    except ImportError as error:
        raise ImportError("raylet.empty makes NumPy arrays, and there is no NumPy: pip install numpy") from error
    kind = numpy.dtype(dtype)
    if kind.hasobject:
        raise TypeError(
            f"an array of {kind} holds Python objects, which have no bytes to be written in the store: make it with "
            "numpy.empty, and `put` pickles it"
        )
    sizes = _sizes(shape)
    if order not in ("C", "F"):
        raise ValueError(f"order is 'C' or 'F', not {order!r}")
    # Of a dtype without a length NumPy makes the shortest: "U" is "U1".
    template = numpy.empty((0,) * len(sizes), kind, order)
    kind, sizes = template.dtype, sizes + template.shape[len(sizes) :]
    count = math.prod(sizes) * kind.itemsize
    if not count:
        return numpy.empty(sizes, kind, order)
    if count > sys.maxsize:
        raise ValueError(f"an array of {count} bytes is larger than memory can be")
    api._begin()
    memory: Any = _native.empty(template, len(sizes), count)
    return numpy.ndarray(sizes, kind, memory, order=order)


def _sizes(shape: SupportsIndex | Iterable[SupportsIndex]) -> tuple[int, ...]:
    try:
        sizes = tuple(operator.index(size) for size in shape)  # type: ignore[union-attr]
    except TypeError:
        sizes = (operator.index(shape),)  # type: ignore[arg-type]
    if any(size < 0 for size in sizes):
        raise ValueError(f"negative dimensions are not allowed: {sizes}")
    return sizes

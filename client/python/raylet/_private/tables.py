"""Arrow tables written in the store: columns as NumPy arrays in their places, and one copy of what is not.

The one thing to know: the extension has the memory and knows the format, this module what an Arrow array is made of.
Nobody else sees the table before `finish`. This module must not import NumPy and pyarrow before a table is built.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

from .. import _native
from . import api

if TYPE_CHECKING:
    import numpy
    import pyarrow
    from pyarrow import types


def _import() -> None:
    """Import what tables are made of, for the functions of this module."""
    global numpy, pyarrow, types
    try:
        import numpy
        import pyarrow
        from pyarrow import types
    except ImportError as error:
        raise ImportError("raylet.ArrowBuilder needs NumPy and pyarrow: pip install numpy pyarrow") from error


class ArrowBuilder:
    """Write a table of one batch straight into the store, where Rust and Python read it in place.

    `builder["x"][:] = numbers` writes a column of numbers or times, all of whose rows are valid; `set` copies any
    column into its place, with its nulls. Each column is written, and `finish` gives the reference. Leaving the `with`
    without it gives the table up, and nothing of it remains.

    `schema` is a `pyarrow.Schema` of flat types: numbers, times, booleans, (large) strings and binaries, also of fixed
    size. `value_bytes` is how many bytes the values of string and binary columns may have together: one number for each
    such column, or a number by name. What is not used remains in the object.

    Raises ImportError without pyarrow, TypeError for what is no schema and for nested types, ValueError for numbers
    that make no sense, KeyError for names of no column, `ObjectStoreFullError` where there is no room.
    """

    def __init__(self, schema: Any, rows: int, value_bytes: int | Mapping[str, int] | None = None) -> None:
        _import()
        if not isinstance(schema, pyarrow.Schema):
            raise TypeError(f"the schema is a pyarrow.Schema, not {type(schema).__name__}")
        self._schema = schema
        self._rows = _count("rows", rows)
        self._unwritten = set(range(len(schema))) if rows else set()
        api._begin()
        self._draft = _native.BatchDraft(schema.serialize().to_pybytes(), self._rows, self._rooms(value_bytes))

    def _rooms(self, value_bytes: int | Mapping[str, int] | None) -> list[tuple[int, int]]:
        if value_bytes is None:
            return []
        if isinstance(value_bytes, Mapping):
            return [(self._index(name), _count(name, room)) for name, room in value_bytes.items()]
        room = _count("value_bytes", value_bytes)
        return [(at, room) for at, field in enumerate(self._schema) if _offset_kind(field.type)]

    def _index(self, name: str) -> int:
        at: int = self._schema.get_field_index(name)
        if at < 0:
            raise KeyError(f"{name!r} is not the name of one column: {', '.join(self._schema.names)}")
        return at

    def _places(self, at: int) -> tuple[Any, Any, Any]:
        places = self._draft.column(at)
        if places is None:
            raise ValueError("the table is finished, or was given up: there is nothing to be written any more")
        return places

    def __getitem__(self, name: str) -> numpy.ndarray[Any, Any]:
        """A column of numbers or times, to be written; it holds what was in the memory, and its rows are valid.

        After `finish` the array is the program's own, as one of `raylet.empty` after its put.
        """
        at = self._index(name)
        of_arrow = self._schema.field(at).type
        kind = _kind(of_arrow)
        if kind is None:
            raise TypeError(f"column {name!r} is {of_arrow}, which is no array in place: use set({name!r}, ...)")
        validity, _, values = self._places(at)
        _write(validity, None, self._rows)
        self._unwritten.discard(at)
        return numpy.ndarray((self._rows,), kind, values)

    def set(self, name: str, values: Any) -> None:
        """Copy a column into its place: an Arrow array, or what `pyarrow.array` makes one of.

        Raises ValueError where it has another number of rows, nulls that the schema does not allow, or more bytes than
        there is room for, and what pyarrow raises for values of another type.
        """
        at = self._index(name)
        field = self._schema.field(at)
        array = _array(values, field.type)
        if len(array) != self._rows:
            raise ValueError(f"column {name!r} has {len(array)} values, and the table {self._rows} rows")
        if array.null_count and not field.nullable:
            raise ValueError(f"column {name!r} has {array.null_count} nulls, and is not nullable")
        validity, offsets, places = self._places(at)
        if offsets is not None:
            _write_long(name, array, offsets, places)
        elif types.is_boolean(field.type):
            _bytes(places)[:] = _packed(array.fill_null(False))
        else:
            width = field.type.bit_width // 8
            _bytes(places)[:] = _part(array.buffers()[1], array.offset * width, self._rows * width)
        _write(validity, array if array.null_count else None, self._rows)
        self._unwritten.discard(at)

    def finish(self) -> Any:
        """Seal the table; its reference. Raises ValueError for columns that nobody wrote, and after the end."""
        if self._unwritten:
            names = ", ".join(repr(self._schema.field(at).name) for at in sorted(self._unwritten))
            raise ValueError(f"nobody wrote {names}: each column is written before the table is finished")
        ref = self._draft.finish()
        if ref is None:
            raise ValueError("the table is finished, or was given up, or is of another session or process")
        return ref

    def abort(self) -> None:
        """Give the table up. After `finish` this does nothing."""
        self._draft.abort()

    def __enter__(self) -> ArrowBuilder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, frames: TracebackType | None
    ) -> None:
        self.abort()


def _count(name: str, number: int) -> int:
    if number < 0:
        raise ValueError(f"{name} is not negative, and {number} is")
    return number


def _offset_kind(kind: Any) -> str | None:
    """The dtype of the offsets of a type that has such."""
    if types.is_string(kind) or types.is_binary(kind):
        return "i4"
    return "i8" if types.is_large_string(kind) or types.is_large_binary(kind) else None


def _kind(kind: Any) -> Any:
    """The dtype whose items are a column's values, where there is one."""
    if types.is_integer(kind) or types.is_floating(kind):
        return numpy.dtype(kind.to_pandas_dtype())
    if types.is_timestamp(kind) or types.is_duration(kind):
        return numpy.dtype(f"{'M' if types.is_timestamp(kind) else 'm'}8[{kind.unit}]")
    # Days are four bytes in Arrow, and eight in NumPy.
    return numpy.dtype("M8[ms]") if types.is_date64(kind) else None


def _array(values: Any, kind: Any) -> Any:
    array = values if isinstance(values, (pyarrow.Array, pyarrow.ChunkedArray)) else pyarrow.array(values, kind)
    if isinstance(array, pyarrow.ChunkedArray):
        array = array.combine_chunks()
    return array if array.type == kind else array.cast(kind)


def _bytes(place: Any) -> numpy.ndarray[Any, Any]:
    return numpy.ndarray((len(place),), "u1", place)


def _part(buffer: Any, start: int, count: int) -> numpy.ndarray[Any, Any]:
    """Some bytes of a buffer; Arrow has none at all where there are none."""
    return numpy.frombuffer(buffer, "u1", count, start) if count else numpy.empty(0, "u1")


def _packed(booleans: Any) -> numpy.ndarray[Any, Any]:
    return numpy.packbits(booleans.to_numpy(zero_copy_only=False).astype(bool), bitorder="little")


def _write(validity: Any, array: Any, rows: int) -> None:
    """Say which rows are valid: those of an array, or all."""
    if validity is not None and rows:
        _bytes(validity)[:] = 0xFF if array is None else _packed(array.is_valid())


def _write_long(name: str, array: Any, offsets: Any, place: Any) -> None:
    """Write values of any length, and where each begins."""
    if not len(array):
        return
    kind = numpy.dtype(_offset_kind(array.type))
    found = numpy.frombuffer(array.buffers()[1], kind, len(array) + 1, array.offset * kind.itemsize)
    first, count = int(found[0]), int(found[-1]) - int(found[0])
    if count > len(place):
        raise ValueError(
            f"the values of column {name!r} have {count} bytes, and there is room for {len(place)}: give "
            f"ArrowBuilder(..., value_bytes={{{name!r}: {count}}})"
        )
    numpy.subtract(found, first, out=numpy.ndarray(len(found), kind, offsets))
    _bytes(place)[:count] = _part(array.buffers()[2], first, count)

"""Values that the extension has no short way for, as a pickle and the buffers beside it.

The one thing to know: functions and classes of `__main__` and closures travel by value, what can be imported by
name, as cloudpickle decides; a registered serializer comes before everything else. This module must not import
cloudpickle before a value needs it, and must not know where the bytes go.
"""

from __future__ import annotations

import functools
import io
import pickle
from collections.abc import Callable
from typing import Any

_serializers: dict[type, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {}


def dumps(value: Any) -> tuple[bytes, list[pickle.PickleBuffer]]:
    """The value as protocol 5 and its buffers, which are not copied.

    Raises what the value's own code raises; `TypeError` or `pickle.PicklingError` for what cannot travel.
    """
    buffers: list[pickle.PickleBuffer] = []
    with io.BytesIO() as file:
        _pickler()(file, protocol=5, buffer_callback=buffers.append).dump(value)
        return file.getvalue(), buffers


@functools.cache
def _pickler() -> type:
    import cloudpickle

    class Pickler(cloudpickle.Pickler):
        """Cloudpickle's, after the registered serializers and the libraries that pickle by copying."""

        def reducer_override(self, value: Any) -> Any:
            kind = type(value)
            known = _serializers.get(kind)
            if known is not None:
                serialize, deserialize = known
                return deserialize, (serialize(value),)
            reduce = _REDUCERS.get((kind.__module__.partition(".")[0], kind.__name__))
            reduced = NotImplemented if reduce is None else reduce(value)
            return super().reducer_override(value) if reduced is NotImplemented else reduced

    return Pickler


def register_serializer(
    cls: type, *, serializer: Callable[[Any], Any], deserializer: Callable[[Any], Any]
) -> None:
    """Has instances of exactly `cls` travel as what `serializer` makes of them, in this process from now on.

    `deserializer` travels with each value and makes an instance of it again.
    """
    from raylet import _native

    _native._prefer_registered()
    _serializers[cls] = serializer, deserializer


def deregister_serializer(cls: type) -> None:
    """Takes back what was registered for `cls`; nothing happens where nothing was."""
    _serializers.pop(cls, None)


def explain(value: Any, before: str, behind: str, cause: BaseException) -> TypeError:
    """The error for a value that does not travel, with the report of what in it is to blame.

    `before` and `behind` stand around the value in the first line: "the put value", "".
    """
    from ..util.check_serialize import inspect_serializability

    report = io.StringIO()
    try:
        inspect_serializability(value, print_file=report)
    except Exception as other:  # The value's own code is run for the report, and may do anything.
        report.write(f"{cause}\n(no more can be said, as looking into it raised {type(other).__name__})\n")
    error = TypeError(f"Could not serialize {before} {_shown(value)}{behind}:\n{report.getvalue()}")
    error.__cause__ = cause
    return error


def _shown(value: Any) -> str:
    try:
        return repr(value)
    except Exception:
        return object.__repr__(value)


def _reduce_array(array: Any) -> Any:
    """What NumPy would write into the pickle gets a buffer, which is read in place: times, and strided items."""
    if array.dtype.kind in "mM":
        return _times, (array.view("i8"), array.dtype)
    return NotImplemented if array.flags.forc or array.dtype.hasobject else array.copy("C").__reduce_ex__(5)


def _times(numbers: Any, dtype: Any) -> Any:
    return numbers.view(dtype)


def _reduce_polars_frame(frame: Any) -> tuple:
    return _polars_frame, (frame.to_arrow(),)


def _polars_frame(table: Any) -> Any:
    import polars

    return polars.from_arrow(table)


def _reduce_polars_series(series: Any) -> tuple:
    return _polars_series, (series.name, series.to_arrow())


def _polars_series(name: str, array: Any) -> Any:
    import polars

    return polars.Series(name, array)


def _reduce_arrow_table(table: Any) -> Any:
    """A slice would take all of its table along: where that is much, its own rows travel instead."""
    if 2 * table.nbytes >= table.get_total_buffer_size():
        return NotImplemented
    import pyarrow

    sink = pyarrow.BufferOutputStream()
    with pyarrow.ipc.new_stream(sink, table.schema) as writer:
        writer.write(table)
    return (_arrow_table if isinstance(table, pyarrow.Table) else _arrow_batch), (sink.getvalue(),)


def _arrow_table(stream: Any) -> Any:
    import pyarrow

    return pyarrow.ipc.open_stream(stream).read_all()


def _arrow_batch(stream: Any) -> Any:
    import pyarrow

    return pyarrow.ipc.open_stream(stream).read_next_batch()


# By package and class name: what these libraries do themselves copies the data into the pickle.
_REDUCERS: dict[tuple[str, str], Callable[[Any], tuple]] = {
    ("numpy", "ndarray"): _reduce_array,
    ("pyarrow", "RecordBatch"): _reduce_arrow_table,
    ("pyarrow", "Table"): _reduce_arrow_table,
    ("polars", "DataFrame"): _reduce_polars_frame,
    ("polars", "Series"): _reduce_polars_series,
}

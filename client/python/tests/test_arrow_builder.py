"""Tables that are written in the store: read by pyarrow and by the Rust decoder, unseen before and safe after the end.

The one thing to know: the Rust decoder reads where pyarrow is hidden, and checks every offset and every text. This file
must not test how tables are read; `test_zero_copy` does.
"""

import datetime
import decimal
import gc
import sys

import pytest
from support import LIMIT_S, object_count, run_program, until
from test_zero_copy import addresses, is_in_store

import raylet

np = pytest.importorskip("numpy")
pa = pytest.importorskip("pyarrow")

ROWS = 1000
DAY = datetime.date(2026, 1, 1)
COLUMNS = {
    "int8": (pa.int8(), [n % 100 for n in range(ROWS)]),
    "uint64": (pa.uint64(), list(range(ROWS))),
    "half": (pa.float16(), [np.float16(n) for n in range(ROWS)]),
    "double": (pa.float64(), [n / 3 for n in range(ROWS)]),
    "flag": (pa.bool_(), [n % 3 == 0 for n in range(ROWS)]),
    "text": (pa.string(), ["ü" * (n % 5) for n in range(ROWS)]),
    "blob": (pa.large_binary(), [b"x" * (n % 7) for n in range(ROWS)]),
    "hash": (pa.binary(4), [b"%04d" % n for n in range(ROWS)]),
    "time": (pa.timestamp("us", "UTC"), [datetime.datetime(2026, 1, 1, 0, n % 60) for n in range(ROWS)]),
    "day": (pa.date32(), [DAY + datetime.timedelta(n) for n in range(ROWS)]),
    "span": (pa.duration("s"), [datetime.timedelta(seconds=n) for n in range(ROWS)]),
    "price": (pa.decimal128(10, 2), [decimal.Decimal(n) / 4 for n in range(ROWS)]),
}
BYTES = 20_000


def get(ref):
    """As `raylet.get`, but a hang is an error."""
    return raylet.get(ref, timeout=LIMIT_S)


def read_by_rust(ref):
    """The table as the Rust decoder has it, every value checked."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "pyarrow", None)
        found = get(ref)
    assert type(found) is not pa.Table
    return pa.table(found)


def check(ref, expected):
    """Both readers find that table, in the store."""
    for found in (read_by_rust(ref), get(ref)):
        found.validate(full=True)
        assert found.equals(expected) and found.schema.equals(expected.schema)
        for name in found.column_names:
            assert all(map(is_in_store, addresses(found[name])))


@pytest.mark.parametrize("name", COLUMNS)
@pytest.mark.parametrize("has_nulls", [False, True])
def test_a_column_of_each_type(session, name, has_nulls):
    """Whole and sliced arrays, chunks, and lists arrive, with their nulls."""
    kind, values = COLUMNS[name]
    values = [None if has_nulls and n % 4 == 1 else value for n, value in enumerate(values)]
    whole = pa.array(values, kind)
    schema = pa.schema([pa.field("c", kind, has_nulls)])
    ways = [
        whole,
        pa.concat_arrays([whole[:13], whole])[13:],
        pa.chunked_array([whole[:7], whole[7:]]),
        values,
    ]
    for way in ways:
        builder = raylet.ArrowBuilder(schema, ROWS, value_bytes=BYTES)
        builder.set("c", way)
        check(builder.finish(), pa.table({"c": whole}, schema))


def test_columns_in_place(session):
    """Numbers and times are written as arrays, beside columns that are copied; nothing else is an object."""
    schema = pa.schema(
        [
            pa.field("id", pa.int64(), False),
            ("value", pa.float32()),
            ("time", pa.timestamp("ns")),
            ("text", pa.string()),
            ("flag", pa.bool_()),
        ],
        metadata={"made": "here"},
    )
    before = object_count()
    with raylet.ArrowBuilder(schema, ROWS, value_bytes={"text": 6000}) as builder:
        for name in ("id", "value", "time"):
            column = builder[name]
            assert column.flags.writeable and column.ctypes.data % 64 == 0 and is_in_store(column.ctypes.data)
            column[:] = range(ROWS)
        builder.set("flag", np.arange(ROWS) % 2 == 0)
        builder.set("text", [f"{n}" for n in range(ROWS)])
        ref = builder.finish()
    assert object_count() == before + 1
    numbers = np.arange(ROWS)
    columns = [numbers, numbers.astype("f4"), numbers.astype("M8[ns]"), [f"{n}" for n in range(ROWS)], numbers % 2 == 0]
    check(ref, pa.table(dict(zip(schema.names, columns)), schema))
    assert get(ref).schema.metadata == {b"made": b"here"}
    assert get(raylet.remote(lambda table: table["id"].to_numpy().sum()).remote(ref)) == 499_500


def test_a_column_may_be_written_twice(session):
    """The last values and nulls count."""
    schema = pa.schema([("a", pa.int32()), ("s", pa.string())])
    builder = raylet.ArrowBuilder(schema, 3, value_bytes=10)
    builder.set("a", [None, 1, None])
    builder.set("s", ["long text", None, ""])
    builder["a"][:] = [4, 5, 6]
    builder.set("s", ["a", "b", "c"])
    check(builder.finish(), pa.table({"a": [4, 5, 6], "s": ["a", "b", "c"]}, schema))


def test_writes_after_the_end_never_reach_a_reader(session):
    """An array of a column is the program's own then."""
    builder = raylet.ArrowBuilder(pa.schema([("a", pa.int64())]), 100_000)
    column = builder["a"]
    column[:] = 1
    ref = builder.finish()
    table = get(ref)
    column[:] = 2
    assert table["a"].to_numpy().sum() == get(ref)["a"].to_numpy().sum() == 100_000
    with pytest.raises(ValueError, match="finished"):
        builder["a"]
    with pytest.raises(ValueError, match="finished"):
        builder.set("a", np.zeros(100_000, "i8"))
    with pytest.raises(ValueError, match="finished"):
        builder.finish()
    del table, ref
    gc.collect()
    assert column.sum() == 200_000


def test_what_is_given_up_leaves_nothing(session):
    """By abort, by an error, by a forgotten finish, by the last reference."""
    before = object_count()
    schema = pa.schema([("a", pa.int64())])
    raylet.ArrowBuilder(schema, 100_000)["a"][:] = 1
    builder = raylet.ArrowBuilder(schema, 100_000)
    builder.abort()
    builder.abort()
    with pytest.raises(ValueError, match="given up"):
        builder["a"]
    with pytest.raises(ZeroDivisionError), raylet.ArrowBuilder(schema, 100_000) as builder:
        builder["a"][:] = 1
        1 / 0  # noqa: B018
    with raylet.ArrowBuilder(schema, 100_000) as builder:
        builder["a"][:] = 1
    del builder
    until(lambda: gc.collect() >= 0 and object_count() == before)


def test_tables_without_rows_or_columns(session):
    """They are tables, too; nothing is left to be written."""
    schema = pa.schema([("a", pa.int64()), ("s", pa.string()), ("f", pa.bool_())])
    builder = raylet.ArrowBuilder(schema, 0)
    assert len(builder["a"]) == 0
    builder.set("s", [])
    builder.set("f", pa.array([], pa.bool_()))
    check(builder.finish(), schema.empty_table())
    check(raylet.ArrowBuilder(schema, 0).finish(), schema.empty_table())
    assert get(raylet.ArrowBuilder(pa.schema([]), 0).finish()).num_columns == 0


def test_what_makes_no_sense_is_refused(session):
    """With the names and numbers; the table can still be written."""
    schema = pa.schema([pa.field("id", pa.int64(), False), ("text", pa.string())])
    with pytest.raises(TypeError, match="pyarrow.Schema"):
        raylet.ArrowBuilder({"a": "i8"}, 3)
    with pytest.raises(TypeError, match="cannot be built"):
        raylet.ArrowBuilder(pa.schema([("a", pa.list_(pa.int8()))]), 3)
    with pytest.raises(ValueError, match="rows"):
        raylet.ArrowBuilder(schema, -1)
    with pytest.raises(KeyError, match="other"):
        raylet.ArrowBuilder(schema, 3, value_bytes={"other": 3})
    with pytest.raises(TypeError, match="column 0"):
        raylet.ArrowBuilder(schema, 3, value_bytes={"id": 3})
    with pytest.raises(raylet.exceptions.ObjectStoreFullError, match="bytes"):
        raylet.ArrowBuilder(schema, 50_000_000)
    builder = raylet.ArrowBuilder(schema, 3, value_bytes=5)
    with pytest.raises(KeyError, match="other"):
        builder["other"]
    with pytest.raises(TypeError, match="use set"):
        builder["text"]
    with pytest.raises(ValueError, match="2 values.*3 rows"):
        builder.set("id", [1, 2])
    with pytest.raises(ValueError, match="1 nulls"):
        builder.set("id", [1, None, 3])
    with pytest.raises(ValueError, match="6 bytes.*room for 5"):
        builder.set("text", ["ab", "cd", "ef"])
    with pytest.raises(ValueError, match="nobody wrote 'id', 'text'"):
        builder.finish()
    builder["id"][:] = [1, 2, 3]
    builder.set("text", ["abc", None, "de"])
    check(builder.finish(), pa.table({"id": [1, 2, 3], "text": ["abc", None, "de"]}, schema))


def test_polars_reads_it_in_place(session):
    """With pyarrow's table, and by the capsule."""
    pl = pytest.importorskip("polars")
    builder = raylet.ArrowBuilder(pa.schema([("a", pa.int64())]), ROWS)
    builder["a"][:] = range(ROWS)
    ref = builder.finish()
    del builder
    for table in (get(ref), read_by_rust(ref)):
        assert is_in_store(pl.DataFrame(table)["a"].to_numpy(allow_copy=False).ctypes.data)


def test_without_pyarrow(tmp_path):
    """The error says what to install, and comes with the first table: the name alone imports nothing."""
    text = """
        import sys
        from raylet import *
        assert "pyarrow" not in sys.modules and "numpy" not in sys.modules
        sys.modules["pyarrow"] = None
        try:
            ArrowBuilder(None, 3)
        except ImportError as error:
            print(error)
    """
    out, _ = run_program(tmp_path, text)
    assert "pip install numpy pyarrow" in out

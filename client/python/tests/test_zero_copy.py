"""Values that are read where they lie: NumPy, Arrow, pandas, polars and plain buffers as views of the store.

The one thing to know: an address tells it: inside the store's memory, the same for two reads, a multiple of 64. This
file must not test what travels; `test_codec` does.
"""

import gc
import io
import os
import pickle
import re
import sys
import threading
from pathlib import Path

import pytest
from support import get, object_count, until, used_bytes

import raylet

np = pytest.importorskip("numpy")

DATA = "/memfd:raylet-data"
ALIGNMENT = 64
ARRAYS = {
    "bytes": np.arange(256, dtype="u1"),
    "small": np.arange(3),
    "floats": np.linspace(0, 1, 100_001),
    "complex": np.ones((3, 4, 5), dtype="c16"),
    "fortran": np.asfortranarray(np.arange(12.0).reshape(3, 4)),
    "booleans": np.zeros((7, 11), dtype=bool),
    "records": np.zeros(10, dtype=[("a", "i4"), ("b", "f8")]),
    "texts": np.array(["a", "text"]),
    "half": np.arange(9, dtype="f2"),
    "empty": np.empty((0, 5)),
}


def address_of(buffer):
    """Where the bytes of something that has a buffer are."""
    return np.frombuffer(buffer, dtype="u1").ctypes.data


def is_in_store(address):
    """Whether an address is in the memory of the store."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        first, last = (int(part, 16) for part in line.split()[0].split("-"))
        if first <= address < last:
            return DATA in line
    return False


def check_view(array):
    """An array is a read-only, aligned view of the store."""
    assert not array.flags.writeable
    if array.size:
        assert array.ctypes.data % ALIGNMENT == 0 and is_in_store(array.ctypes.data)


# NumPy --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_of_a_put(session, name):
    """Two reads give two views of the same bytes, which nobody can write to."""
    array = ARRAYS[name]
    ref = raylet.put(array)
    one, two = get(ref), get([ref])[0]
    check_view(one)
    assert one.ctypes.data == two.ctypes.data or not one.size
    assert one.dtype == array.dtype and one.shape == array.shape
    assert one.strides == array.strides or not array.size
    np.testing.assert_array_equal(one, array)
    if array.size:
        with pytest.raises(ValueError, match="read-only"):
            one[(0,) * one.ndim] = array[(0,) * one.ndim]
        with pytest.raises(ValueError, match="WRITEABLE"):
            one.flags.writeable = True


def place_of(array):
    """Whether an array lies in the store, how far from a multiple of the alignment, whether it is writable."""
    return is_in_store(array.ctypes.data), array.ctypes.data % ALIGNMENT, array.flags.writeable


@raylet.remote
def places(*arrays, **named):
    """Where arguments lie in the process of a task."""
    return [place_of(array) for array in (*arrays, *named.values())]


@raylet.remote
class Maker:
    """Makes arrays."""

    def make(self, size):
        return np.arange(size)

    def places(self, *arrays):
        return [place_of(array) for array in arrays]


def test_arrays_in_tasks_and_actors(session):
    """Arguments by reference and by value, and results, are views, too."""
    array = np.arange(100_000)
    ref, maker = raylet.put(array), Maker.remote()
    expected = [(True, 0, False)]
    assert get(places.remote(ref, array, named=ref)) == expected * 3
    assert get(maker.places.remote(ref, array)) == expected * 2
    for made in (maker.make.remote(50_000), maker.make.remote(3), raylet.remote(lambda: np.arange(9)).remote()):
        check_view(get(made))


def test_arrays_inside_of_values(session):
    """Buffers deep in a value lie in the store as well, each aligned."""
    value = {"a": [np.arange(1000), (np.ones(77), "x")], 5: {"deep": np.zeros((3, 3))}}
    back = get(raylet.put(value))
    for array in (back["a"][0], back["a"][1][0], back[5]["deep"]):
        check_view(array)
    assert get(places.remote(*(get(raylet.put([np.arange(n) for n in (1, 10, 1000)]))))) == [(True, 0, False)] * 3


def test_a_slice_is_sent_alone(session):
    """What is not contiguous is made so; the rest of its base is not sent."""
    array = np.arange(1_000_000).reshape(1000, 1000)
    before = used_bytes()
    refs = [raylet.put(array[:, 3]), raylet.put(array[5]), raylet.put(array[::100, ::100])]
    assert used_bytes() - before < 50_000
    for ref, expected in zip(refs, (array[:, 3], array[5], array[::100, ::100])):
        np.testing.assert_array_equal(get(ref), expected)


def test_a_view_keeps_its_bytes(session):
    """The memory of an object is in use as long as a view of it, or of a part of it, is anywhere."""
    before = used_bytes()
    view = get(raylet.put(np.arange(500_000)))
    tail = view[-3:]
    del view
    gc.collect()
    for n in range(30):
        raylet.put(np.full(500_000, n))
    assert list(tail) == [499_997, 499_998, 499_999] and used_bytes() > before + 4_000_000
    del tail
    until(lambda: gc.collect() >= 0 and used_bytes() < before + 100_000)


def test_views_outlive_their_session(start):
    """After shutdown an array is still there to be read: nothing crashes, nothing changes."""
    start()
    view = get(raylet.put(np.arange(100_000)))
    nested = get(raylet.put({"a": np.ones(100_000)}))["a"]
    raylet.shutdown()
    start()
    refs = [raylet.put(np.zeros(100_000)) for _ in range(10)]
    assert int(view.sum()) == 4_999_950_000 and float(nested.sum()) == 100_000 and len(refs) == 10


def test_views_in_threads(session):
    """Many threads that read and drop one object agree on it."""
    ref = raylet.put(np.arange(10_000))
    sums = []

    def reads():
        for _ in range(200):
            sums.append(int(raylet.get(ref)[1000:2000].sum()))

    threads = [threading.Thread(target=reads) for _ in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert set(sums) == {1_499_500} and len(sums) == 800


def test_arrays_of_objects_are_copies(session):
    """An array of Python objects has no bytes to be shared: it comes back as a copy of its own."""
    back = get(raylet.put(np.array([1, "a", None], dtype=object)))
    assert list(back) == [1, "a", None] and back.dtype == object


# Private views ---------------------------------------------------------------------


def test_copy_on_write(session):
    """A private view may be written to; only pages that are written to are copied, and nobody else sees it."""
    ref = raylet.put(np.zeros(1_000_000))
    private, shared = raylet.get(ref, writable="copy_on_write"), get(ref)
    assert private.flags.writeable and not np.shares_memory(private, shared) and private.ctypes.data % ALIGNMENT == 0
    assert private_kib(private) < 100
    private[:1000] = -1
    assert private_kib(private) < 300
    assert shared[0] == 0 and get(ref)[0] == 0 and private[1000] == 0
    [again] = raylet.get([ref], writable="copy_on_write")
    assert again[0] == 0 and again.flags.writeable
    del ref, shared, again
    gc.collect()
    raylet.put(np.ones(1_000_000))
    assert private[0] == -1 and private[-1] == 0
    with pytest.raises(ValueError, match="copy_on_write"):
        raylet.get(raylet.put(1), writable="yes")
    assert raylet.get(raylet.put([1, "plain"]), writable="copy_on_write") == [1, "plain"]


def private_kib(array):
    """KiB that the mapping of an array has for itself, as the kernel counts."""
    lines = iter(Path("/proc/self/smaps").read_text().splitlines())
    for line in lines:
        place = re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line)
        if place and int(place[1], 16) <= array.ctypes.data < int(place[2], 16):
            return next(int(line.split()[1]) for line in lines if line.startswith("Anonymous:"))
    raise AssertionError("not mapped")


def test_copy_on_write_in_a_task(session):
    """A worker has private views as well."""
    ref = raylet.put(np.zeros(100_000))

    @raylet.remote
    def writes(nested):
        array = raylet.get(nested[0], writable="copy_on_write")
        array += 1
        return float(array.sum())

    assert get([writes.remote([ref]) for _ in range(3)]) == [100_000.0] * 3
    assert float(get(ref).sum()) == 0


# Made in the store ------------------------------------------------------------------


def test_arrays_made_in_the_store(session):
    """`raylet.empty` gives an array that is written in place and put without a copy."""
    array = raylet.empty((1000, 100), "f8")
    array[:] = 7
    place = array.ctypes.data
    assert array.flags.writeable and is_in_store(place)
    back = get(raylet.put(array))
    check_view(back)
    assert float(back.sum()) == 700_000


# Buffers ----------------------------------------------------------------------------


def test_buffers_are_views(session):
    """A pickle buffer comes back as something with a read-only buffer over the store, good for any library."""
    ref = raylet.put(pickle.PickleBuffer(b"0123456789" * 1000))
    one, two = get(ref), get(ref)
    with memoryview(one) as view:
        assert view.readonly and bytes(view[:10]) == b"0123456789" and view.nbytes == len(one) == 10_000
    assert address_of(one) == address_of(two) and is_in_store(address_of(one)) and address_of(one) % ALIGNMENT == 0
    with pytest.raises((BufferError, TypeError)):
        io.BytesIO(b"x").readinto(one)
    assert int(np.frombuffer(one, "u1")[1]) == ord("1") and re.match(rb"01+2", memoryview(one)) is not None


class Image:
    """Something with a buffer of its own that travels outside of the pickle."""

    def __init__(self, pixels):
        self.pixels = pixels

    def __reduce_ex__(self, protocol):
        return Image, (pickle.PickleBuffer(self.pixels),)


def test_buffers_of_own_classes(session):
    """Whatever gives pickle its buffers has them in the store."""
    back = get(raylet.put(Image(bytearray(b"pixels" * 10_000))))
    assert bytes(memoryview(back.pixels)[:6]) == b"pixels" and is_in_store(address_of(back.pixels))
    assert get(raylet.remote(lambda image: is_in_store(address_of(image.pixels))).remote(Image(bytes(100_000))))


# Arrow, pandas, polars -----------------------------------------------------------------


def addresses(column):
    """Where the buffers of an Arrow column are."""
    buffers = [buffer for chunk in column.chunks for buffer in chunk.buffers()]
    return [buffer.address for buffer in buffers if buffer is not None and buffer.size]


def test_tables_are_views(session):
    """A table's columns lie in the store, in every process the same bytes; two reads share them."""
    pa = pytest.importorskip("pyarrow")
    table = pa.table({"i": range(10_000), "f": [n / 7 for n in range(10_000)], "s": [str(n) for n in range(10_000)]})
    ref = raylet.put(table)
    one, two = get(ref), get(ref)
    assert one.equals(table) and one.schema == table.schema
    for name in table.column_names:
        places_of_one = addresses(one[name])
        assert places_of_one == addresses(two[name]) and all(map(is_in_store, places_of_one))
        assert all(place % ALIGNMENT == 0 for place in places_of_one)

    @raylet.remote
    def inside(table):
        found = [place for name in table.column_names for place in addresses(table[name])]
        return all(map(is_in_store, found)), table["i"].to_pylist()[-1]

    assert get(inside.remote(ref)) == get(inside.remote(table)) == (True, 9_999)
    column = get(ref)["i"].chunk(0).to_numpy(zero_copy_only=True)
    assert is_in_store(column.ctypes.data) and not column.flags.writeable


def test_tables_keep_their_bytes(session):
    """A column of a table that is gone is still there."""
    pa = pytest.importorskip("pyarrow")
    before = used_bytes()
    column = get(raylet.put(pa.table({"i": range(500_000)})))["i"]
    gc.collect()
    for n in range(20):
        raylet.put(np.full(500_000, n))
    assert column[499_999].as_py() == 499_999
    del column
    until(lambda: gc.collect() >= 0 and used_bytes() < before + 100_000)


def test_tables_travel_by_capsule(session):
    """What was read is an Arrow table to any library that takes the PyCapsule interface."""
    pa = pytest.importorskip("pyarrow")
    back = get(raylet.put(pa.table({"i": range(1000)})))
    again = pa.table(back)
    assert addresses(again["i"]) == addresses(back["i"]) and hasattr(back, "__arrow_c_stream__")


def put_table():
    """A reference to a table as another language puts it, and the table as pyarrow has it."""
    pa = pytest.importorskip("pyarrow")
    expected = pa.table({"i": range(10_000), "s": [str(n) for n in range(10_000)], "n": [None, 2.5] * 5_000})
    sink = io.BytesIO()
    with pa.ipc.new_file(sink, expected.schema) as file:
        for batch in expected.to_batches(max_chunksize=4_000):
            file.write(batch)
    return raylet._native._put_bytes(sink.getvalue(), 1, []), expected


def without_pyarrow(read, monkeypatch):
    """What a function gives where there is no pyarrow."""
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "pyarrow", None)
        return read()


def test_tables_without_pyarrow_travel_by_capsule(session, monkeypatch):
    """Without pyarrow a table of another language is something that any Arrow library reads in place."""
    ref, expected = put_table()
    with_it, without = get(ref), without_pyarrow(lambda: get(ref), monkeypatch)
    pa = pytest.importorskip("pyarrow")
    assert type(with_it) is pa.Table and type(without) is not pa.Table
    assert len(without) == 10_000 and pa.schema(without) == expected.schema
    first, second = pa.table(without), pa.table(without)
    assert first.equals(expected) and addresses(first["i"]) == addresses(second["i"])
    assert all(map(is_in_store, addresses(first["i"]) + addresses(first["s"]) + addresses(first["n"])))
    stream = without.__arrow_c_stream__()
    del stream
    column = first["s"]
    del with_it, without, first, second, ref
    gc.collect()
    for n in range(20):
        raylet.put(np.full(500_000, n))
    assert column.to_pylist() == expected["s"].to_pylist()


def test_a_table_without_pyarrow_keeps_its_bytes_until_it_is_gone(session, monkeypatch):
    """Also through columns that other libraries took."""
    pa = pytest.importorskip("pyarrow")
    objects = object_count()
    ref, _ = put_table()
    column = pa.table(without_pyarrow(lambda: get(ref), monkeypatch))["i"]
    del ref
    gc.collect()
    assert object_count() == objects + 1 and column[9_999].as_py() == 9_999
    del column
    until(lambda: gc.collect() >= 0 and object_count() == objects)


def test_polars_reads_tables_without_pyarrow(session, monkeypatch):
    """A frame over the capsule shares its numbers with the store."""
    pl = pytest.importorskip("polars")
    ref, expected = put_table()
    frame = without_pyarrow(lambda: pl.DataFrame(get(ref)), monkeypatch)
    assert frame.shape == (10_000, 3) and frame["n"].null_count() == 5_000
    assert frame["s"].to_list() == expected["s"].to_pylist()
    assert is_in_store(frame["i"].get_chunks()[0].to_numpy(allow_copy=False).ctypes.data)


def test_bytes_that_are_no_table_are_refused(session, monkeypatch):
    """With or without pyarrow that is an error, not a crash."""
    pytest.importorskip("pyarrow")
    ref = raylet._native._put_bytes(b"ARROW1 but no more", 1, [])
    with pytest.raises(ValueError, match="cannot be read"):
        without_pyarrow(lambda: get(ref), monkeypatch)
    with pytest.raises(Exception, match=r"\w"):
        get(ref)


def test_frames_are_views(session):
    """The numbers of a frame lie in the store."""
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({"a": np.arange(10_000), "b": np.ones(10_000), "s": [f"{n}" for n in range(10_000)]})
    ref = raylet.put(frame)
    one, two = get(ref), get(ref)
    pd.testing.assert_frame_equal(one, frame)
    for name in ("a", "b"):
        place = one[name].to_numpy().ctypes.data
        assert is_in_store(place) and place == two[name].to_numpy().ctypes.data
    assert get(raylet.remote(lambda frame: float(frame["b"].sum())).remote(ref)) == 10_000.0


def test_polars_frames_are_views(session):
    """A polars frame shares its columns with the store."""
    pl = pytest.importorskip("polars")
    frame = pl.DataFrame({"a": np.arange(10_000), "s": [f"{n}" for n in range(10_000)]})
    one, two = (get(raylet.put(frame)) for _ in range(2))
    assert one.equals(frame) and two.equals(frame)
    assert is_in_store(one["a"].to_numpy(allow_copy=False).ctypes.data)


# Size does not matter ------------------------------------------------------------------


def test_large_values_are_read_without_memory(session):
    """Reading sixty megabytes takes none: the process grows by no page of its own."""
    ref = raylet.put(np.zeros(7_500_000, dtype="f8"))
    get(ref)
    before = anonymous_kib()
    views = [get(ref) for _ in range(50)]
    assert all(view[-1] == 0 for view in views) and anonymous_kib() - before < 20_000


def anonymous_kib():
    """KiB of memory that are this process's own."""
    return int(re.search(r"RssAnon:\s+(\d+) kB", Path(f"/proc/{os.getpid()}/status").read_text())[1])

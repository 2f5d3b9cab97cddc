"""Arrays that are written in the store: put without a copy, unseen afterwards, gone without a put.

The one thing to know: that nothing is copied shows in the kernel's own table, where a page that became the process's is
anonymous, and in the store, where there is no second object. This file must not test how arrays are read;
`test_zero_copy` does.
"""

import gc
import os
import re
import signal
import sys
import threading
from pathlib import Path

import pytest
from support import LIMIT_S, get, is_alive, object_count, run_program, start_program, until, used_bytes

import raylet

np = pytest.importorskip("numpy")

ITEMS = 500_000
SHAPES = {
    "one dimension": (1000, "f8", "C"),
    "rows": ((30, 40), "i4", "C"),
    "columns": ((30, 40), "i4", "F"),
    "one item": ((), "c16", "C"),
    "one byte": (1, "u1", "C"),
    "odd": ((3, 5, 7), "i2", "C"),
    "booleans": ((7, 11), bool, "C"),
    "records": (10, [("a", "i4"), ("b", "f8")], "C"),
    "parts": (10, ("i4", (2,)), "C"),
    "texts": (10, "U7", "C"),
    "shortest texts": (10, "U", "C"),
    "times": (50, "M8[ns]", "C"),
    "swapped": (50, ">f4", "C"),
    "large": (ITEMS, "f8", "C"),
}


def mapping_of(array):
    """The lines of the kernel's table about the mapping that an array begins in."""
    lines = iter(Path("/proc/self/smaps").read_text().splitlines())
    for line in lines:
        place = re.match(r"([0-9a-f]+)-([0-9a-f]+) (\S+)", line)
        if place and int(place[1], 16) <= array.ctypes.data < int(place[2], 16):
            return place[3], dict(re.findall(r"^(\w+): +(\d+) kB", "\n".join(next(lines) for _ in range(20)), re.M))
    raise AssertionError("not mapped")


def is_shared(array):
    """Whether what is written to an array reaches the store."""
    return mapping_of(array)[0].endswith("s")


def own_kib(array):
    """KiB of an array that are no pages of the store."""
    return int(mapping_of(array)[1]["Anonymous"])


def fill(array):
    """Write other bytes to each place; what they are."""
    content = (np.arange(array.nbytes) % 97).astype("u1").tobytes()
    # Booleans and texts do not take any bytes.
    wanted = np.frombuffer(content, "u1").reshape(-1)
    if array.dtype.kind in "bU":
        wanted = np.zeros_like(wanted)
    array.reshape(-1, order="A").view("u1").reshape(-1)[:] = wanted
    return array.copy(order="A")


def drained(before):
    """Wait until the store has no more objects than before."""
    until(lambda: gc.collect() >= 0 and object_count() <= before)


# A put ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", SHAPES)
def test_an_array_is_put_where_it_lies(session, name):
    """The object is the memory that was written to: one object, no page of the process's own."""
    shape, dtype, order = SHAPES[name]
    before = object_count()
    array = raylet.empty(shape, dtype, order)
    like = np.empty(shape, dtype, order)
    assert (array.shape, array.dtype, array.strides) == (like.shape, like.dtype, like.strides)
    assert type(array) is np.ndarray and array.flags.writeable and array.ctypes.data % 64 == 0
    assert is_shared(array)
    expected = fill(array)
    ref = raylet.put(array)
    assert object_count() == before + 1 and not is_shared(array) and own_kib(array) == 0
    back = get(ref)
    assert not back.flags.writeable and back.ctypes.data % 64 == 0
    assert (back.shape, back.dtype, back.strides) == (array.shape, array.dtype, array.strides)
    assert back.tobytes("A") == array.tobytes("A") == expected.tobytes("A")
    del array, back, ref
    drained(before)


def test_the_object_is_the_memory_that_was_written_to(session):
    """A reader's bytes are pages that the draft had: the same of the segment."""
    array = raylet.empty(ITEMS)
    at = place_in_segment(array)
    array[:] = 7
    back = get(raylet.put(array))
    assert place_in_segment(back) == at and float(back.sum()) == 7 * ITEMS

    @raylet.remote
    def inside(array):
        return place_in_segment(array), float(array.sum())

    assert get(inside.remote(raylet.put(back))) != (at, 7 * ITEMS)
    again = raylet.empty(ITEMS)
    again[:] = 3
    at = place_in_segment(again)
    assert get(inside.remote(raylet.put(again))) == (at, 3 * ITEMS)


def place_in_segment(array):
    """Where in the store's memory an array begins."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        first, last, offset = (int(part, 16) for part in re.match(r"(\w+)-(\w+) \S+ (\w+)", line).groups())
        if first <= array.ctypes.data < last and "/memfd:raylet-data" in line:
            return offset + array.ctypes.data - first
    raise AssertionError("not in the store")


def test_another_view_of_the_whole_is_put_in_place(session):
    """What counts is which bytes are put, not by which array."""
    views = [
        lambda array: array.reshape(500, 20),
        lambda array: array.view("i8"),
        lambda array: array.view("u1"),
        lambda array: array[:],
        lambda array: array.view("M8[s]"),
        lambda array: array.reshape((10,) * 4),
        lambda array: {"data": array, "name": "x"},
    ]
    for view in views:
        array = raylet.empty(10_000)
        array[:] = range(10_000)
        before = object_count()
        shown = view(array)
        back = get(raylet.put(shown))
        assert object_count() == before and not is_shared(array)
        if isinstance(shown, dict):
            back, shown = back["data"], shown["data"]
        np.testing.assert_array_equal(back, shown)
        assert place_in_segment(back) > 0
        del shown, back


def test_what_is_not_the_whole_is_copied(session):
    """A part, a transposed or turned array, one of two, and what names objects: as any value. The draft stays one."""
    array = raylet.empty((100, 100))
    array[:] = np.arange(10_000).reshape(100, 100)
    ref = raylet.put(1)
    values = [array[:50], array[1:], array[::2], array[::-1], array[:, 3], [array, np.arange(5)], [array, ref]]
    for value in values:
        back = get(raylet.put(value))
        first, shown = (back[0], value[0]) if isinstance(value, list) else (back, value)
        np.testing.assert_array_equal(first, shown)
        assert is_shared(array)
    huge = {"data": array, "text": "x" * 1000}
    assert get(raylet.put(huge))["text"] == huge["text"] and is_shared(array)
    back = get(raylet.put(array.T))
    np.testing.assert_array_equal(back, array.T)


def test_a_second_put_copies(session):
    """After the seal the array is the program's own: it may have been written to."""
    before = object_count()
    array = raylet.empty(ITEMS)
    array[:] = 1
    first = raylet.put(array)
    array[:10] = 2
    second = raylet.put(array)
    array[:10] = 3
    assert first != second and object_count() == before + 2
    assert [float(get(ref)[5]) for ref in (first, second)] == [1, 2] and array[5] == 3


def test_writes_after_the_put_never_reach_a_reader(session):
    """Neither through the array nor through views of it that were there before; only their pages are copied."""
    array = raylet.empty(ITEMS)
    array[:] = 1
    part, bytes_of_it = array[1000:2000], memoryview(array)
    ref = raylet.put(array)
    reader = get(ref)
    part[:] = -1
    array[-1] = -2
    bytes_of_it[0] = -3.0
    assert own_kib(array) <= 30
    assert float(reader.sum()) == float(get(ref).sum()) == ITEMS
    assert array[0] == -3 and array[-1] == -2 and array[1500] == -1 and array[5000] == 1
    assert get(raylet.remote(lambda array: float(array.sum())).remote(ref)) == ITEMS


def test_a_thread_that_goes_on_writing_changes_nothing(session):
    """Whatever it writes while the array is put, all reads of the object are alike."""
    for _ in range(20):
        array = raylet.empty(20_000, "i8")
        array[:] = 0
        is_over = threading.Event()
        thread = threading.Thread(target=write_on, args=(array, is_over))
        thread.start()
        ref = raylet.put(array)
        first = get(ref).copy()
        for _ in range(20):
            assert (get(ref) == first).all()
        is_over.set()
        thread.join()
        assert (get(ref) == first).all()


def write_on(array, is_over):
    while not is_over.is_set():
        array += 1


def test_threads_that_put_one_array(session):
    """One of them has it sealed, the others copies."""
    array = raylet.empty(100_000)
    array[:] = 5
    refs = []
    threads = [threading.Thread(target=lambda: refs.append(raylet.put(array))) for _ in range(8)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert len(set(refs)) == 8 and {float(get(ref).sum()) for ref in refs} == {500_000.0}


def test_many_arrays_at_once(session):
    """Each is its own, whatever order they are put and dropped in."""
    before = object_count()
    arrays = [raylet.empty(20, "i8") for _ in range(3000)]
    for n, array in enumerate(arrays):
        array[:] = n
    refs = {n: raylet.put(arrays[n]) for n in range(2999, -1, -3)}
    del arrays[::2]
    assert all((get(ref) == n).all() for n, ref in refs.items())
    del arrays, array, refs
    drained(before)


# As an argument and a result -----------------------------------------------------


def test_arguments_and_results(session):
    """An argument is put; what a task returns and what an actor keeps arrive as any arrays."""

    @raylet.remote
    def total(array):
        return float(array.sum())

    @raylet.remote
    def made(value):
        array = raylet.empty(ITEMS)
        array[:] = value
        return array, raylet.put(array)

    array = raylet.empty(ITEMS)
    array[:] = 2
    assert get([total.remote(array), total.remote(array)]) == [2.0 * ITEMS] * 2
    returned, ref = get(made.remote(3))
    assert float(returned.sum()) == float(get(ref).sum()) == 3.0 * ITEMS
    small = raylet.empty(3)
    small[:] = 1
    assert get(total.remote(small)) == 3


def test_local_mode(start):
    """Without processes it is the same."""
    start(local_mode=True)
    array = raylet.empty(1000)
    array[:] = 4
    ref = raylet.put(array)
    array[:] = 5
    assert float(get(ref).sum()) == 4000


# Without a put ---------------------------------------------------------------------


def test_an_array_that_is_dropped_leaves_nothing(session):
    """It counts as used while it is there, and not afterwards."""
    objects, used = object_count(), used_bytes()
    array = raylet.empty(ITEMS)
    part = array[10:20]
    part[:] = 1
    assert used_bytes() >= used + 8 * ITEMS
    del array
    gc.collect()
    assert used_bytes() >= used + 8 * ITEMS and part[3] == 1
    del part
    until(lambda: gc.collect() >= 0 and used_bytes() <= used and object_count() <= objects)
    for _ in range(50):
        raylet.empty(ITEMS)
    assert get(raylet.put(np.ones(ITEMS)))[0] == 1


def test_a_put_array_keeps_its_bytes(session):
    """As long as the array is there its pages are the object's, also when nobody refers to that."""
    array = raylet.empty(ITEMS)
    array[:] = np.arange(ITEMS)
    raylet.put(array)
    for n in range(30):
        raylet.put(np.full(ITEMS, n))
    np.testing.assert_array_equal(array, np.arange(ITEMS))


def test_a_killed_producer_leaves_nothing(session, tmp_path):
    """What a process was writing when it was killed is given back."""
    objects, used = object_count(), used_bytes()
    text = """
        import sys, raylet, numpy
        raylet.init(sys.argv[1], logging_level="ERROR")
        arrays = [raylet.empty(500_000) for _ in range(4)]
        arrays[0][:] = 1
        kept = raylet.put(arrays[1])
        print("made", flush=True)
        sys.stdin.read()
    """
    directory = raylet.init(ignore_reinit_error=True).address_info["session_dir"]
    program = start_program(tmp_path, text, directory)
    assert program.stdout.readline() == "made\n", program.communicate(timeout=LIMIT_S)
    assert used_bytes() >= used + 16_000_000
    program.send_signal(signal.SIGKILL)
    program.communicate(timeout=LIMIT_S)
    until(lambda: used_bytes() <= used and object_count() <= objects)


def test_a_session_that_ends_leaves_the_array(start):
    """It can still be written to, and is put into the next session as any array."""
    start()
    open_one, put_one = raylet.empty(1000), raylet.empty(1000)
    put_one[:] = 1
    raylet.put(put_one)
    raylet.shutdown()
    open_one[:] = 2
    put_one[:5] = 3
    start()
    refs = [raylet.put(open_one), raylet.put(put_one)]
    assert [float(get(ref).sum()) for ref in refs] == [2000, 1010]


# Forks -----------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_has_a_copy(session):
    """What it writes stays there; its put is a copy, and its end takes nothing from the parent."""
    array, sealed = raylet.empty(10_000), raylet.empty(10_000)
    array[:], sealed[:] = 1, 1
    kept = raylet.put(sealed)
    sealed[0] = 9
    child = os.fork()
    if child == 0:
        status = 1
        try:
            assert not is_shared(array) and array.sum() == 10_000 and sealed[0] == 9
            array[:], sealed[:] = 5, 5
            assert array.sum() == sealed.sum() == 50_000
            del array, sealed
            gc.collect()
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert is_shared(array) and array.sum() == 10_000 and sealed[0] == 9 and sealed[1] == 1
    array[0] = 2
    assert get(raylet.put(array))[0] == 2 and get(kept).sum() == 10_000


def test_a_forked_child_puts_its_copy(tmp_path):
    """The child's put does not seal what is its parent's."""
    text = """
        import os, raylet
        raylet.init(address="local", num_cpus=1, logging_level="ERROR", object_store_memory=80 * 2**20)
        array = raylet.empty(1000)
        array[:] = 1
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            array[:] = 2
            ref = raylet.put(array)
            array[:] = 3
            os.write(write, b"2" if raylet.get(ref)[5] == 2 else b"?")
            os._exit(0)
        assert os.read(read, 1) == b"2" and os.waitpid(child, 0)[1] == 0
        assert raylet.get(raylet.put(array))[5] == 1
        raylet.shutdown()
    """
    run_program(tmp_path, text)


# What is refused -----------------------------------------------------------------------


def test_nothing_is_an_array_too(session):
    """An array without bytes is made, put and read."""
    for shape in (0, (0, 5), (3, 0), [0]):
        array = raylet.empty(shape, "i4")
        back = get(raylet.put(array))
        assert back.shape == array.shape == np.empty(shape).shape and back.dtype == "i4"


def test_what_makes_no_sense_is_refused(session):
    """Each with an error that says why; nothing is left."""
    before = object_count()
    with pytest.raises(TypeError, match="Python objects"):
        raylet.empty(3, object)
    with pytest.raises(TypeError, match="Python objects"):
        raylet.empty(3, [("a", "i4"), ("b", object)])
    with pytest.raises(TypeError):
        raylet.empty("three")
    with pytest.raises(TypeError):
        raylet.empty(1.5)
    with pytest.raises(TypeError):
        raylet.empty(3, "no such type")
    with pytest.raises(ValueError, match="negative"):
        raylet.empty((3, -1))
    with pytest.raises(ValueError, match="order"):
        raylet.empty(3, order="K")
    assert object_count() == before


def test_a_full_store_says_so(session):
    """The error of a put that finds no room, at once where waiting cannot help."""
    for items in (20_000_000, 2**40, 2**59):
        with pytest.raises(raylet.exceptions.ObjectStoreFullError, match=r"\d+ bytes"):
            raylet.empty(items)
    with pytest.raises(ValueError, match="memory"):
        raylet.empty(2**70)
    assert raylet.empty(np.int64(3)).shape == (3,) and raylet.empty(np.array([2, 3])).shape == (2, 3)


def test_without_numpy(session, monkeypatch):
    """The error says what to install."""
    monkeypatch.setitem(sys.modules, "numpy", None)
    with pytest.raises(ImportError, match="pip install numpy"):
        raylet.empty(3)


def test_polars_reads_it_in_place(session):
    """A series over what was put is a view of the store."""
    pl = pytest.importorskip("polars")
    array = raylet.empty(10_000, "i8")
    array[:] = range(10_000)
    back = get(raylet.put(array))
    series = pl.Series("a", back)
    assert series.sum() == 49_995_000
    assert series.to_numpy(allow_copy=False).ctypes.data == back.ctypes.data

"""Values between Python and the store: types, memory, references, and bytes that are no value.

The one thing to know: these tests put and get in one process, so they prove what travels, not who runs where.
"""

import abc
import collections
import copy
import dataclasses
import decimal
import enum
import functools
import gc
import io
import math
import pickle
import random
import re
import struct
import sys
import threading
import typing
import warnings
import zlib

import pytest

from raylet import _native as native
from raylet._private import pickling
from raylet.util.check_serialize import inspect_serializability

np = pytest.importorskip("numpy")

RAW, ARROW, PICKLE, MESSAGE_PACK = range(4)


def begin():
    """A session whose tasks run in this process: the store is all that values need."""
    native.init({"mode": "local", "object_store_memory": 1 << 30})


@pytest.fixture(scope="module", autouse=True)
def session():
    begin()
    yield
    native.shutdown()


def there_and_back(value):
    return native.get(native.put(value))


def as_argument(value):
    (back,), _ = native._decode_arguments(*native._encode_arguments((value,), None))
    return back


def as_keyword(value):
    _, kwargs = native._decode_arguments(*native._encode_arguments((), {"value": value}))
    return kwargs["value"]


ROUTES = [there_and_back, as_argument, as_keyword]


@dataclasses.dataclass
class Point:
    x: object
    y: object = 0


Pair = collections.namedtuple("Pair", "left right")


class Colour(enum.Enum):
    RED = 1


class Words(list):
    pass


class Count(int):
    pass


class Name(str):
    pass


class Problem(Exception):
    def __init__(self, code, detail):
        super().__init__(code, detail)
        self.code, self.detail = code, detail


EDGES = [n + d for n in (0, 2**5, 2**7, 2**8, 2**15, 2**16, 2**31, 2**32, 2**63, 2**64, 10**40) for d in (-1, 0, 1)]
VALUES = [
    None, True, False, *EDGES, *(-edge for edge in EDGES), 0.1, -0.0, math.inf, 5e-324, 1 + 2j, ...,
    "", "a", "héllo \U0001f600", "nul\0", "lone \ud800", *("x" * n for n in (31, 32, 255, 256, 65535, 65536, 200_000)),
    b"", b"\x00\xff", *(b"y" * n for n in (255, 256, 65535, 65536, 200_000)),
    [], [1, "a", None], (), (1, (2, 3)), {}, {"a": 1, (1, 2): [3], None: b""}, set(), {1, 2}, frozenset("abc"),
    list(range(10_000)), range(1, 10, 3), slice(1, None, 2), int, len, math.sqrt, decimal.Decimal("1.10"),
    re.compile("a+"), collections.OrderedDict(b=1, a=2), collections.defaultdict(list, a=[1]),
    collections.deque([1, 2], maxlen=5), collections.Counter("aab"), Pair(1, [2]), Point(1, [2]), Colour.RED,
    Words([1]), Count(5), Name("n"), np.float32(1.5), np.datetime64("2024-01-01"), np.dtype("i4"),
    functools.partial(divmod, 7), typing.Any,
]  # fmt: skip


@pytest.mark.parametrize("route", ROUTES)
def test_values_keep_type_and_value(route):
    for value in VALUES:
        back = route(value)
        assert type(back) is type(value), value
        assert repr(back) == repr(value) or back == value or back(3) == value(3), value


@pytest.mark.parametrize("route", ROUTES)
def test_not_a_number_comes_back_as_one(route):
    assert math.isnan(route(math.nan))


@pytest.mark.parametrize("route", ROUTES)
def test_a_bare_bytearray_becomes_bytes_as_in_ray(route):
    assert route(bytearray(b"abc")) == b"abc" and type(route(bytearray(b"abc"))) is bytes
    assert type(route(memoryview(b"abc")[1:])) is bytes and route(memoryview(b"abc")[::2]) == b"ac"
    assert type(route([bytearray(b"abc")])[0]) is bytearray


def test_single_values_are_message_pack():
    for value in (None, True, -5, 2**63, 0.5, "text", b"bytes"):
        assert native._bytes(native.put(value))[1] == (PICKLE if value == 2**63 else MESSAGE_PACK)
    assert native._bytes(native.put([1]))[1] == PICKLE


@pytest.mark.parametrize("route", ROUTES)
def test_aliases_and_rings_stay(route):
    item = [1]
    back = route([item, item, {"k": item}])
    assert back[0] is back[1] is back[2]["k"]
    ring = [1]
    ring.append(ring)
    assert (back := route(ring))[1] is back
    table = {}
    table["self"] = table
    assert (back := route(table))["self"] is back
    point = Point(None)
    point.x = {"back": point}
    assert (back := route(point)).x["back"] is back


@pytest.mark.parametrize("route", ROUTES)
def test_functions_and_local_classes_travel_by_value(route):
    factor = 3

    def scale(x, plus=1):
        return factor * x + plus

    def fib(n):
        return n if n < 2 else fib(n - 1) + fib(n - 2)

    class Base(abc.ABC):
        @abc.abstractmethod
        def go(self): ...

    class Local(Base):
        def __init__(self, x):
            self.x = x

        def go(self):
            return self.x * factor

    assert route(scale)(2) == 7 and route([scale])[0](2) == 7 and route(lambda: factor)() == 3
    assert route(fib)(10) == 55
    assert route(Local(2)).go() == 6 and isinstance(route(Local(2)), Local)


@pytest.mark.parametrize("route", ROUTES)
def test_exceptions_as_values(route):
    back = route([Problem(7, "bad")])[0]
    assert type(back) is Problem and (back.code, back.detail, back.args) == (7, "bad", (7, "bad"))


def test_functions_of_the_main_module_travel_by_value():
    main = sys.modules["__main__"]
    made = {"__name__": "__main__"}
    exec("def f(x):\n    return x + 1\nclass C:\n    pass", made)
    for value in (made["f"], {"f": made["f"]}, [made["C"]()], np.array([made["f"]], dtype=object)):
        stream = native._bytes(native.put(value))[0]
        assert b"cloudpickle" in stream, value
    assert not hasattr(main, "f")


# Zero copy


DTYPES = "?|b|B|h|H|i|I|q|Q|e|f|d|F|D|S3|U4|M8[ns]|m8[D]|>i4|>f8".split("|")


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("dtype", [*DTYPES, [("id", "i4"), ("in", [("a", "u1"), ("b", "S2")])]], ids=str)
def test_arrays_come_back_read_only_and_aligned(route, dtype):
    for shape in ((3,), (2, 3), (0,), (), (40, 50)):
        array = np.zeros(shape, dtype=dtype)
        back = route(array)
        assert (back.dtype, back.shape) == (array.dtype, array.shape) and (back == array).all()
        assert not back.flags.writeable
        assert back.size == 0 or back.ctypes.data % 64 == 0
        with pytest.raises(ValueError):
            back.flags.writeable = True


@pytest.mark.parametrize("route", ROUTES)
def test_memory_orders_stay(route):
    base = np.arange(24).reshape(4, 6)
    for array in (
        base, np.asfortranarray(base), base.T, base[::2, 1::2], base[::-1], base[:, 2],
        np.broadcast_to(np.arange(3), (4, 3)), np.array(7), np.arange(24).reshape(2, 3, 4).transpose(2, 0, 1),
    ):  # fmt: skip
        back = route(array)
        assert (back == array).all() and not back.flags.writeable
        if array.flags.c_contiguous or array.flags.f_contiguous:
            assert back.flags.f_contiguous == array.flags.f_contiguous


def test_object_arrays_and_arrays_in_values():
    back = there_and_back(np.array([1, "two", None, [3]], dtype=object))
    assert back.tolist() == [1, "two", None, [3]] and back.flags.writeable
    value = there_and_back(Point(np.arange(100_000), [np.ones(3), {"deep": np.zeros((2, 2))}]))
    assert int(value.x.sum()) == 4_999_950_000
    assert not any(array.flags.writeable for array in (value.x, value.y[0], value.y[1]["deep"]))
    assert all(array.ctypes.data % 64 == 0 for array in (value.x, value.y[0], value.y[1]["deep"]))


def test_two_gets_share_memory_and_outlive_the_reference():
    ref = native.put(np.arange(1_000_000))
    one, two = native.get(ref), native.get(ref)
    assert np.shares_memory(one, two) and one.ctypes.data == two.ctypes.data
    del ref, one
    gc.collect()
    fill = [native.put(np.zeros(1_000_000)) for _ in range(5)]
    assert two[0] == 0 and two[-1] == 999_999 and int(two.sum()) == 499_999_500_000
    del fill


def test_a_private_view_shares_pages_until_they_are_written_to():
    ref = native.put(Point(np.arange(1_000_000), "text"))
    private, shared = native._get_private(ref).x, native.get(ref).x
    assert private.flags.writeable and not np.shares_memory(private, shared) and private.ctypes.data % 64 == 0
    assert private_kb(private) < 100
    private[:1000] = -1
    assert 8 <= private_kb(private) < 200
    assert shared[0] == 0 and native.get(ref).x[999] == 999 and private[0] == -1 and private[1000] == 1000
    other = native._get_private(ref).x
    assert other[0] == 0
    del ref, shared, other
    gc.collect()
    native.put(np.zeros(1_000_000))
    assert private[-1] == 999_999
    assert native._get_private(native.put([1, "plain"])) == [1, "plain"]


def private_kb(array):
    """Kilobytes that the mapping of an array has for itself, as the kernel counts."""
    lines = iter(open("/proc/self/smaps"))
    for line in lines:
        place = re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line)
        if place and int(place[1], 16) <= array.ctypes.data < int(place[2], 16):
            counted = dict(re.match(r"(\w+): +(\d+) kB", line).groups() for line, _ in zip(lines, range(20)))
            return int(counted["Anonymous"])
    raise AssertionError("not mapped")


def test_buffers_are_read_only_views():
    view = there_and_back(pickle.PickleBuffer(b"0123456789"))
    with memoryview(view) as seen:
        assert seen.readonly and bytes(seen) == b"0123456789" and len(view) == 10
    with pytest.raises((BufferError, TypeError)):
        io.BytesIO(b"x").readinto(view)


def test_arrow_and_pandas_are_views():
    pa, pd = pytest.importorskip("pyarrow"), pytest.importorskip("pandas")
    table = pa.table({"i": list(range(1000)), "s": [str(n) for n in range(1000)]})
    ref = native.put(table)
    one, two = native.get(ref), native.get(ref)
    assert one.equals(table) and one.schema == table.schema

    def address(table):
        return table["i"].chunk(0).buffers()[1].address

    assert address(one) == address(two) and address(one) % 64 == 0
    frame = pd.DataFrame({"a": np.arange(5), "b": np.ones(5), "s": list("abcde")})
    assert there_and_back(frame).equals(frame)


def test_a_slice_of_a_table_travels_alone():
    pa = pytest.importorskip("pyarrow")
    table = pa.table({"i": list(range(100_000))})
    piece = table.slice(10, 5)
    ref = native.put(piece)
    assert len(native._bytes(ref)[0]) < 10_000 and native.get(ref).equals(piece)
    batch = table.to_batches()[0].slice(7, 2)
    assert there_and_back(batch).equals(batch) and type(there_and_back(batch)) is pa.RecordBatch


def test_arrow_of_another_language_is_read_in_place():
    pa = pytest.importorskip("pyarrow")
    table = pa.table({"i": list(range(1000))})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write(table)
    ref = native._put_bytes(sink.getvalue().to_pybytes(), ARROW, [])
    one, two = native.get(ref), native.get(ref)
    assert one.equals(table)
    assert one["i"].chunk(0).buffers()[1].address == two["i"].chunk(0).buffers()[1].address


def test_raw_bytes_are_bytes():
    assert native.get(native._put_bytes(b"raw", RAW, [])) == b"raw"


def test_containers_of_another_language():
    packed = b"\x93\x01\xa1a\x82\xa1k\x92\xc0\xc3\xca" + struct.pack(">f", 1.5) + b"\xc4\x01z"
    assert native.get(native._put_bytes(packed, MESSAGE_PACK, [])) == [1, "a", {"k": [None, True], 1.5: b"z"}]
    ref = native.put("named")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _, (slot, generation, *_) = ref.__reduce__()
    named = b"\x91\x92\xce" + struct.pack(">I", slot) + b"\xcf" + struct.pack(">Q", generation)
    (back,) = native.get(native._put_bytes(named, MESSAGE_PACK, [ref]))
    assert back == ref and native.get(back) == "named"
    with pytest.raises(ValueError, match="depth"):
        native.get(native._put_bytes(b"\x91" * 100_000 + b"\xc0", MESSAGE_PACK, []))


# References


def test_what_a_reference_is():
    ref, other = native.put(1), native.put(1)
    assert ref == native.ObjectRef.from_binary(ref.binary()) and ref != other and ref != 1
    assert hash(ref) == hash(there_and_back([ref])[0]) and len({ref, other, copy.copy(ref), copy.deepcopy(ref)}) == 2
    assert repr(ref) == f"ObjectRef({ref.hex()})" and ref.hex() == ref.binary().hex() and len(ref.binary()) == 28
    assert ref.task_id() == ref.binary()[:24] and ref.job_id() == ref.binary()[20:24]
    assert native.ObjectRef.nil().is_nil() and not ref.is_nil()
    assert native.ObjectRef.from_hex("ff" * 28).is_nil()
    assert native.ObjectRef.from_random() != native.ObjectRef.from_random()
    assert native.ObjectRef[int]
    for wrong in (b"", b"x" * 27, b"x" * 29):
        with pytest.raises(ValueError, match="28"):
            native.ObjectRef(wrong)


def nests(ref):
    def closure():
        return ref

    return [
        ([ref], lambda v: v[0]),
        ((1, {"k": [ref]}), lambda v: v[1]["k"][0]),
        ({ref: 1}, lambda v: next(iter(v))),
        ({ref}, lambda v: next(iter(v))),
        (Point(ref, np.zeros(10)), lambda v: v.x),
        (closure, lambda v: v()),
        (functools.partial(id, ref), lambda v: v.args[0]),
        (np.array([ref], dtype=object), lambda v: v[0]),
        ([0] * 1000 + [ref], lambda v: v[-1]),
    ]


@pytest.mark.parametrize("route", ROUTES)
def test_references_travel_inside_values_and_keep_their_objects(route):
    ref = native.put("held")
    for value, pick in nests(ref):
        assert native.get(pick(route(value))) == "held"
    outer = [native.put(value) for value, _ in nests(native.put("kept by lists alone"))]
    gc.collect()
    for object_, (_, pick) in zip(outer, nests(None)):
        assert native.get(pick(native.get(object_))) == "kept by lists alone"


def test_a_reference_to_a_reference():
    ref = native.put([native.put([native.put("deep")])])
    assert native.get(native.get(native.get(ref)[0])[0]) == "deep"
    assert native.get(native.put([ref])) == [ref]


def test_many_references_and_doubles_in_one_object():
    refs = [native.put(n) for n in range(3000)]
    order = random.Random(1).choices(refs, k=5000)
    back = there_and_back(order)
    assert back == order and [native.get(ref) for ref in back[:100]] == [native.get(ref) for ref in order[:100]]


def test_a_nested_put_while_a_value_is_pickled():
    class Puts:
        def __init__(self, ref):
            self.ref = ref

        def __reduce__(self):
            inner = native.put([self.ref, native.put("inner")])
            assert native.get(native.get(inner)[1]) == "inner"
            return Puts, (self.ref,)

    ref = native.put("outer")
    first, second = there_and_back([Puts(ref), ref])
    assert native.get(first.ref) == native.get(second) == "outer"


def test_a_failed_pickle_leaves_no_trace():
    class Fails:
        def __reduce__(self):
            raise RuntimeError("will not be pickled")

    ref = native.put("value")
    for value in (Fails(), [ref, Fails()]):
        for route in ROUTES:
            with pytest.raises(RuntimeError, match="will not be pickled"):
                route(value)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # Outside of a value again: by name.
        assert ref.__reduce__()[0] is native._out_of_band


def test_references_pickled_by_hand():
    native.shutdown()
    begin()
    ref = native.put("by hand")
    with pytest.warns(RuntimeWarning, match="pickled by itself"):
        data = pickle.dumps({"ref": ref})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pickle.dumps(ref)
    name = ref.binary()
    del ref
    gc.collect()
    assert native.get(pickle.loads(data)["ref"]) == "by hand"
    native.shutdown()
    begin()
    lost = pickle.loads(data)["ref"]
    assert lost.binary() == name and pickle.loads(pickle.dumps(lost)) == lost


def test_references_of_an_ended_session_stay_references():
    ref = native.put("old")
    native.shutdown()
    begin()
    assert ref == ref and len(ref.hex()) == 56
    with pytest.raises(ValueError):
        native.put([ref])
    del ref


# Arguments


def test_the_usual_call_fits_into_a_record():
    ref = native.put(1)
    data, awaited = native._encode_arguments((1, 2.5, "short", None, True, b"x", ref), {"key": 7, "other": ref})
    assert len(data) <= 80 and awaited == [ref, ref]
    args, kwargs = native._decode_arguments(data, awaited)
    assert args == (1, 2.5, "short", None, True, b"x", 1) and kwargs == {"key": 7, "other": 1}
    assert native._encode_arguments((), None) == (b"\0", [])
    assert native._decode_arguments(b"\0", []) == ((), None)


def test_large_arguments_become_objects():
    small, large = b"x" * 8000, b"x" * 9000
    assert native._encode_arguments((small, "y" * 8000), None)[1] == []
    data, awaited = native._encode_arguments((large, [large], np.zeros(1), [native.put(1)]), None)
    assert len(awaited) == 4 and len(data) < 80
    args, _ = native._decode_arguments(data, awaited)
    assert args[0] == large and args[1] == [large]


def test_many_arguments():
    for count in (254, 255, 256, 70_000):
        assert native._decode_arguments(*native._encode_arguments(tuple(range(count)), None))[0] == tuple(range(count))
    with pytest.raises(ValueError, match="at most"):
        native._encode_arguments((native.put(1),) * 70_000, None)


# What does not travel


def test_what_cannot_travel_says_what_is_to_blame():
    for value in (threading.Lock(), (i for i in range(3)), [threading.Lock()], Point(threading.Lock())):
        with pytest.raises(TypeError, match="Could not serialize the put value"):
            native.put(value)
        with pytest.raises(TypeError, match="Could not serialize the argument .* for a task or actor f"):
            native._encode_arguments((value,), None)
    with pytest.raises(TypeError, match="FailTuple.x .path=x"):
        native.put(Point(threading.Lock()))


def test_the_report():
    lock = threading.Lock()

    def good():
        return 1

    def bad():
        return lock

    for value, is_good in ((good, True), (5, True), (bad, False), (lock, False), ({"k": lock}, False)):
        report = io.StringIO()
        ok, failures = inspect_serializability(value, print_file=report)
        assert ok is is_good and bool(failures) is not is_good
        assert report.getvalue().startswith("=")
        assert ("!!! FAIL" in report.getvalue()) is not is_good
    assert next(iter(inspect_serializability(bad, print_file=report)[1])).path[0] == "lock"


def test_deep_values():
    deep = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises((RecursionError, pickle.PicklingError), match="recursion"):
        native.put(deep)
    while deep:
        deep = deep[0]
    nested = functools.reduce(lambda inner, _: [inner], range(200), 1)
    assert there_and_back(nested) == nested


def test_registered_serializers():
    class Locked:
        def __init__(self, x):
            self.x, self.lock = x, threading.Lock()

    pickling.register_serializer(Locked, serializer=lambda v: v.x, deserializer=Locked)
    pickling.register_serializer(np.ndarray, serializer=lambda v: v.tolist(), deserializer=tuple)
    try:
        assert there_and_back([Locked(3)])[0].x == 3 and there_and_back(np.arange(3)) == (0, 1, 2)
    finally:
        pickling.deregister_serializer(Locked)
        pickling.deregister_serializer(np.ndarray)
    pickling.deregister_serializer(Locked)
    with pytest.raises(TypeError):
        native.put(Locked(3))
    assert (there_and_back(np.arange(3)) == np.arange(3)).all()


# Bytes that are no value


def attempt(data, encoding, references=()):
    """Whatever comes of the bytes; a crash would end the test run."""
    try:
        native.get(native._put_bytes(data, encoding, list(references)))
    except Exception:
        pass


def harm(data):
    """Each byte with a bit flipped, then all of its bits; then all that is shorter."""
    for at in range(len(data)):
        for mask in (1, 1 << at % 8, 0x80, 0xFF):
            yield data[:at] + bytes([data[at] ^ mask]) + data[at + 1 :]
        yield data[:at]


def test_harmed_objects_are_errors_or_values():
    ref = native.put("ref")
    for value in (np.arange(3), [ref, 1], Point(np.ones(2), ref), [1, "two"]):
        data, encoding = native._bytes(native.put(value))
        for harmed in harm(data):
            attempt(harmed, encoding, [ref])


def test_a_harmed_pickle_is_never_unpickled():
    data, _ = native._bytes(native.put([1, "two"]))
    for harmed in harm(data):
        with pytest.raises(ValueError, match="checksum|header|pickle|buffer|reference|version"):
            native.get(native._put_bytes(harmed, PICKLE, []))


def test_harmed_single_values_are_errors_or_values():
    for value in (None, 5, -(2**40), 1.5, "téxt", b"bytes" * 60):
        data, encoding = native._bytes(native.put(value))
        for harmed in harm(data):
            attempt(harmed, encoding)


def test_harmed_arguments_are_errors_or_values():
    ref = native.put("ref")
    data, awaited = native._encode_arguments((1, 2.5, "text", ref, b"bytes"), {"key": None})
    for harmed in harm(data):
        try:
            native._decode_arguments(harmed, awaited)
        except Exception:
            pass
    random_bytes = random.Random(7)
    for _ in range(3000):
        data = random_bytes.randbytes(random_bytes.randrange(40))
        for encoding in (MESSAGE_PACK,):
            attempt(data, encoding)
        try:
            native._decode_arguments(data.replace(b"\xd6", b"\xd4"), awaited)
        except Exception:
            pass


def summed(data):
    return data[:24] + struct.pack("<I", zlib.crc32(data[:24] + data[28:])) + data[28:]


def test_errors_of_bytes_are_typed():
    for data, encoding, says in (
        (b"", MESSAGE_PACK, "end in the middle"),
        (b"\x01\x02", MESSAGE_PACK, "1 bytes follow"),
        (b"\xc1", MESSAGE_PACK, "0xc1"),
        (b"\xa2\xff\xff", MESSAGE_PACK, "UTF-8"),
        (b"\xdb\xff\xff\xff\xff", MESSAGE_PACK, "4294967295 more"),
        (b"\xdd\xff\xff\xff\xff", MESSAGE_PACK, "end in the middle"),
        (b"\x07" + b"\0" * 30, PICKLE, "version 7"),
        (b"\x01", PICKLE, "the header"),
        (struct.pack("<IIQIIQ", 1, 2**32 - 1, 0, 0, 0, 0), PICKLE, "places of buffers"),
        (struct.pack("<IIQIIQ", 1, 0, 2**64 - 1, 0, 0, 0), PICKLE, "the pickle"),
        (struct.pack("<IIQIIQ", 1, 0, 0, 2**32 - 1, 0, 0), PICKLE, "positions of references"),
        (struct.pack("<IIQIIQQQ", 1, 1, 0, 0, 0, 0, 2**64 - 1, 2**64 - 1), PICKLE, "end of a buffer"),
        (struct.pack("<IIQIIQQQ", 1, 1, 0, 0, 0, 0, 0, 8), PICKLE, "end of a buffer"),
        (struct.pack("<IIQIIQ", 1, 0, 0, 0, 0, 0), PICKLE, "checksum"),
        (summed(struct.pack("<IIQIIQI", 1, 0, 0, 1, 5, 0, 9)), PICKLE, "listed"),
    ):
        with pytest.raises(ValueError, match=says):
            native.get(native._put_bytes(data, encoding, []))

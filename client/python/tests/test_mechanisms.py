"""The mechanisms of Ray's core that people learned it by, one after the other; each test names its number.

The one thing to know: numbers and words are those of the list of mechanisms that this project set out with, so that a
missing one is seen by its gap: 4, 6, 10, 13 and 29 are proven elsewhere, 34 to 39 are no part of the core. This file
must not measure time.
"""

import asyncio
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from support import (
    LIMIT_S,
    Traces,
    descendants,
    environment,
    is_alive,
    note,
    notes,
    object_count,
    pass_gate,
    run_program,
    start_program,
    status,
    touch,
    until,
    used_bytes,
)

import raylet
from raylet import _native
from raylet.exceptions import (
    ActorDiedError,
    GetTimeoutError,
    ObjectLostError,
    RayTaskError,
    WorkerCrashedError,
)

JOB = bytes.fromhex("01000000")
# What the store's memory goes by in a process's map.
DATA = "/memfd:raylet-data"
DRIVER_TASK = b"\xff" * 20 + JOB


@raylet.remote
def echo(value=None):
    return value


@raylet.remote
def pid_of_worker():
    return os.getpid()


@raylet.remote
class Holder:
    """Keeps a value."""

    def __init__(self, value=None):
        self.value = value

    def get(self):
        return self.value

    def set(self, value):
        self.value = value

    def add(self, amount=1):
        self.value = (self.value or 0) + amount
        return self.value

    def pid(self):
        return os.getpid()

    def crash(self):
        os._exit(1)


# 1 to 8: sessions and drivers -------------------------------------------------------


def test_local_mode_has_no_processes(start):
    """1: local_mode is serial, in this process, without any other."""
    before = descendants(os.getpid())
    start(local_mode=True)
    ran = []

    @raylet.remote
    def mark():
        ran.append(os.getpid())
        return raylet.put([echo.remote(5)])

    inner = mark.remote()
    assert ran == [os.getpid()]
    assert raylet.get(raylet.get(raylet.get(inner))[0]) == 5
    assert descendants(os.getpid()) <= before


def test_no_address_starts_processes_and_ends_them(start):
    """1: without an address there is a raylet of one's own, which ends with the session."""
    before = descendants(os.getpid())
    start()
    traces = Traces()
    assert raylet.get(pid_of_worker.remote()) != os.getpid()
    assert descendants(os.getpid()) - before >= {traces.raylet}
    traces.look()
    raylet.shutdown()
    until(lambda: not traces.left())


@pytest.fixture
def service(tmp_path_factory):
    """A raylet that no driver started: its environment."""
    # Sockets have short names only.
    directory = tmp_path_factory.getbasetemp().parent / "r"
    variables = environment(RAYLET_DIR=str(directory))
    command = [sys.executable, "-m", "raylet"]
    arguments = ["--num-cpus", "2", "--capacity", "80MiB", "--spill-dir", str(directory)]
    subprocess.run([*command, "start", *arguments], env=variables, check=True, capture_output=True, timeout=LIMIT_S)
    yield variables
    subprocess.run([*command, "stop"], env=variables, check=True, capture_output=True, timeout=LIMIT_S)
    shutil.rmtree(directory)


JOINING = """
    import os, raylet, support
    context = raylet.init(address="auto", logging_level="ERROR")
    @raylet.remote
    def parent():
        return os.getppid()
    raylet.get(parent.remote())
    started = len(support.descendants(os.getpid()))
    print(support.status()["raylet_pid"], raylet.get_runtime_context().get_job_id(), started)
"""


def test_with_an_address_it_only_joins(tmp_path, service):
    """1: an address joins, starts nothing and ends nothing; 5: the jobs of two drivers are numbered one after the
    other."""
    said = [run_program(tmp_path, JOINING, **service)[0].split() for _ in range(2)]
    assert said[0][0] == said[1][0] and is_alive(int(said[0][0]))
    assert [line[2] for line in said] == ["0", "0"]
    first, second = (int.from_bytes(bytes.fromhex(line[1]), "little") for line in said)
    assert second == first + 1


SHARING = """
    import subprocess, sys, raylet
    address = raylet.init(sys.argv[1], logging_level="ERROR").address_info["address"]
    print(address, raylet.nodes()[0]["NodeID"], flush=True)
    if len(sys.argv) < 3:
        subprocess.run([sys.executable, sys.argv[0], address, "other"], check=True)
"""


def test_the_address_that_is_told_can_be_joined(tmp_path, service):
    """The `address` that `init` tells is good for `init` in another program, whoever started the raylet."""
    for address, variables in (("auto", service), ("local", {})):
        out, _ = run_program(tmp_path, SHARING, address, **variables)
        first, second = out.splitlines()
        assert first == second


def test_nobody_to_join(tmp_path, monkeypatch):
    """1: "auto" where no raylet runs is a ConnectionError."""
    monkeypatch.setenv("RAYLET_DIR", str(tmp_path))
    with pytest.raises(ConnectionError):
        raylet.init(address="auto")
    assert not raylet.is_initialized()


def test_init_twice(session):
    """2: the second init raises, unless it is told not to."""
    with pytest.raises(RuntimeError, match="Maybe you called ray.init twice by accident?"):
        raylet.init()
    again = raylet.init(ignore_reinit_error=True)
    assert again.address_info["session_dir"] == session.address_info["session_dir"]


ENDS_WITHOUT_SHUTDOWN = """
    import json, raylet, support
    raylet.init(address="local", num_cpus=1, logging_level="ERROR")
    @raylet.remote
    def f():
        return 1
    kept = raylet.put(b"x" * 1000000), f.remote()
    raylet.get(kept[1])
    traces = support.Traces()
    print(json.dumps([traces.directory, traces.segment, sorted(traces.processes)]), flush=True)
    if input() == "kill":
        import os
        os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize(("how", "code"), [("end", 0), ("kill", -signal.SIGKILL)])
def test_the_end_of_the_driver_is_the_end_of_all(tmp_path, how, code):
    """3: shutdown at exit, and a reaper where the driver is killed."""
    program = start_program(tmp_path, ENDS_WITHOUT_SHUTDOWN)
    directory, segment, processes = json.loads(program.stdout.readline())
    assert os.path.exists(directory) and os.path.exists(segment) and all(map(is_alive, processes))
    _, err = program.communicate(how, timeout=LIMIT_S)
    assert program.returncode == code, err
    until(lambda: not (os.path.exists(directory) or os.path.exists(segment) or any(map(is_alive, processes))))


def test_job_ids(start):
    """5: a driver has the job of its number; in local mode ids are random. 6: a driver's worker id is its job's and
    0xFF."""
    start()
    context = raylet.get_runtime_context()
    assert context.get_job_id() == JOB.hex()
    assert context.get_worker_id() == (JOB + b"\xff" * 24).hex()
    assert raylet.get(raylet.remote(lambda: raylet.get_runtime_context().get_job_id()).remote()) == JOB.hex()
    assert raylet.get(raylet.remote(lambda: raylet.get_runtime_context().get_worker_id()).remote())[:8] != JOB.hex()
    raylet.shutdown()
    tasks = set()
    for _ in range(2):
        start(local_mode=True)
        tasks.add(raylet.put(0).task_id())
        raylet.shutdown()
    assert len(tasks) == 2


FAILS = """
    import logging, sys, threading, raylet, support
    seen = threading.Event()
    class Sees(logging.Handler):
        def emit(self, record):
            seen.set()
    raylet.init(address="auto")
    logging.getLogger("ray").addHandler(Sees())
    @raylet.remote
    def fails():
        raise ValueError("the error of one driver")
    @raylet.remote
    def says():
        print("the line of one driver")
    if sys.argv[1] == "fail":
        ref = fails.remote()
        raylet.get(says.remote())
        support.until(lambda: raylet._native.is_ready(ref))
        del ref
        seen.wait(support.LIMIT_S)
    print("ready", flush=True)
    input()
"""


def test_errors_and_lines_go_to_their_driver(tmp_path, service):
    """7: what a job's tasks raise and print reaches the driver of that job alone."""
    other = start_program(tmp_path, FAILS, "wait", **service)
    assert other.stdout.readline() == "ready\n"
    failing = start_program(tmp_path, FAILS, "fail", **service)
    out, err = failing.communicate("\n", timeout=LIMIT_S)
    assert "the error of one driver" in err and "the line of one driver" in out
    out, err = other.communicate("\n", timeout=LIMIT_S)
    assert "of one driver" not in out + err


PRINTS = """
    import os, sys, raylet, support
    context = raylet.init(address="local", num_cpus=1, logging_level="ERROR", log_to_driver=sys.argv[1] == "yes")
    @raylet.remote
    def say():
        print("a line")
        print("a complaint", file=sys.stderr)
        return os.getpid()
    @raylet.remote
    class Speaker:
        def say(self):
            print("an actor's line")
            return os.getpid()
    pids = raylet.get([say.remote(), Speaker.remote().say.remote()])
    logs = os.path.join(context.address_info["session_dir"], "logs")
    def text():
        return "".join(open(os.path.join(logs, name), errors="replace").read() for name in os.listdir(logs))
    # Lines are on their way for a moment.
    support.until(lambda: "an actor's line" in text())
    raylet.shutdown()
    print(*pids)
"""


def test_lines_of_workers_reach_the_driver(tmp_path):
    """8: what workers print goes to files, and to the driver after the name and pid of who said it."""
    out, err = run_program(tmp_path, PRINTS, "yes")
    task, actor = out.splitlines()[-1].split()
    assert f"(say pid={task}) a line\n" in out and f"(Speaker pid={actor}) an actor's line\n" in out
    assert f"(say pid={task}) a complaint\n" in err
    out, err = run_program(tmp_path, PRINTS, "no")
    assert len(out.splitlines()) == 1 and "complaint" not in err


# 9 to 17: looking inside, options, definitions ---------------------------------------


def test_state_is_told(session, tmp_path):
    """9: the session's nodes, tasks, actors and objects can be looked at."""
    from raylet.util import state

    @raylet.remote
    def waits(gate):
        pass_gate(gate)

    holder = Holder.options(name="told").remote()
    ref = waits.remote(tmp_path / "gate")
    kept = raylet.put(b"x" * 5000)
    raylet.get(holder.get.remote())
    [task] = until(lambda: state.list_tasks(filters=[("name", "=", "waits"), ("state", "=", "RUNNING")]))
    [actor] = state.list_actors(filters=[("name", "=", "told")])
    assert task.task_id == ref.task_id().hex() and actor.state == "ALIVE"
    assert kept.hex() in {row.object_id for row in state.list_objects(limit=1000)}
    assert len(raylet.nodes()) == 1 and raylet.cluster_resources()["CPU"] == 2
    touch(tmp_path / "gate")
    raylet.get(ref)


def assigned():
    return raylet.get_runtime_context().get_assigned_resources()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {"CPU": 1.0}),
        ({"num_cpus": 2}, {"CPU": 2.0}),
        ({"num_cpus": 0.5}, {"CPU": 0.5}),
        ({"num_gpus": 1}, {"CPU": 1.0, "GPU": 1.0}),
        ({"num_cpus": 0, "resources": {"tape": 0.0001}}, {"tape": 0.0001}),
        ({"memory": 1000}, {"CPU": 1.0, "memory": 1000.0}),
    ],
)
def test_resources_of_a_task(start, options, expected):
    """11: num_cpus, num_gpus, memory and resources are what a task is given, by decorator and by options."""
    start(num_gpus=1, resources={"tape": 1})
    assert raylet.get(raylet.remote(assigned).options(**options).remote()) == expected
    decorated = raylet.remote(**options)(assigned) if options else raylet.remote(assigned)
    assert raylet.get(decorated.remote()) == expected


def test_options_of_old_programs(session, tmp_path):
    """11: num_return_vals, max_reconstructions and detached work, with a DeprecationWarning."""
    with pytest.warns(DeprecationWarning, match="num_return_vals"):
        pair = raylet.remote(num_return_vals=2)(lambda: (1, 2))
    assert raylet.get(pair.remote()) == [1, 2]
    with pytest.warns(DeprecationWarning, match="max_reconstructions"):
        counted = raylet.remote(max_reconstructions=1)(crash_and_count)
    with pytest.raises(WorkerCrashedError):
        raylet.get(counted.remote(tmp_path / "count"))
    assert len(notes(tmp_path / "count")) == 2
    with pytest.warns(DeprecationWarning, match="max_reconstructions"):
        again = Holder.options(max_reconstructions=1).remote(3)
    pid = raylet.get(again.pid.remote())
    again.crash.remote()
    assert until(lambda: restarted_value(again)) == 3 and raylet.get(again.pid.remote()) != pid
    with pytest.warns(DeprecationWarning, match="detached"):
        Holder.options(name="old", detached=True).remote(4)
    assert raylet.get(raylet.get_actor("old").get.remote()) == 4


def restarted_value(holder):
    try:
        return raylet.get(holder.get.remote())
    except raylet.exceptions.RayActorError:
        return None


def crash_and_count(path):
    note(path)
    os._exit(1)


def test_old_arguments_of_init(start):
    """11: arguments that init had once are taken, with a DeprecationWarning."""
    with pytest.warns(DeprecationWarning, match="driver_object_store_memory"):
        start(driver_object_store_memory=10**8)
    assert raylet.get(echo.remote(1)) == 1


def yields():
    yield 1


def test_warnings_name_the_line_of_the_program(session):
    """11: what is old is warned of where it is written: Python shows nobody a DeprecationWarning of a library's line."""

    class Old:
        def two(self):
            return 1, 2

    for old in (
        lambda: session["address"],
        lambda: raylet.method(num_return_vals=2)(yields),
        lambda: raylet.remote(num_returns="dynamic")(yields),
        lambda: raylet.remote(yields).options(num_returns="dynamic"),
        lambda: raylet.remote(max_reconstructions=1)(Old),
        lambda: raylet.remote(Old).options(max_reconstructions=1),
        lambda: raylet.remote(Old).remote().two.options(num_return_vals=2),
        lambda: raylet.remote(object_store_memory=10**8)(Old),
        lambda: raylet.util.placement_group([{"CPU": 1, "object_store_memory": 1}]),
    ):
        with pytest.warns(DeprecationWarning) as warned:
            old()
        assert {warning.filename for warning in warned} == {__file__}, [warning.message for warning in warned]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"num_cpu": 1}, ValueError),
        ({"num_cpus": -1}, ValueError),
        ({"num_cpus": "1"}, TypeError),
        ({"num_cpus": 0.00001}, ValueError),
        ({"resources": {"CPU": 1}}, ValueError),
        ({"max_retries": -2}, ValueError),
        ({"max_calls": -1}, ValueError),
        ({"num_returns": -1}, ValueError),
        ({"max_restarts": 1}, ValueError),
        ({"retry_exceptions": [1]}, ValueError),
    ],
)
def test_wrong_options_are_refused(options, error):
    """11: an option that is not known or makes no sense raises where it is written."""
    with pytest.raises(error):
        raylet.remote(**options)(lambda: None)
    if "max_calls" not in options:
        with pytest.raises(error):
            echo.options(**options)


def test_remote_with_and_without_arguments():
    """11: `@remote` bare, with arguments and as a function; twice or without any is refused."""
    assert type(raylet.remote(len_of)) is type(raylet.remote(num_cpus=1)(len_of)) is type(echo)
    with pytest.raises(AssertionError):
        raylet.remote()
    with pytest.raises(TypeError, match="remote already"):
        raylet.remote(echo)
    with pytest.raises(TypeError, match="remote already"):
        raylet.remote(Holder)
    with pytest.raises(TypeError, match="either a function or a class"):
        raylet.remote(print)


def len_of(value):
    return len(value)


def test_a_worker_ends_after_max_calls(start):
    """12: max_calls executions of a function, then its worker exits."""
    start(num_cpus=1)
    pid = raylet.remote(max_calls=2)(os_pid)
    pids = [raylet.get(pid.remote()) for _ in range(6)]
    assert pids[0::2] == pids[1::2] and len(set(pids)) == 3
    until(lambda: not any(map(is_alive, pids)))


def os_pid():
    return os.getpid()


def test_numbers_of_results(session):
    """14: num_returns 0, 1 and n: None, a reference, a list; another number of parts is the task's error."""

    def parts(count):
        return tuple(range(count))

    assert raylet.remote(num_returns=0)(parts).remote(0) is None
    one = raylet.remote(parts).remote(2)
    assert isinstance(one, raylet.ObjectRef) and raylet.get(one) == (0, 1)
    assert raylet.get(raylet.remote(num_returns=1)(parts).remote(2)) == (0, 1)
    three = raylet.remote(num_returns=3)(parts).remote(3)
    assert isinstance(three, list) and raylet.get(three) == [0, 1, 2]
    for ref in raylet.remote(num_returns=3)(parts).remote(2):
        with pytest.raises(ValueError, match="Task returned 2 objects, but num_returns=3."):
            raylet.get(ref)


@raylet.remote
def takes(a, /, b, c=3, *, d, e=5):
    return a, b, c, d, e


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [((), {}), ((1,), {"d": 4}), ((1, 2), {}), ((1, 2, 3, 4), {"d": 4}), ((1, 2), {"d": 4, "f": 6}),
     ((1, 2), {"b": 2, "d": 4}), ((), {"a": 1, "b": 2, "d": 4})],
)  # fmt: skip
def test_arguments_are_bound_at_the_call(session, args, kwargs):
    """15: a call that does not fit the signature is a TypeError there, and nothing is submitted."""
    before = status()["work"]["submitted_task_count"]
    with pytest.raises(TypeError):
        takes.remote(*args, **kwargs)
    with pytest.raises(TypeError):
        takes._remote(args=args, kwargs=kwargs)
    assert status()["work"]["submitted_task_count"] == before


def test_arguments_that_fit(session):
    """15: positional and keyword arguments arrive as they were given; none at all is the short way."""
    assert raylet.get(takes.remote(1, 2, d=4)) == (1, 2, 3, 4, 5)
    assert raylet.get(takes.remote(1, e=raylet.put("e"), c=echo.remote("c"), b=2, d=4)) == (1, 2, "c", 4, "e")
    assert raylet.get(echo.remote()) is None
    assert raylet.get(raylet.remote(lambda *a, **k: (a, k)).remote(1, 2, x=3)) == ((1, 2), {"x": 3})
    with pytest.raises(TypeError):
        Holder.remote(1, 2)
    with pytest.raises(TypeError):
        Holder.remote().set.remote()


class Loaded:
    """Notes when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __setstate__(self, state):
        self.__dict__ = state
        note(self.path, os.getpid())


def test_a_definition_is_exported_once(session, tmp_path):
    """16: a function is exported once per session and read once per worker, however often it is called."""
    captured = Loaded(tmp_path / "loads")

    @raylet.remote
    def uses():
        return captured is not None, os.getpid()

    raylet.get(uses.remote())
    before = object_count()
    found = raylet.get([uses.remote() for _ in range(1000)])
    until(lambda: object_count() <= before)
    assert set(notes(tmp_path / "loads")) >= {str(pid) for _, pid in found}
    assert len(notes(tmp_path / "loads")) == len(set(notes(tmp_path / "loads")))


def test_a_new_definition_has_a_new_key(session):
    """16: a definition goes by a hash of what it is: a changed one takes effect at its next call."""

    def made(value):
        @raylet.remote
        def keyed():
            return value, _native.context()["key"]

        return keyed

    (first, key), (second, other) = raylet.get([made(1).remote(), made(2).remote()])
    assert (first, second) == (1, 2) and key != other
    same = made(3)
    assert len(set(raylet.get([same.remote() for _ in range(10)]))) == 1


def test_a_decorator_of_invocations(session):
    """17: `__ray_invocation_decorator__` is put around each call, of functions and of methods."""
    seen = []

    def decorator(invoke):
        def around(args, kwargs):
            seen.append((args, kwargs))
            return invoke((*args, "more"), kwargs), "decorated"

        return around

    def gathers(*args, **kwargs):
        return args, kwargs

    gathers.__ray_invocation_decorator__ = decorator
    ref, word = raylet.remote(gathers).remote(1, x=2)
    assert word == "decorated" and raylet.get(ref) == ((1, "more"), {"x": 2}) and seen == [((1,), {"x": 2})]

    class Gathers:
        def gathers(self, *args, **kwargs):
            return args, kwargs

    Gathers.gathers.__ray_invocation_decorator__ = decorator
    ref, word = raylet.remote(Gathers).remote().gathers.remote(3)
    assert word == "decorated" and raylet.get(ref) == ((3, "more"), {})


# 18 to 22: tasks ------------------------------------------------------------------


def test_small_arguments_travel_in_the_call(session, tmp_path):
    """18: small arguments are part of the call's record; large ones are objects, and go with the call."""
    gate = str(tmp_path / "gate")

    @raylet.remote
    def waits(data, is_open=False):
        if not is_open:
            pass_gate(gate)
        return len(data)

    raylet.get(waits.remote(b"", True))
    small = waits.remote(b"x" * 40)
    assert not sizes_above(1000)
    large = waits.remote(b"x" * 1_000_000)
    assert [size // 1000 for size in sizes_above(1000)] == [1000]
    touch(gate)
    assert raylet.get([small, large]) == [40, 1_000_000]
    until(lambda: not sizes_above(1000))


def sizes_above(least):
    """The sizes of all objects of more bytes than this."""
    return [row["bytes"] for row in json.loads(_native.ask("objects")) if row["bytes"] > least]


def test_other_threads_run_while_one_waits(session, tmp_path):
    """18: the interpreter is let go while a call waits; any thread may submit, put, get and wait."""

    @raylet.remote
    def waits(gate):
        pass_gate(gate)
        return "through"

    threading.Thread(target=lambda: touch(tmp_path / "gate")).start()
    assert raylet.get(waits.remote(tmp_path / "gate")) == "through"
    results = {}

    def submits(number):
        refs = [echo.remote(raylet.put((number, n))) for n in range(200)]
        ready, _ = raylet.wait(refs, num_returns=200)
        results[number] = raylet.get(ready)

    threads = [threading.Thread(target=submits, args=(number,)) for number in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert results == {number: [(number, n) for n in range(200)] for number in range(4)}


def task_id(parent, index, job=JOB):
    head = hashlib.sha256(job + parent + index.to_bytes(8, "little")).digest()[:8]
    return head + b"\xff" * 12 + job


def object_id(task, index):
    return task + index.to_bytes(4, "little")


GOLDEN = [
    "a67dc375e60ddd1affffffffffffffffffffffff0100000001000000",
    "63964fa4841d4a2effffffffffffffffffffffff0100000001000000",
    "69a6825d641b4613ffffffffffffffffffffffff0100000001000000",
]


def test_golden_ids(start):
    """19: the ids of job 1's first put and tasks, as Ray's own were; the same in each session."""
    for _ in range(2):
        start()
        assert raylet.put(0).hex() == "ff" * 20 + "0100000001000000"
        assert [echo.remote().hex() for _ in range(3)] == GOLDEN
        raylet.shutdown()
    assert [object_id(task_id(DRIVER_TASK, n), 1).hex() for n in (1, 2, 3)] == GOLDEN


def test_ids_below_a_task_and_of_actors(session):
    """19: TaskID::ForNormalTask of a task's own children and puts, the ids of results, actors and their calls."""

    @raylet.remote
    def parent():
        context = raylet.get_runtime_context()
        return context.get_task_id(), [echo.remote() for _ in range(2)], raylet.put(1)

    ref = parent.remote()
    own, children, inside = raylet.get(ref)
    own = bytes.fromhex(own)
    assert own == task_id(DRIVER_TASK, 1) and ref.binary() == object_id(own, 1)
    assert [child.binary() for child in children] == [object_id(task_id(own, n), 1) for n in (1, 2)]
    assert inside.job_id() == ref.job_id() and inside.binary()[:24] not in (DRIVER_TASK, *children)
    pair = raylet.remote(num_returns=2)(lambda: (1, 2)).remote()
    assert [part.binary()[24:] for part in pair] == [b"\1\0\0\0", b"\2\0\0\0"]
    assert pair[0].task_id() == pair[1].task_id()
    holders = [Holder.remote() for _ in range(2)]
    names = [bytes.fromhex(holder._actor_id.hex()) for holder in holders]
    assert names[0] != names[1] and all(len(name) == 16 and name[12:] == JOB for name in names)
    calls = [holders[0].get.remote().binary() for _ in range(2)]
    assert calls[0] != calls[1] and all(call[8:24] == names[0] for call in calls)


@pytest.mark.parametrize("force", ["1", "0"])
def test_both_transports(start, monkeypatch, force):
    """20: calls go to a leased worker directly, or through the raylet; RAY_FORCE_DIRECT chooses for the session."""
    monkeypatch.setenv("RAY_FORCE_DIRECT", force)
    start()
    holder = Holder.remote(0)
    total = sum(raylet.get([echo.remote(raylet.put(n)) for n in range(100)]))
    assert total == 4950 and raylet.get([holder.add.remote() for _ in range(100)])[-1] == 100
    with pytest.raises(ZeroDivisionError):
        raylet.get(raylet.remote(lambda: 1 / 0).remote())


def test_a_transport_of_one_function(session, monkeypatch):
    """20: a function may choose its transport; a word that is none is refused."""
    for transport in ("direct", "raylet"):
        assert raylet.get(echo.options(_transport=transport).remote(transport)) == transport
    with pytest.raises(ValueError, match="transport"):
        echo.options(_transport="pigeon").remote()
    raylet.shutdown()
    monkeypatch.setenv("RAY_FORCE_DIRECT", "maybe")
    with pytest.raises(ValueError, match="RAY_FORCE_DIRECT"):
        raylet.init(address="local")


@pytest.mark.parametrize(("options", "attempts"), [({}, 4), ({"max_retries": 0}, 1), ({"max_retries": 1}, 2)])
def test_a_killed_worker_is_tried_again(session, tmp_path, options, attempts):
    """21: the task of a worker that died is submitted again, three times where nothing is said."""

    @raylet.remote(**{"num_cpus": 1, **options})
    def dies():
        note(tmp_path / "attempts")
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(WorkerCrashedError):
        raylet.get(dies.remote())
    assert len(notes(tmp_path / "attempts")) == attempts


def test_the_last_attempt_counts(session, tmp_path):
    """21: a task that gets through at its third attempt has a value; 32: task retry."""

    @raylet.remote
    def dies_twice(path):
        note(path)
        if len(notes(path)) < 3:
            os._exit(1)
        return _native.context()["attempt"]

    assert raylet.get(dies_twice.remote(tmp_path / "attempts")) == 2


@pytest.mark.parametrize(
    ("options", "attempts"),
    [
        ({}, 1),
        ({"retry_exceptions": True}, 4),
        ({"retry_exceptions": [ValueError], "max_retries": 1}, 2),
        ({"retry_exceptions": [KeyError]}, 1),
    ],
)
def test_exceptions_are_tried_again_if_asked(session, tmp_path, options, attempts):
    """21: what a program raises is not tried again, unless retry_exceptions says so."""

    @raylet.remote(**{"num_cpus": 1, **options})
    def fails():
        note(tmp_path / "attempts")
        raise ValueError("on purpose")

    with pytest.raises(ValueError, match="on purpose"):
        raylet.get(fails.remote())
    assert len(notes(tmp_path / "attempts")) == attempts


def test_actors_hold_nothing_unless_they_ask(start):
    """22: an actor needs one CPU to be placed and none to run, so there may be more of them than CPUs."""
    start(num_cpus=1)
    holders = [Holder.remote(n) for n in range(4)]
    assert raylet.get([holder.get.remote() for holder in holders]) == [0, 1, 2, 3]
    assert raylet.available_resources()["CPU"] == 1
    assert raylet.get(echo.remote(1)) == 1


def test_actors_hold_what_they_ask_for(start):
    """22: an actor that asks for a CPU holds it as long as it lives, and the next one waits."""
    start(num_cpus=1)
    first, second = (Holder.options(num_cpus=1).remote(n) for n in range(2))
    assert raylet.get(first.get.remote()) == 0
    waiting = second.get.remote()
    with pytest.raises(GetTimeoutError):
        raylet.get(waiting, timeout=0.2)
    raylet.kill(first)
    assert raylet.get(waiting, timeout=LIMIT_S) == 1


# 23 to 27: actors ------------------------------------------------------------------


def test_an_actor_is_restarted(session, tmp_path):
    """23: max_restarts times a killed actor comes back by its constructor, with its first state; then it is dead.
    32: actor retry: a call with max_task_retries survives."""

    @raylet.remote(max_restarts=2, max_task_retries=-1)
    class Restarts:
        def __init__(self, path):
            note(path)
            self.value = 0

        def add(self):
            self.value += 1
            return self.value, os.getpid()

    actor = Restarts.remote(tmp_path / "starts")
    pids = []
    for _ in range(2):
        value, pid = raylet.get(actor.add.remote())
        assert value == 1 and pid not in pids
        os.kill(pid, signal.SIGKILL)
        pids.append(pid)
        until(lambda pid=pid: not is_alive(pid))
    _, pid = raylet.get(actor.add.remote())
    assert len(notes(tmp_path / "starts")) == 3
    os.kill(pid, signal.SIGKILL)
    until(lambda: not is_alive(pid))
    with pytest.raises(ActorDiedError):
        raylet.get(actor.add.remote())


def test_as_many_threads_as_max_concurrency(session):
    """23: max_concurrency calls of a plain class run at once, and no more."""

    @raylet.remote(max_concurrency=4)
    class Meets:
        def __init__(self):
            self.barrier = threading.Barrier(4)
            self.inside = self.most = 0
            self.lock = threading.Lock()

        def meet(self):
            with self.lock:
                self.inside += 1
                self.most = max(self.most, self.inside)
            self.barrier.wait(LIMIT_S)
            with self.lock:
                self.inside -= 1
            return threading.get_ident()

        def report(self):
            return self.most

    meets = Meets.remote()
    assert len(set(raylet.get([meets.meet.remote() for _ in range(16)]))) <= 4
    assert raylet.get(meets.report.remote()) == 4


DETACHES = """
    import os, sys, raylet
    raylet.init(address="auto", namespace="shared", logging_level="ERROR")
    @raylet.remote
    class Counter:
        def __init__(self):
            self.value = 0
        def add(self):
            self.value += 1
            return self.value, os.getpid()
    if sys.argv[1] == "make":
        made = [Counter.options(name=name, lifetime=lifetime).remote()
                for name, lifetime in (("stays", "detached"), ("goes", None))]
        print(*raylet.get([actor.add.remote() for actor in made]))
    else:
        print(raylet.get(raylet.get_actor("stays").add.remote()))
        try:
            raylet.get_actor("goes")
        except ValueError:
            print("gone")
        raylet.kill(raylet.get_actor("stays"))
"""


def test_a_detached_actor_outlives_its_driver(tmp_path, service):
    """23: detached actors stay when their driver ends, and are found by name; the others end with it."""
    made, _ = run_program(tmp_path, DETACHES, "make", **service)
    stays, goes = (int(word.rstrip(")")) for word in made.split()[1::2])
    until(lambda: not is_alive(goes))
    assert is_alive(stays)
    found, _ = run_program(tmp_path, DETACHES, "find", **service)
    assert found.splitlines() == [f"(2, {stays})", "gone"]
    until(lambda: not is_alive(stays))


def test_names_of_actors(session):
    """23: a name belongs to one living actor of a namespace."""
    first = Holder.options(name="one").remote(1)
    assert raylet.get(raylet.get_actor("one").get.remote()) == 1
    with pytest.raises(raylet.exceptions.ActorAlreadyExistsError):
        Holder.options(name="one").remote(2)
    assert Holder.options(name="one", get_if_exists=True).remote(3) == first
    assert raylet.get(raylet.remote(lambda: raylet.get_actor("one")).remote()) == first
    elsewhere = Holder.options(name="one", namespace="elsewhere").remote(4)
    assert raylet.get(raylet.get_actor("one", "elsewhere").get.remote()) == 4 and elsewhere != first
    del first
    until(lambda: is_nobody("one"))
    with pytest.raises(ValueError, match="Failed to look up actor with name 'one'"):
        raylet.get_actor("one")


def is_nobody(name):
    try:
        raylet.get_actor(name)
    except ValueError:
        return True
    return False


def test_handles_travel_and_count(session, tmp_path):
    """24: a handle can be passed on; the actor lives as long as anybody has one, and finishes what was asked."""

    @raylet.remote
    def uses(handles, gate):
        pass_gate(gate)
        return raylet.get(handles[0].add.remote())

    holder = Holder.remote(10)
    pid = raylet.get(holder.pid.remote())
    assert raylet.get(raylet.put({"nested": holder}))["nested"] == holder
    later = uses.remote([holder], tmp_path / "gate")
    del holder
    touch(tmp_path / "gate")
    assert raylet.get(later) == 11
    until(lambda: not is_alive(pid))


def test_a_dropped_handle_lets_calls_finish(session):
    """24: dropping the last handle is not killing: what was asked before is done."""
    holder = Holder.remote(0)
    refs = [holder.add.remote() for _ in range(500)]
    del holder
    assert raylet.get(refs) == list(range(1, 501))


def test_calls_of_one_caller_are_in_order(session, tmp_path):
    """25: an actor runs the calls of one caller in the order they were made in, also across one that waits for its
    argument."""

    @raylet.remote
    def late(gate):
        pass_gate(gate)
        return "late"

    @raylet.remote
    class Log:
        def __init__(self):
            self.seen = []

        def add(self, value):
            self.seen.append(value)

        @raylet.method(num_returns=2)
        def both(self):
            return len(self.seen), self.seen

    log = Log.remote()
    for n in range(100):
        log.add.remote(n)
    log.add.remote(late.remote(tmp_path / "gate"))
    log.add.remote("last")
    count, seen = log.both.remote()
    touch(tmp_path / "gate")
    assert raylet.get(count) == 102 and raylet.get(seen) == [*range(100), "late", "last"]


def test_async_actors_run_calls_at_once(session):
    """26: with any async method an actor is an event loop in which a thousand calls may be at once; each method is a
    coroutine there, on one thread."""

    @raylet.remote
    class Meets:
        def __init__(self):
            self.count, self.all_here = 0, asyncio.Event()

        async def meet(self):
            self.count += 1
            if self.count == 100:
                self.all_here.set()
            await self.all_here.wait()
            return threading.get_ident()

        def plain(self):
            return threading.get_ident(), asyncio.get_event_loop().is_running()

    meets = Meets.remote()
    threads = set(raylet.get([meets.meet.remote() for _ in range(100)]))
    assert len(threads) == 1 and raylet.get(meets.plain.remote()) == (threads.pop(), True)


def test_an_async_actor_has_a_limit(session):
    """26: max_concurrency limits an async actor, too."""

    @raylet.remote(max_concurrency=3)
    class Counts:
        def __init__(self):
            self.inside = self.most = 0

        async def enter(self):
            self.inside += 1
            self.most = max(self.most, self.inside)
            for _ in range(10):
                await asyncio.sleep(0)
            self.inside -= 1
            return self.most

    counts = Counts.remote()
    assert max(raylet.get([counts.enter.remote() for _ in range(30)])) == 3


def test_an_async_generator_waits_for_its_reader(session):
    """26: an async generator runs ahead of its reader as far as it is told, while the loop does other things."""

    @raylet.remote
    class Counts:
        def __init__(self):
            self.made = 0

        async def items(self):
            for item in range(20):
                self.made += 1
                yield item

        async def count(self):
            return self.made

    counts = Counts.remote()
    for ahead in (1, 2):
        before = raylet.get(counts.count.remote())
        stream = counts.items.options(_generator_backpressure_num_objects=ahead).remote()
        for read in range(1, 21):
            assert raylet.get(next(stream)) == read - 1
            # One more is made, and waits until it may be given.
            assert all(raylet.get(counts.count.remote()) - before <= read + ahead + 1 for _ in range(10))
        assert raylet.get(counts.count.remote()) - before == 20
        assert list(stream) == []


def test_workers_and_actors(start):
    """27: an actor has a process of its own, a worker runs many tasks."""
    start(num_cpus=1)
    tasks = {raylet.get(pid_of_worker.remote()) for _ in range(10)}
    assert len(tasks) == 1
    holders = [Holder.remote() for _ in range(3)]
    actors = raylet.get([holder.pid.remote() for holder in holders])
    assert len({*actors, os.getpid()}) == 4
    assert raylet.get(pid_of_worker.remote()) not in actors
    assert raylet.get([holder.pid.remote() for holder in holders]) == actors


# 28 to 33: timeline, references, memory, recovery, the interface ---------------------


def test_events_of_programs_are_in_the_timeline(session, tmp_path):
    """28: profile_event marks a stretch of driver or worker; the timeline is a Chrome trace."""
    with raylet.profile("in the driver"):
        pass

    @raylet.remote
    def marked():
        with raylet.profile("in a task"):
            return os.getpid()

    pid = raylet.get(marked.remote())
    events = until(lambda: traced(tmp_path / "trace.json", {"in the driver", "in a task"}))
    by_name = {event["name"]: event for event in events}
    assert by_name["in a task"]["pid"] == pid or str(pid) in str(by_name["in a task"])
    assert by_name["in a task"]["ph"] == "X" and by_name["in a task"]["dur"] >= 0
    assert any("marked" in event["name"] for event in events)
    assert raylet.timeline()


def traced(path, names):
    raylet.timeline(str(path))
    events = json.loads(Path(path).read_text())
    return events if names <= {event["name"] for event in events} else None


def test_references_are_counted(session):
    """30: an object is there while anybody has a reference, also inside another; the store is empty again after."""
    start_bytes = used_bytes()
    outer = raylet.put([raylet.put(b"x" * 1_000_000)])
    holder = Holder.remote()
    raylet.get(holder.set.remote([outer]))
    del outer
    [kept] = raylet.get(holder.get.remote())
    assert len(raylet.get(raylet.get(kept)[0])) == 1_000_000 and used_bytes() > start_bytes + 1_000_000
    pid = raylet.get(holder.pid.remote())
    del kept
    os.kill(pid, signal.SIGKILL)
    # What a borrower had is given back when it dies.
    until(lambda: used_bytes() < start_bytes + 100_000)
    del holder


def test_arrays_are_views_of_the_store(session):
    """31: pickle 5 buffers are read in place: aligned, read-only, in the mapping, however large."""
    np = pytest.importorskip("numpy")
    ref = raylet.put({"array": np.arange(4_000_000)})
    one, two = raylet.get(ref)["array"], raylet.get(ref)["array"]
    assert np.shares_memory(one, two) and one.ctypes.data % 64 == 0 and not one.flags.writeable
    assert mapping_of(one.ctypes.data) == DATA
    with pytest.raises(ValueError, match="read-only"):
        one[0] = 1

    @raylet.remote
    def where(value):
        array = value["array"]
        return mapping_of(array.ctypes.data), array.flags.writeable, int(array.sum())

    assert raylet.get(where.remote(ref)) == (DATA, False, int(one.sum()))


def mapping_of(address):
    """The file that this process has mapped where an address is."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        first, last = (int(part, 16) for part in line.split()[0].split("-"))
        if first <= address < last:
            return line.split()[5]
    raise AssertionError("not mapped")


@pytest.fixture
def spilled(start, tmp_path):
    """A session that moves to a directory what has no room; a function that loses what is there."""
    start(object_spilling_directory=str(tmp_path))
    raylet.get(echo.remote())

    def lose():
        until(lambda: status()["store"]["spilled_object_count"] >= 5)
        for path in tmp_path.rglob("*.object"):
            path.unlink()

    return lose


def test_a_put_value_whose_bytes_are_lost(spilled):
    """32: what was moved to disk comes back; where its file is gone, whoever reads it is told, tasks as well, and
    others go on."""
    refs = [raylet.put(bytes([n]) * 8_000_000) for n in range(20)]
    until(lambda: status()["store"]["spilled_object_count"] >= 10)
    assert raylet.get(refs[0])[0] == 0, "it is restored"
    spilled()
    lost = [ref for ref in refs if is_lost(ref)]
    assert 3 < len(lost) < len(refs)
    with pytest.raises(ObjectLostError):
        raylet.get(echo.remote(lost[0]))
    assert raylet.get(echo.remote(1)) == 1


def test_a_result_whose_bytes_are_lost_is_made_again(spilled, tmp_path):
    """32: lineage: the task of a lost result runs again, and those below it whose results are lost as well."""
    counts = tmp_path / "counts"

    @raylet.remote
    def make(n):
        note(counts, n)
        return bytes([n]) * 4_000_000

    @raylet.remote
    def double(value):
        note(counts, "double")
        return value * 2

    firsts = [make.remote(n) for n in range(12)]
    seconds = [double.remote(first) for first in firsts]
    names = [ref.hex() for ref in seconds]
    raylet.wait(seconds, num_returns=len(seconds))
    spilled()
    before = len(notes(counts))
    for n, ref in enumerate(seconds):
        value = raylet.get(ref, timeout=LIMIT_S)
        assert value[0] == n and len(value) == 8_000_000
        del value
    assert len(notes(counts)) > before and [ref.hex() for ref in seconds] == names


def is_lost(ref):
    try:
        raylet.get(ref)
    except ObjectLostError:
        return True
    return False


def test_put_and_get_are_synchronous_and_remote_is_not(session, tmp_path):
    """33: put and get do it; `.remote` gives a reference at once; get with a timeout gives up."""

    @raylet.remote
    def waits(gate):
        pass_gate(gate)
        return "through"

    ref = waits.remote(tmp_path / "gate")
    assert isinstance(ref, raylet.ObjectRef)
    with pytest.raises(GetTimeoutError):
        raylet.get(ref, timeout=0)
    with pytest.raises(TimeoutError):
        raylet.get([raylet.put(1), ref], timeout=0.01)
    touch(tmp_path / "gate")
    assert raylet.get(ref) == raylet.get(ref) == "through"
    assert raylet.get([raylet.put(n) for n in range(3)]) == [0, 1, 2] and raylet.get([]) == []


def test_wait_gives_two_lists_in_order(session, tmp_path):
    """33: wait gives the ready references and the others, one ready where no number is said, both in order."""

    @raylet.remote
    def waits(gate):
        pass_gate(gate)

    refs = [raylet.put(0), waits.remote(tmp_path / "gate"), raylet.put(2), waits.remote(tmp_path / "gate")]
    assert [len(part) for part in raylet.wait(refs)] == [1, 3]
    ready, rest = raylet.wait(refs, num_returns=4, timeout=0)
    assert ready == [refs[0], refs[2]] and rest == [refs[1], refs[3]]
    touch(tmp_path / "gate")
    assert raylet.wait(refs, num_returns=4) == (refs, [])
    for wrong in ((refs[0],), refs[0], [1]):
        with pytest.raises(TypeError):
            raylet.wait(wrong)
    for arguments in ({"num_returns": 0}, {"num_returns": 5}, {"timeout": -1}):
        with pytest.raises(ValueError):
            raylet.wait(refs, **arguments)
    with pytest.raises(ValueError, match="unique"):
        raylet.wait([refs[0], refs[0]])


def test_errors_are_raised_where_values_are_read(session):
    """33: get raises what the task raised, as its own kind, and at once where one of many failed."""

    @raylet.remote
    def fails():
        raise KeyError("on purpose")

    ref = fails.remote()
    with pytest.raises(KeyError) as raised:
        raylet.get(ref)
    assert isinstance(raised.value, RayTaskError) and isinstance(raised.value.cause, KeyError)
    with pytest.raises(KeyError):
        raylet.get(echo.remote(ref))
    assert raylet.wait([ref]) == ([ref], [])

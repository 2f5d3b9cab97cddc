"""What goes wrong: bad input, deaths of any process, signals, forks. Each ends with its exception and never hangs.

The one thing to know: every wait has a limit that a working product does not come near, so that a hang is a failure.
This file must not rely on an order of two deaths.
"""

import asyncio
import atexit
import ctypes
import json
import multiprocessing
import os
import pickle
import select
import signal
import subprocess
import sys
import threading
import time
import warnings

import pytest
from support import (
    LIMIT_S,
    Traces,
    descendants,
    get,
    is_alive,
    note,
    notes,
    pass_gate,
    run_program,
    running,
    start_program,
    status,
    touch,
    until,
    used_bytes,
)

import raylet
from raylet.exceptions import (
    ActorDiedError,
    ActorUnavailableError,
    GetTimeoutError,
    ObjectStoreFullError,
    RayActorError,
    RayError,
    RaySystemError,
    RayTaskError,
    TaskCancelledError,
    WorkerCrashedError,
)


def kill_self():
    os.kill(os.getpid(), signal.SIGKILL)


def terminate_self():
    os.kill(os.getpid(), signal.SIGTERM)
    signal.pause()


def read_null():
    ctypes.string_at(0)


def exit_in_silence():
    os._exit(0)


def exit_loudly():
    os._exit(7)


def leave():
    sys.exit()


def leave_with_a_code():
    sys.exit(3)


DEATHS = [kill_self, terminate_self, read_null, os.abort, exit_in_silence, exit_loudly, leave, leave_with_a_code]


@raylet.remote
def echo(value=None):
    return value


@raylet.remote(max_retries=0)
def call(function, *args):
    return function(*args)


@raylet.remote
class Caller:
    """Calls functions in its process."""

    def __init__(self, path=None):
        if path is not None:
            note(path, os.getpid())

    def call(self, function, *args):
        return function(*args)

    def pid(self):
        return os.getpid()


def works():
    """Whether a task runs and a value is put."""
    return get(echo.remote(raylet.put("as before"))) == "as before"


# Deaths of workers and actors -----------------------------------------------------


@pytest.mark.parametrize("death", DEATHS)
def test_a_worker_dies_in_a_task(session, death):
    ref = call.remote(death)
    with pytest.raises(WorkerCrashedError):
        get(ref)
    with pytest.raises(WorkerCrashedError):
        get(ref)
    assert works()


@pytest.mark.parametrize("death", DEATHS)
def test_an_actor_dies_in_a_call(session, death):
    actor = Caller.remote()
    pid = get(actor.pid.remote())
    refs = [actor.call.remote(death), actor.pid.remote(), actor.pid.remote()]
    for ref in refs:
        with pytest.raises(ActorDiedError):
            get(ref)
    with pytest.raises(ActorDiedError):
        get(actor.pid.remote())
    assert works() and not is_alive(pid)


def test_an_actor_dies_in_its_constructor(session):
    @raylet.remote
    class Dies:
        def __init__(self, death):
            death()

        def ready(self):
            return True

    for death in (kill_self, exit_in_silence):
        with pytest.raises(ActorDiedError):
            get(Dies.remote(death).ready.remote())

    def fails():
        raise ValueError("the reason of the constructor")

    with pytest.raises(ActorDiedError, match="the reason of the constructor"):
        get(Dies.remote(fails).ready.remote())
    assert works()


def test_a_call_in_flight_when_its_actor_is_restarted(session, tmp_path):
    """Without retries the call fails and the next one finds the new process; with retries it is made again."""
    actor = Caller.options(max_restarts=-1).remote(tmp_path / "starts")
    with pytest.raises(ActorUnavailableError):
        get(actor.call.remote(kill_self))
    assert until(lambda: pid_or_none(actor))
    retried = Caller.options(max_restarts=1, max_task_retries=1).remote(tmp_path / "starts")
    assert get(retried.call.remote(die_once, tmp_path / "died")) == "through"
    assert len(notes(tmp_path / "starts")) == 4


def pid_or_none(actor):
    try:
        return get(actor.pid.remote())
    except RayActorError:
        return None


def die_once(path):
    if not notes(path):
        note(path)
        kill_self()
    return "through"


def test_all_attempts_die(session, tmp_path):
    def dies():
        note(tmp_path / "attempts")
        read_null()

    with pytest.raises(WorkerCrashedError):
        get(raylet.remote(max_retries=1)(dies).remote())
    assert len(notes(tmp_path / "attempts")) == 2
    actor = Caller.options(max_restarts=1, max_task_retries=-1).remote(tmp_path / "starts")
    with pytest.raises(ActorDiedError):
        get(actor.call.remote(dies))
    assert len(notes(tmp_path / "attempts")) == 4 and len(notes(tmp_path / "starts")) == 2


def test_killed_actors_stay_dead(session):
    actor = Caller.options(max_restarts=-1).remote()
    pid = get(actor.pid.remote())
    raylet.kill(actor, no_restart=False)
    other = until(lambda: pid_or_none(actor))
    assert other != pid
    blocked = actor.call.remote(time.sleep, 1000)
    raylet.kill(actor)
    for ref in (blocked, actor.pid.remote()):
        with pytest.raises(RayActorError):
            get(ref)
    until(lambda: not is_alive(other))
    with pytest.raises(ActorDiedError, match="killed by `ray.kill`"):
        get(actor.pid.remote())


def test_a_worker_dies_while_others_wait_for_it(session, tmp_path):
    """Who has the result as an argument fails with it; who is beside goes on."""
    first = call.remote(die_at_gate, tmp_path / "gate")
    behind = echo.remote(first)
    nested = echo.remote([first])
    beside = echo.remote("beside")
    assert get(beside) == "beside" and get(nested) == [first]
    touch(tmp_path / "gate")
    with pytest.raises(WorkerCrashedError):
        get([beside, first])
    with pytest.raises(RayError):
        get(behind)


def die_at_gate(gate):
    pass_gate(gate)
    kill_self()


def test_the_zygote_dies(session):
    """The process that workers are forked from is started again."""
    pid = get(call.remote(os.getpid))
    parent = get(call.remote(os.getppid))
    os.kill(parent, signal.SIGKILL)
    until(lambda: not is_alive(parent))
    os.kill(pid, signal.SIGKILL)
    assert get([echo.options(max_retries=-1).remote(n) for n in range(10)]) == list(range(10))
    assert get(Caller.remote().call.remote(max, 1, 2)) == 2


def test_errors_of_deaths_say_who_and_how(session):
    """The texts that programs look for, the id of the actor, and how its process or the worker ended."""
    crashed = error_of(call.remote(kill_self))
    assert str(crashed).startswith("The worker died unexpectedly while executing this task. Check")
    assert "signal 9" in str(crashed) and str(pickle.loads(pickle.dumps(crashed))) == str(crashed)
    assert "exit code 7" in str(error_of(call.remote(exit_loudly)))
    unexpectedly = "The actor died unexpectedly before finishing this task."
    ends = {
        "its worker process has died (signal 9)": lambda actor: actor.call.remote(kill_self),
        "INTENDED_USER_EXIT: exit_actor() is called.": lambda actor: actor.call.remote(raylet.actor.exit_actor),
        "it was killed by `ray.kill`.": killed,
    }
    for words, end in ends.items():
        actor = Caller.remote()
        get(actor.pid.remote())
        for ref in (end(actor), actor.pid.remote()):
            error = error_of(ref)
            assert isinstance(error, ActorDiedError) and error.actor_id == actor._actor_id.hex()
            assert str(error).startswith(unexpectedly) and words in str(error), (words, str(error))
    actor = Caller.options(max_restarts=-1).remote()
    ref = actor.call.remote(kill_self)
    for error in (error_of(ref), error_of(ref)):
        assert isinstance(error, ActorUnavailableError) and error.actor_id == actor._actor_id.hex()
        assert str(error).startswith(f"The actor {error.actor_id} is unavailable: ") and "signal 9" in str(error)


def error_of(ref):
    with pytest.raises(RayError) as caught:
        get(ref)
    return caught.value


def killed(actor):
    raylet.kill(actor)
    return actor.pid.remote()


# Values that do not go through ---------------------------------------------------


class Locked:
    """Has something that cannot be pickled."""

    def __init__(self):
        self.the_culprit = threading.Lock()


def test_what_cannot_be_sent_is_named(session):
    """put, arguments, results, closures, classes and their state: the text says which attribute it is."""
    culprit = Locked()
    with pytest.raises(TypeError, match="the_culprit"):
        raylet.put(culprit)
    with pytest.raises(TypeError, match="the_culprit"):
        echo.remote([culprit])
    with pytest.raises(TypeError, match="culprit"):
        raylet.remote(lambda: culprit).remote()
    with pytest.raises(TypeError, match="the_culprit"):
        Caller.remote(path=culprit)
    with pytest.raises(TypeError, match="the_culprit"):
        get(call.remote(Locked))
    with pytest.raises(TypeError, match="the_culprit"):
        get(Caller.remote().call.remote(Locked))
    with pytest.raises(TypeError, match="generator"):
        raylet.put(n for n in range(3))
    assert works()


class Refuses:
    """Cannot be unpickled where its file is."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return refuse, (self.path,)


def refuse(path):
    if os.path.exists(path):
        raise ValueError("it will not be unpickled here")
    return Refuses(path)


def test_a_value_that_does_not_unpickle(session, tmp_path):
    """On the driver get raises; in a task that has it as an argument the task fails."""
    path = str(tmp_path / "refuse")
    ref = call.remote(Refuses, path)
    raylet.wait([ref])
    assert get(ref).path == path
    touch(path)
    for _ in range(2):
        with pytest.raises((RaySystemError, ValueError), match="it will not be unpickled here"):
            get(ref)
    with pytest.raises(RayError, match="it will not be unpickled here"):
        get(echo.remote(ref))
    with pytest.raises(RayError, match="it will not be unpickled here"):
        get(Caller.remote().call.remote(id, ref))
    assert works()


def test_a_module_that_the_driver_does_not_have(session, tmp_path):
    def makes(directory):
        sys.path.insert(0, directory)
        with open(os.path.join(directory, "only_in_the_worker.py"), "w") as file:
            file.write("class Thing:\n    pass\n")
        import only_in_the_worker

        sys.path.remove(directory)
        return only_in_the_worker.Thing()

    with pytest.raises((RaySystemError, ImportError), match="only_in_the_worker"):
        get(call.remote(makes, str(tmp_path)))
    assert works()


class Odd(Exception):
    """An exception that pickles and does not unpickle."""

    def __init__(self, one, two):
        super().__init__("the text of the odd one")


class Unpicklable(Exception):
    """An exception that has a lock."""

    def __init__(self):
        super().__init__("the text of the locked one")
        self.lock = threading.Lock()


def raises(kind, *args):
    raise kind(*args)


def test_exceptions_that_do_not_travel(session):
    for kind, args, text in ((Odd, (1, 2), "the odd one"), (Unpicklable, (), "the locked one")):
        for ref in (call.remote(raises, kind, *args), Caller.remote().call.remote(raises, kind, *args)):
            with pytest.raises(RayError, match=text):
                get(ref)
    with pytest.raises(RayTaskError, match="a bare one"):
        get(call.remote(raises, BaseException, "a bare one"))
    with pytest.raises(RayTaskError):
        get(call.remote(raises, KeyboardInterrupt))
    assert works()


def test_recursion_without_end(session):
    def endless(n=0):
        return endless(n + 1)

    with pytest.raises(RecursionError):
        get(call.remote(endless))
    with pytest.raises((RecursionError, TypeError, pickle.PicklingError)):
        get(call.remote(nest, 100_000))

    @raylet.remote
    def below(n):
        return n if n == 0 else get(below.remote(n - 1)) + 1

    assert get(below.remote(12)) == 12
    assert works()


def nest(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


def test_wrong_arguments_of_the_interface(session):
    """What Ray checks is checked, with its kinds of exceptions."""
    ref, actor = echo.remote(1), Caller.remote()
    for wrong in ((ref,), {ref}, 5, None, "text"):
        with pytest.raises(ValueError, match="Invalid type of object refs"):
            raylet.get(wrong)
    with pytest.raises(TypeError, match="which is not an ray.ObjectRef"):
        raylet.get([ref, 1])
    with pytest.raises(TypeError, match="Calling 'put' on an ray.ObjectRef is not allowed"):
        raylet.put(ref)
    with pytest.raises(TypeError, match="Remote functions cannot be called directly"):
        echo(1)
    with pytest.raises(TypeError, match="Actors cannot be instantiated directly"):
        Caller()
    with pytest.raises(TypeError, match="Actor methods cannot be called directly"):
        actor.pid()
    with pytest.raises(AttributeError, match="no attribute 'missing'"):
        actor.missing.remote()
    with pytest.raises(ValueError, match="only supported for actors"):
        raylet.kill(ref)
    with pytest.raises(TypeError, match="only supported for object refs"):
        raylet.cancel(actor)
    with pytest.raises(ValueError, match="force=True is not supported for actor tasks"):
        raylet.cancel(actor.pid.remote(), force=True)
    assert get(ref) == 1


# A full store ------------------------------------------------------------------


def test_more_values_than_the_store_holds(session):
    """What does not fit is on disk, and comes back."""
    refs = [raylet.put(bytes([n]) * 10_000_000) for n in range(24)]
    refs += [call.remote(bytes, 10_000_000) for _ in range(8)]
    assert [get(ref)[0] for ref in refs] == [*range(24), *[0] * 8]
    del refs
    until(lambda: used_bytes() < 1_000_000)
    assert status()["store"]["spilled_bytes"] == 0


def test_a_value_larger_than_the_store(session):
    """A put, a result or an argument that can never fit is an error, and others go on."""
    size = 200 * 2**20
    with pytest.raises(ObjectStoreFullError):
        raylet.put(bytes(size))
    with pytest.raises(RayError):
        get(call.remote(bytes, size))
    with pytest.raises(ObjectStoreFullError):
        echo.remote(bytes(size))
    assert works()
    until(lambda: used_bytes() < 1_000_000)


def test_values_in_use_fill_the_store(session):
    """What somebody reads stays in memory; a put that finds no room is an error, and works once there is some."""
    np = pytest.importorskip("numpy")
    in_use = []
    with pytest.raises(ObjectStoreFullError):
        for _ in range(20):
            in_use.append(raylet.get(raylet.put(np.ones(1_000_000))))
    assert len(in_use) > 5 and all(array[-1] == 1 for array in in_use)
    in_use.clear()
    assert works() and len(get(raylet.put(bytes(8_000_000)))) == 8_000_000


# Deaths of the raylet and of the driver ---------------------------------------------

BLOCKS = """
    import os, sys, json, threading, time, raylet, support
    raylet.init(address="local", num_cpus=2, logging_level="ERROR")

    @raylet.remote
    def sleeps():
        time.sleep(1000)

    @raylet.remote
    class Actor:
        def sleep(self):
            time.sleep(1000)
        def pid(self):
            return os.getpid()
        def yields(self):
            yield 1
            time.sleep(1000)

    actor, busy, idle = Actor.remote(), Actor.remote(), Actor.remote()
    stream = Actor.remote().yields.remote()
    raylet.get(next(stream))
    raylet.get([idle.pid.remote(), actor.pid.remote(), busy.pid.remote()])
    refs = [sleeps.remote() for _ in range(4)]
    support.until(lambda: support.running().count("sleeps") == 2)
    kept = raylet.put("kept")

    def says(what, function):
        try:
            function()
            words = ["value"]
        except BaseException as error:
            words = [kind.__name__ for kind in type(error).__mro__]
        os.write(1, " ".join([what, *words, "\\n"]).encode())

    blocked = {
        "get": lambda: raylet.get(refs[0]),
        "gets": lambda: raylet.get(refs),
        "wait": lambda: raylet.wait(refs, num_returns=4),
        "actor": lambda: raylet.get(actor.sleep.remote()),
        "next": lambda: raylet.get(next(stream)),
        "future": lambda: refs[1].future().result(),
    }
    threads = [threading.Thread(target=says, args=item, daemon=True) for item in blocked.items()]
    [thread.start() for thread in threads]
    traces = support.Traces()
    print(json.dumps([traces.raylet, traces.directory, traces.segment, sorted(traces.processes)]), flush=True)
    for thread in threads:
        thread.join(40)
    for what, function in {
        "put": lambda: raylet.put(1),
        "later": lambda: raylet.get(sleeps.remote()),
        "call": lambda: raylet.get(idle.pid.remote()),
        "make": lambda: raylet.get(Actor.remote().pid.remote()),
        "status": lambda: raylet.cluster_resources(),
        "group": lambda: raylet.util.placement_group([{"CPU": 1}]),
    }.items():
        thread = threading.Thread(target=says, args=(what, function), daemon=True)
        thread.start()
        thread.join(40)
    raylet.shutdown()
    print("again", flush=True)
    raylet.init(address="local", num_cpus=1, logging_level="ERROR")
    print(raylet.get(Actor.remote().pid.remote()) > 0, flush=True)
"""


def test_the_raylet_dies(tmp_path):
    """Every call that waits ends with a documented exception, later ones as well; a new session can begin."""
    program = start_program(tmp_path, BLOCKS)
    pid, directory, segment, processes = json.loads(program.stdout.readline())
    os.kill(pid, signal.SIGKILL)
    out, err = program.communicate(timeout=LIMIT_S)
    assert program.returncode == 0, out + err
    *said, again, ran = out.splitlines()
    assert (again, ran) == ("again", "True")
    ended = {line.split()[0]: line.split()[1:] for line in said}
    names = {"get", "gets", "wait", "actor", "next", "future", "put", "later", "call", "make", "status", "group"}
    assert set(ended) == names
    # The store's memory is there as long as anybody uses it, so that a put may still find room.
    assert ended.pop("put") == ["value"]
    for what, kinds in ended.items():
        assert "RayError" in kinds, (what, kinds)
    until(lambda: not any(map(is_alive, processes)))
    until(lambda: not os.path.exists(segment) and not os.path.exists(directory))


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_the_driver_is_killed_while_all_work(tmp_path, how):
    """Whatever ends a driver, soon no process, directory or segment is left of what it started."""
    program = start_program(tmp_path, BLOCKS)
    _, directory, segment, processes = json.loads(program.stdout.readline())
    assert len([pid for pid in processes if is_alive(pid)]) >= 6
    program.send_signal(how)
    program.communicate(timeout=LIMIT_S)
    assert program.returncode != 0
    until(lambda: not any(map(is_alive, processes)))
    assert not os.path.exists(segment)
    until(lambda: not os.path.exists(directory))


WAITS = """
    import os, sys, time, raylet
    raylet.init(address="local", num_cpus=1, logging_level="ERROR")
    @raylet.remote
    def sleeps(n):
        time.sleep(n)
        return os.getpid()
    pid = raylet.get(sleeps.remote(0))
    print("ready", flush=True)
    try:
        {blocked}
    except KeyboardInterrupt:
        print("interrupted", flush=True)
    raylet.cancel(ref, force=True)
    print(raylet.get(sleeps.remote(0)) > 0, flush=True)
"""


@pytest.mark.parametrize(
    "blocked",
    [
        "ref = sleeps.remote(1000); raylet.get(ref)",
        "ref = sleeps.remote(1000); raylet.get([raylet.put(1), ref, sleeps.remote(0)])",
        "ref = sleeps.remote(1000); raylet.wait([ref])",
        "ref = sleeps.remote(1000); ref.future().result()",
    ],
)
def test_an_interrupt_ends_a_wait(tmp_path, blocked):
    """Ctrl-C raises in the call that waits, as soon as it can; the session goes on."""
    program = start_program(tmp_path, WAITS.format(blocked=blocked))
    assert program.stdout.readline() == "ready\n"
    until(lambda: is_waiting(program.pid))
    program.send_signal(signal.SIGINT)
    # A lock of Python's sleeps on where the signal comes between its last look and its sleep: once more, then.
    if "future" in blocked and not select.select([program.stdout], [], [], 5)[0]:
        program.send_signal(signal.SIGINT)
    out, err = program.communicate(timeout=LIMIT_S)
    assert (program.returncode, out) == (0, "interrupted\nTrue\n"), err


def is_waiting(pid):
    """Whether the main thread of a process sleeps."""
    with open(f"/proc/{pid}/stat") as stat:
        return stat.read().rsplit(")", 1)[1].split()[0] == "S"


# Forks, threads, processes and the end of workers -----------------------------------


def test_a_fork_of_the_driver_is_no_driver(session):
    """A forked child may come to its end and must not end the session; what it asks of it is an error."""
    ref = echo.remote("value")
    get(ref)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            said = f"{raylet.is_initialized()} "
            try:
                raylet.get(ref, timeout=20)
                said += "value"
            except Exception as error:
                said += type(error).__name__
            os.write(writer, said.encode())
            raylet.shutdown()
            atexit._run_exitfuncs()
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        assert pipe.read() in ("False RaySystemError", "False value")
    assert os.waitpid(child, 0)[1] == 0
    assert works() and get(ref) == "value"


FORKS = """
    import multiprocessing, os, sys, raylet
    raylet.init(address="local", num_cpus=2, logging_level="ERROR")
    @raylet.remote
    def f(x):
        return x + 1
    assert raylet.get(f.remote(1)) == 2
    def square(x):
        return x * x
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map(square, range(10)) == [x * x for x in range(10)]
    pid = os.fork()
    if pid == 0:
        sys.exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    assert raylet.get([f.remote(n) for n in range(100)]) == list(range(1, 101))
    print("done")
"""


def test_a_driver_that_forks_processes(tmp_path):
    """A pool of forked processes and a child that ends as an interpreter does leave the session alone."""
    out, err = run_program(tmp_path, FORKS)
    assert out == "done\n" and "Traceback" not in err


def test_forks_in_a_task(session):
    def forks():
        child = os.fork()
        if child == 0:
            os._exit(5)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), os.getpid()

    def forks_and_leaves():
        child = os.fork()
        if child == 0:
            sys.exit(6)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), os.getpid()

    actor = Caller.remote()
    for run in (call.remote, actor.call.remote):
        code, pid = get(run(forks))
        assert code == 5
        assert get(run(os.getpid)) == pid or run == call.remote
    code, _ = get(call.remote(forks_and_leaves))
    assert code == 6 and works()
    assert get(actor.call.remote(max, 1, 2)) == 2


def test_programs_in_a_task(session):
    def runs():
        done = subprocess.run([sys.executable, "-c", "print(6 * 7)"], capture_output=True, text=True)
        return done.stdout, done.returncode

    assert get(call.remote(runs)) == ("42\n", 0)


def square(x):
    return x * x


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_multiprocessing_in_a_worker(session, method):
    def pools():
        with multiprocessing.get_context(method).Pool(2) as pool:
            return pool.map(square, range(5))

    assert get(call.remote(pools)) == [0, 1, 4, 9, 16]
    assert get(Caller.remote().call.remote(pools)) == [0, 1, 4, 9, 16]
    assert works()


def test_threads_in_a_task(session, tmp_path):
    """Threads of a task submit, put and get; one that outlives its task goes on in the worker."""

    def threads():
        results = []

        def ask(n):
            results.append(raylet.get(echo.options(num_cpus=0).remote(raylet.put(n))))

        started = [threading.Thread(target=ask, args=(n,)) for n in range(8)]
        [thread.start() for thread in started]
        [thread.join() for thread in started]
        return sorted(results)

    assert get(call.remote(threads)) == list(range(8))
    assert get(Caller.remote().call.remote(threads)) == list(range(8))

    def leaves_one(gate, done):
        threading.Thread(target=lambda: (pass_gate(gate), touch(done)), daemon=True).start()

    actor = Caller.remote()
    get(actor.call.remote(leaves_one, tmp_path / "gate", tmp_path / "done"))
    touch(tmp_path / "gate")
    until((tmp_path / "done").exists)
    assert works()


HANDLERS = 1000


def registers(path):
    """Has this process write lines at its end."""
    note(f"{path}.pid", os.getpid())
    for n in range(HANDLERS):
        atexit.register(note, path, n)


def registers_and_leaves(path):
    registers(path)
    sys.exit(0)


def ends_by_its_last_call(path):
    get(raylet.remote(max_calls=1)(registers).remote(path))


def ends_by_sys_exit(path):
    with pytest.raises(WorkerCrashedError):
        get(call.remote(registers_and_leaves, path))


def ends_by_its_last_handle(path):
    actor = Caller.remote()
    get(actor.call.remote(registers, path))


def ends_by_exit_actor(path):
    actor = Caller.remote()
    get(actor.call.remote(registers, path))
    with pytest.raises(ActorDiedError):
        get(actor.call.remote(raylet.actor.exit_actor))


@pytest.mark.parametrize(
    "end",
    [
        ends_by_sys_exit,
        ends_by_its_last_call,
        ends_by_its_last_handle,
        ends_by_exit_actor,
    ],
)
def test_exit_handlers_run(session, tmp_path, end):
    """atexit in a worker and in an actor that end by themselves: all handlers, to their end."""
    path = tmp_path / "handlers"
    end(path)
    [pid] = notes(f"{path}.pid")
    until(lambda: not is_alive(pid))
    assert len(notes(path)) == HANDLERS


def test_cancel_interrupts_what_blocks(session, tmp_path):
    """A cancelled task is interrupted where it is, also in a C call that waits; it is not tried again."""

    def sleeps(started, seen):
        touch(started)
        try:
            time.sleep(1000)
        except KeyboardInterrupt:
            touch(seen)
            raise

    ref = raylet.remote(sleeps).remote(tmp_path / "started", tmp_path / "seen")
    behind = echo.remote(ref)
    until((tmp_path / "started").exists)
    raylet.cancel(ref)
    with pytest.raises(TaskCancelledError):
        get(ref)
    with pytest.raises((TaskCancelledError, RayTaskError)):
        get(behind)
    assert (tmp_path / "seen").exists() and works()
    forced = call.remote(time.sleep, 1000)
    until(lambda: running() == ["call"])
    raylet.cancel(forced, force=True)
    with pytest.raises((TaskCancelledError, WorkerCrashedError)):
        get(forced)
    done = echo.remote("done")
    get(done)
    raylet.cancel(done)
    assert get(done) == "done"


def test_cancel_reaches_a_call_that_waits_for_an_event_loop(session, tmp_path):
    """A call that an actor has taken and that its blocked loop has not begun is cancelled all the same."""

    @raylet.remote(concurrency_groups={"other": 1})
    class Busy:
        @raylet.method(concurrency_group="other")
        async def sleep(self):
            touch(tmp_path / "sleeps")
            try:
                await asyncio.sleep(1000)
            finally:
                touch(tmp_path / "woken")

        async def block(self):
            touch(tmp_path / "blocks")
            pass_gate(tmp_path / "go on")

        async def quick(self, path):
            touch(path)

    actor = Busy.remote()
    sleeping, blocking = actor.sleep.remote(), actor.block.remote()
    until(lambda: (tmp_path / "blocks").exists() and (tmp_path / "sleeps").exists())
    waiting = [actor.quick.remote(tmp_path / f"began {number}") for number in range(3)]
    raylet.cancel(waiting[1])
    # Cancels arrive in order: when this one has, so has the other.
    raylet.cancel(sleeping)
    until((tmp_path / "woken").exists)
    touch(tmp_path / "go on")
    get([blocking, waiting[0], waiting[2]])
    with pytest.raises(TaskCancelledError):
        get(waiting[1])
    assert not (tmp_path / "began 1").exists()


@pytest.mark.parametrize("form", ["fails.remote()", "Actor.remote().fails.remote()"])
def test_an_error_that_nobody_can_read_is_reported_once(tmp_path, form):
    """The error of a call whose reference is gone before it fails is reported where it fails, once."""
    text = f"""
    import sys, raylet, support

    raylet.init(num_cpus=2)

    def failing():
        support.touch(sys.argv[1])
        support.pass_gate(sys.argv[2])
        raise ValueError("nobody reads this")

    fails = raylet.remote(failing)

    @raylet.remote
    class Actor:
        def fails(self):
            failing()

    {form}
    support.pass_gate(sys.argv[1])
    support.touch(sys.argv[2])
    support.until(lambda: not support.running())
    """
    out, err = run_program(tmp_path, text, tmp_path / "began", tmp_path / "gate")
    assert (out + err).count("Unhandled error") == 1, out + err


def test_signals_of_others_do_not_interrupt_a_task(session, tmp_path):
    """An interrupt that no cancel asked for, as a terminal sends to everybody, is nothing to a worker."""

    def waits(gate):
        note(tmp_path / "pid", os.getpid())
        pass_gate(gate)
        return "through"

    ref = call.remote(waits, tmp_path / "gate")
    [pid] = until(lambda: notes(tmp_path / "pid"))
    os.kill(int(pid), signal.SIGINT)
    touch(tmp_path / "gate")
    assert get(ref) == "through"


def test_requests_that_cannot_be_met_wait(session):
    """A task that asks for more than there is waits, as in Ray; the program can give up and cancel it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ref = echo.options(num_cpus=99).remote(1)
    with pytest.raises(GetTimeoutError):
        raylet.get(ref, timeout=0.1)
    raylet.cancel(ref)
    with pytest.raises(TaskCancelledError):
        get(ref)


def test_nothing_is_left_of_programs_in_workers(start):
    """Workers that are killed with the session are gone, with what they forked."""
    start()
    traces = Traces()
    blocked = [call.remote(time.sleep, 1000), call.remote(sleep_in_a_child)]
    until(lambda: running() == ["call", "call"])
    until(lambda: len(descendants(traces.raylet)) >= 5)
    traces.look()
    raylet.shutdown()
    assert len(blocked) == 2
    until(lambda: not traces.left())


def sleep_in_a_child():
    subprocess.run(["sleep", "1000"])

"""The mechanisms of the programming model, each by its number in the list that the project was built from.

The one thing to know: one session for most of the file; what needs another one runs a script in a process of its
own. This file must not test what the suite of `tests/conformance` has recorded, but for naming the mechanism.
"""

import ctypes
import gc
import os
import signal
import subprocess
import sys
import textwrap
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

import raylet as ray

PACKAGE = Path(__file__).resolve().parents[1]
SETTINGS = {"address": "local", "num_cpus": 2, "logging_level": "ERROR", "object_store_memory": 128 * 2**20}


@pytest.fixture(scope="module", autouse=True)
def session():
    ray.init(**SETTINGS)
    yield
    ray.shutdown()


def until(condition, seconds=20):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.01)
    return False


def run(text, **more):
    """Run a driver script; what it printed."""
    head = f"import os, sys, time\nimport raylet as ray\nSETTINGS = {SETTINGS!r}\n"
    done = subprocess.run(
        [sys.executable, "-c", head + textwrap.dedent(text)],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=PACKAGE,
        **more,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


def test_mechanism_1_modes_of_init():
    out = run(
        """
        def children():
            return len(open(f"/proc/self/task/{os.getpid()}/children").read().split())
        ray.init(local_mode=True)
        @ray.remote
        def pid(): return os.getpid()
        print(children(), ray.get(pid.remote()) == os.getpid())
        ray.shutdown()
        ray.init(**SETTINGS)
        print(children() > 0, ray.get(pid.remote()) == os.getpid())
        """
    )
    assert out == ["0", "True", "True", "False"]


def test_mechanism_1_connect_only_leaves_the_raylet_alone():
    address = ray.init(ignore_reinit_error=True).address_info["address"]
    out = run(
        f"""
        ray.init(address={address!r}, logging_level="ERROR")
        print(ray.get(ray.remote(lambda: "joined").remote()))
        """
    )
    assert out == ["joined"]
    assert ray.get(ray.put("still here")) == "still here"


def test_mechanism_2_a_second_init_is_refused_unless_it_is_allowed():
    with pytest.raises(RuntimeError, match="Maybe you called ray.init twice by accident"):
        ray.init()
    assert ray.init(ignore_reinit_error=True).address_info["node_id"]


def test_mechanism_3_nothing_is_left_of_a_driver_that_is_killed():
    script = "import os, time, raylet as ray\nray.init(address='local', num_cpus=1, logging_level='ERROR')\n"
    script += "@ray.remote\ndef pid(): return os.getpid()\n"
    script += "print(ray.get(pid.remote()), ray.init(ignore_reinit_error=True).address_info['session_dir'], flush=True)\n"
    driver = subprocess.Popen(
        [sys.executable, "-c", script + "time.sleep(60)"], stdout=subprocess.PIPE, text=True, cwd=PACKAGE
    )
    worker, directory = driver.stdout.readline().split()
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    driver.stdout.close()
    assert until(lambda: not alive(int(worker)))
    assert until(lambda: not os.path.exists(directory))


def test_mechanism_5_and_6_jobs_are_numbered_and_name_their_driver():
    address = ray.init(ignore_reinit_error=True).address_info["address"]
    script = f"""
        ray.init(address={address!r}, logging_level="ERROR")
        context = ray.get_runtime_context()
        print(context.get_job_id(), context.get_worker_id())
        """
    first, second = run(script), run(script)
    numbers = [int.from_bytes(bytes.fromhex(out[0]), "little") for out in (first, second)]
    assert numbers[1] == numbers[0] + 1
    assert first[1] == first[0] + "ff" * 24


def test_mechanism_7_and_8_lines_and_errors_go_to_their_own_driver():
    address = ray.init(ignore_reinit_error=True).address_info["address"]
    out = run(
        f"""
        ray.init(address={address!r}, logging_level="ERROR")
        @ray.remote
        def shout(): print("other", flush=True)
        ray.get(shout.remote())
        """,
        env={**os.environ, "RAY_COLOR_PREFIX": "0"},
    )
    assert out[0] == "(shout" and out[-1] == "other"


def test_mechanism_9_and_the_state_of_things():
    assert [node["Alive"] for node in ray.nodes()] == [True]
    assert ray.cluster_resources()["CPU"] == 2.0


def test_mechanism_11_decorators_with_and_without_options():
    @ray.remote
    def bare():
        return 1

    @ray.remote(num_cpus=1, max_retries=0)
    def optioned():
        return 2

    assert ray.get([bare.remote(), optioned.remote()]) == [1, 2]
    with pytest.raises(ValueError, match="Invalid option keyword colour"):
        ray.remote(colour=1)(lambda: 1)
    with pytest.raises(TypeError, match="remote already"):
        ray.remote(bare)


@pytest.mark.parametrize(
    "old, value, new",
    [("num_return_vals", 2, "num_returns"), ("max_reconstructions", 1, "max_retries")],
)
def test_mechanism_11_old_names_of_options_work_with_a_warning(old, value, new):
    with pytest.warns(DeprecationWarning, match=new):
        f = ray.remote(**{old: value})(lambda: (1, 2))
    assert f._default_options == {new: value}


def test_old_names_of_init_work_with_a_warning():
    out = run(
        """
        import warnings
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            ray.init(driver_object_store_memory=10**8, redis_max_memory=10**7, **SETTINGS)
        print(sum(w.category is DeprecationWarning for w in seen), ray.is_initialized())
        """
    )
    assert out == ["2", "True"]


def test_mechanism_12_max_calls_ends_the_worker():
    @ray.remote(max_calls=2)
    def pid():
        return os.getpid()

    pids = [ray.get(pid.remote()) for _ in range(4)]
    assert pids[0] == pids[1] != pids[2] == pids[3]


def test_mechanism_14_numbers_of_results():
    @ray.remote
    def pair():
        return 1, 2

    assert pair.options(num_returns=0).remote() is None
    assert ray.get(pair.remote()) == (1, 2)
    assert ray.get(pair.options(num_returns=2).remote()) == [1, 2]


def test_mechanism_15_a_call_that_does_not_fit_fails_where_it_is_written():
    @ray.remote
    def f(a, *, b):
        return a, b

    with pytest.raises(TypeError, match="missing a required argument: 'b'"):
        f.remote(1)
    assert ray.get(f.remote(1, b=2)) == (1, 2)


def test_mechanism_16_a_function_is_exported_once():
    @ray.remote
    def f(x):
        return x

    ray.get([f.remote(i) for i in range(50)])
    session = f._code.session_number
    first = dict(f._code.parts)
    ray.get([f.remote(i) for i in range(50)])
    assert f._code.parts == first and f._code.session_number == session
    again = ray.remote(f._function)
    ray.get(again.remote(1))
    keys = {part.key for code in (f._code, again._code) for name, part in code.parts.items() if name[0] == "definition"}
    assert len(keys) == 2


def test_mechanism_17_the_invocation_can_be_decorated():
    calls = []

    def decorator(invoke):
        def invocation(args, kwargs):
            calls.append((args, kwargs))
            return invoke(args, kwargs)

        return invocation

    def f(x, y=0):
        return x + y

    f.__ray_invocation_decorator__ = decorator
    assert ray.get(ray.remote(f).remote(1, y=2)) == 3
    assert [(tuple(args), kwargs) for args, kwargs in calls] == [((1,), {"y": 2})]


def test_mechanism_18_large_arguments_travel_by_the_store():
    array = np.arange(200_000)

    @ray.remote
    def look(x):
        return int(x.sum()), x.flags.writeable

    assert ray.get(look.remote(array)) == (int(array.sum()), False)


def test_mechanism_19_ids_follow_from_the_job_and_the_order():
    out = run(
        """
        ray.init(**SETTINGS)
        print(ray.put(1).hex())
        """
    )
    assert out == ["ffffffffffffffffffffffffffffffffffffffff0100000001000000"]


@pytest.mark.parametrize("transport", ["direct", "raylet"])
def test_mechanism_20_both_transports_give_the_same(transport):
    @ray.remote(_transport=transport)
    def f(x):
        return x * 2

    assert ray.get([f.remote(i) for i in range(10)]) == [2 * i for i in range(10)]


def test_mechanism_21_and_32_a_crash_is_tried_again(tmp_path):
    @ray.remote(max_retries=2)
    def crash():
        with open(tmp_path / "log", "a") as log:
            log.write("x")
        if os.path.getsize(tmp_path / "log") < 3:
            os._exit(1)
        return "done"

    assert ray.get(crash.remote()) == "done"


def test_mechanism_22_an_actor_is_placed_by_a_cpu_and_holds_none():
    @ray.remote
    class Idle:
        def held(self):
            return ray.get_runtime_context().get_assigned_resources()

    actors = [Idle.remote() for _ in range(5)]
    assert ray.get([actor.held.remote() for actor in actors]) == [{}] * 5


def test_mechanism_23_and_24_names_restarts_and_handles():
    @ray.remote(max_restarts=1, max_task_retries=1)
    class Named:
        def pid(self):
            return os.getpid()

    @ray.remote
    def use(handle):
        return ray.get(handle.pid.remote())

    actor = Named.options(name="named").remote()
    pid = ray.get(actor.pid.remote())
    assert ray.get(use.remote(ray.get_actor("named"))) == pid
    os.kill(pid, signal.SIGKILL)
    second = ray.get(actor.pid.remote())
    assert second != pid
    del actor
    gc.collect()
    assert until(lambda: not alive(second))


def test_mechanism_25_calls_keep_their_order():
    @ray.remote
    class Log:
        def __init__(self):
            self.seen = []

        def add(self, i):
            self.seen.append(i)
            return list(self.seen)

    log = Log.remote()
    assert ray.get([log.add.remote(i) for i in range(20)])[-1] == list(range(20))


def test_mechanism_26_async_methods_overlap():
    @ray.remote
    class Meeting:
        def __init__(self):
            import asyncio

            self.here, self.all = 0, asyncio.Event()

        async def arrive(self, count):
            self.here += 1
            if self.here == count:
                self.all.set()
            await self.all.wait()
            return self.here

    meeting = Meeting.remote()
    assert ray.get([meeting.arrive.remote(100) for _ in range(100)], timeout=30) == [100] * 100


def test_mechanism_27_an_actor_is_a_process_and_tasks_share_workers():
    @ray.remote
    def pid():
        return os.getpid()

    @ray.remote
    class Actor:
        def pid(self):
            return os.getpid()

    actors = [Actor.remote() for _ in range(2)]
    assert len(set(ray.get([actor.pid.remote() for actor in actors]))) == 2
    assert len({ray.get(pid.remote()) for _ in range(10)}) <= 2


def test_mechanism_28_profiled_stretches_show_in_the_timeline():
    with ray.profile("a stretch of the driver"):
        ray.get(ray.remote(lambda: 1).remote())
    assert until(lambda: any(event.get("name") == "a stretch of the driver" for event in ray.timeline()))


def test_mechanism_30_memory_is_free_when_nobody_refers_to_it():
    def used():
        return ray.cluster_resources()["object_store_memory"] - ray.available_resources()["object_store_memory"]

    gc.collect()
    before = used()
    ref = ray.put(np.zeros(20 * 2**20, dtype=np.uint8))
    box = ray.put([ref])
    del ref
    assert used() >= before + 20 * 2**20
    del box
    gc.collect()
    assert until(lambda: used() <= before + 2**20)


def test_mechanism_31_arrays_are_views_of_the_store():
    ref = ray.put(np.arange(100_000))
    first, second = ray.get(ref), ray.get(ref)
    assert np.shares_memory(first, second) and not first.flags.writeable
    assert first.__array_interface__["data"][0] % 64 == 0


def test_arrays_may_be_had_writable():
    ref = ray.put(np.arange(100_000))
    mine = ray.get(ref, writable="copy_on_write")
    mine[0] = 7
    assert mine[0] == 7 and ray.get(ref)[0] == 0


def test_what_a_function_captured_is_writable():
    table = np.arange(10)

    @ray.remote
    def change():
        table[0] = 99
        return int(table[0])

    assert ray.get(change.remote()) == 99 and table[0] == 0


def test_mechanism_33_put_get_wait():
    refs = [ray.put(i) for i in range(3)]
    ready, rest = ray.wait(refs)
    assert (ready, rest) == (refs[:1], refs[1:])
    assert ray.get(refs) == [0, 1, 2]


def test_an_interrupted_sleep_ends_at_once(tmp_path):
    @ray.remote
    def sleep():
        (tmp_path / "begun").touch()
        time.sleep(60)

    ref = sleep.remote()
    assert until((tmp_path / "begun").exists)
    begun = time.monotonic()
    ray.cancel(ref)
    with pytest.raises(ray.exceptions.TaskCancelledError):
        ray.get(ref, timeout=20)
    assert time.monotonic() - begun < 10
    assert ray.get(ray.remote(lambda: "usable").remote(), timeout=20) == "usable"


def test_a_segmentation_fault_is_a_crash():
    @ray.remote(max_retries=0)
    def crash():
        ctypes.string_at(0)

    with pytest.raises(ray.exceptions.WorkerCrashedError):
        ray.get(crash.remote())


def test_a_fork_of_the_driver_is_no_driver():
    ref = ray.put(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pid = os.fork()
    if pid == 0:
        try:
            os._exit(0 if not ray.is_initialized() else 3)
        finally:
            os._exit(4)
    assert os.waitpid(pid, 0)[1] == 0
    assert ray.get(ref) == 1

"""`raylet.util` beyond what was recorded from Ray.

The one thing to know: one session for the file; each test leaves it as it was. This file must not test
the core.
"""

import os
import threading

import pytest

import raylet
from raylet.util import iter as iterators
from raylet.util import metrics, state
from raylet.util.multiprocessing import Pool, TimeoutError
from raylet.util.placement_group import PlacementGroup, PlacementGroupID
from raylet.util.scheduling_strategies import (
    Exists,
    In,
    NodeAffinitySchedulingStrategy,
    NodeLabelSchedulingStrategy,
    PlacementGroupSchedulingStrategy,
)


@pytest.fixture(scope="module", autouse=True)
def session():
    raylet.init(address="local", num_cpus=2, logging_level="ERROR", object_store_memory=128 * 2**20)
    yield
    raylet.shutdown()


@pytest.fixture
def pool():
    with Pool(2) as made:
        yield made


def square(x):
    return x * x


def fail_at_three(x):
    if x == 3:
        raise KeyError(x)
    return x


@raylet.remote(num_cpus=0)
class Gate:
    """Opens once; who waits for it waits in the actor."""

    def __init__(self):
        self.opened = None

    async def wait(self):
        import asyncio

        self.opened = self.opened or asyncio.Event()
        await self.opened.wait()

    async def open(self):
        import asyncio

        self.opened = self.opened or asyncio.Event()
        self.opened.set()


def wait_at(gate):
    raylet.get(gate.wait.remote())
    return "through"


def test_what_an_item_raised_has_the_remote_traceback(pool):
    with pytest.raises(KeyError) as raised:
        pool.map(fail_at_three, range(5))
    assert "fail_at_three" in str(raised.value.__cause__)
    assert "_outcome" not in str(raised.value.__cause__)


def test_an_iterator_raises_for_its_item_alone(pool):
    results = pool.imap(fail_at_three, range(5), chunksize=2)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(KeyError):
        next(results)
    assert list(results) == [4]


def test_an_iterator_takes_no_more_than_it_needs(pool):
    taken = []

    def items():
        for item in range(100):
            taken.append(item)
            yield item

    results = pool.imap(square, items())
    assert next(results) == 0
    assert len(taken) <= 4
    assert list(results) == [x * x for x in range(1, 100)]


def test_an_iterator_says_when_it_is_late(pool):
    gate = Gate.remote()
    results = pool.imap_unordered(wait_at, [gate])
    with pytest.raises(TimeoutError):
        results.next(timeout=0.05)
    raylet.get(gate.open.remote())
    assert results.next(timeout=20) == "through"


def test_chunks_are_as_large_as_asked(pool):
    assert pool.map(square, range(10), chunksize=4) == [x * x for x in range(10)]
    assert pool.map(square, iter(range(10))) == [x * x for x in range(10)]
    assert pool.starmap(pow, [(2, 3), (3, 2)], chunksize=1) == [8, 9]


def test_actors_are_replaced_after_their_chunks():
    with Pool(1, maxtasksperchild=2) as pool:
        pids = [pool.apply(os.getpid) for _ in range(5)]
    assert pids[0] == pids[1] and pids[2] == pids[3]
    assert len(set(pids)) == 3


def test_callbacks_of_a_map_get_all_results(pool):
    done, seen = threading.Event(), []

    def keep(values):
        seen.append(values)
        done.set()

    result = pool.map_async(square, range(6), callback=keep)
    assert result.get(20) == [0, 1, 4, 9, 16, 25]
    assert done.is_set() and seen == [[0, 1, 4, 9, 16, 25]]
    pool.map_async(square, [], callback=keep).wait(20)
    assert seen[1] == []


def test_a_callback_that_raises_stops_nothing(pool, caplog):
    def refuse(value):
        raise ValueError(value)

    pool.apply_async(square, (2,), callback=refuse).wait(20)
    assert pool.apply_async(square, (3,), callback=lambda value: None).get(20) == 9


def test_more_processes_than_cpus_are_refused():
    with pytest.raises(ValueError, match="only 2 CPUs"):
        Pool(3)
    with pytest.raises(ValueError, match="must be >0"):
        Pool(0)


def test_joblib_runs_in_a_pool():
    joblib = pytest.importorskip("joblib")
    from raylet.util.joblib import register_ray

    register_ray()
    with joblib.parallel_backend("ray"):
        assert joblib.Parallel(n_jobs=2)(joblib.delayed(square)(x) for x in range(20)) == [x * x for x in range(20)]


def test_joblib_shares_large_arguments():
    joblib = pytest.importorskip("joblib")
    numpy = pytest.importorskip("numpy")
    from raylet.util.joblib import register_ray

    register_ray()
    array = numpy.arange(100_000)
    with joblib.parallel_backend("ray"):
        found = joblib.Parallel(n_jobs=2)(joblib.delayed(lambda a, i: int(a[i]))(array, i) for i in range(8))
    assert found == list(range(8))


def test_shards_are_gathered_in_turn_and_as_they_come():
    numbers = iterators.from_range(10, num_shards=2)
    assert numbers.num_shards() == 2
    assert list(numbers.for_each(square).gather_sync()) == [0, 25, 1, 36, 4, 49, 9, 64, 16, 81]
    assert sorted(numbers.filter(lambda x: x % 2 == 0).gather_async()) == [0, 2, 4, 6, 8]
    assert iterators.from_items(list("abcd")).batch(2).take(2) == [["a", "c"], ["b", "d"]]
    assert iterators.from_items([1], num_shards=1, repeat=True).take(3) == [1, 1, 1]


def test_metrics_take_calls_and_check_them():
    counter = metrics.Counter("requests", description="d", tag_keys=("route",))
    counter.inc(tags={"route": "/"})
    counter.set_default_tags({"route": "/x"}).inc(2.5)
    assert counter.info == {
        "name": "requests",
        "description": "d",
        "tag_keys": ("route",),
        "default_tags": {"route": "/x"},
    }
    with pytest.raises(ValueError):
        counter.inc(0)
    with pytest.raises(ValueError, match="Missing value"):
        metrics.Gauge("g", tag_keys=("a", "b")).set(1, tags={"a": "1"})
    with pytest.raises(TypeError):
        metrics.Gauge("g", tag_keys="a")
    metrics.Histogram("h", boundaries=[1.0, 10.0]).observe(3)
    with pytest.raises(ValueError):
        metrics.Histogram("h")


def test_metrics_travel():
    counter = metrics.Counter("travels", tag_keys=("a",)).set_default_tags({"a": "b"})

    @raylet.remote
    def count(counter):
        counter.inc()
        return counter.info["default_tags"]

    assert raylet.get(count.remote(counter)) == {"a": "b"}


def test_actors_have_rows():
    gate = Gate.options(name="listed", namespace="rows").remote()
    raylet.get(gate.open.remote())
    [row] = state.list_actors(filters=[("name", "=", "listed"), ("state", "!=", "DEAD")], detail=True)
    assert row.class_name == "Gate" and row["class_name"] == row.get("class_name")
    assert row.state == "ALIVE" and row.ray_namespace == "rows" and row.pid > 0
    assert row.actor_id == gate._actor_id.hex() and state.get_actor(row.actor_id).pid == row.pid
    assert row.num_restarts == 0 and state.list_actors(limit=1)[0].num_restarts is None
    assert {"name": "listed", "namespace": "rows"} in raylet.util.list_named_actors(all_namespaces=True)
    assert "listed" not in raylet.util.list_named_actors()
    assert state.summarize_actors()["cluster"]["summary"]["Gate"]["state_counts"]["ALIVE"] >= 1
    raylet.kill(gate)


def test_tasks_have_rows_while_they_run():
    gate = Gate.remote()
    ref = raylet.remote(wait_at).remote(gate)
    wanted = [("state", "=", "RUNNING"), ("name", "=", "wait_at")]
    row = until(lambda: next(iter(state.list_tasks(filters=wanted)), None))
    assert row.type == "NORMAL_TASK" and row.worker_pid > 0 and row.task_id == ref.task_id().hex()
    assert state.summarize_tasks()["cluster"]["total_tasks"] >= 1
    raylet.get(gate.open.remote())
    assert raylet.get(ref) == "through"


def until(condition):
    """The first true value of a condition; each look asks the raylet, so it takes its time."""
    for _ in range(2000):
        if found := condition():
            return found
    raise AssertionError("it never came")


def test_objects_workers_nodes_and_jobs_have_rows():
    ref = raylet.put(b"x" * 10_000)
    [row] = [row for row in state.get_objects(ref.hex()) if row.pid == os.getpid()]
    assert row.object_size >= 10_000 and row.type == "DRIVER"
    assert os.getpid() in {row.pid for row in state.list_workers()}
    [node] = state.list_nodes()
    assert node.state == "ALIVE" and node.resources_total["CPU"] == 2.0
    assert state.get_node(node.node_id) is not None
    assert raylet.get_runtime_context().get_job_id() in {row.job_id for row in state.list_jobs()}


def test_wrong_filters_are_refused():
    with pytest.raises(ValueError, match="predicate"):
        state.list_tasks(filters=[("name", "<", "f")])
    with pytest.raises(ValueError, match="limit"):
        state.list_actors(limit=0)


def test_ids_of_groups_tell_groups_apart():
    promise = bytes(range(28))
    found = PlacementGroupID.of(promise)
    assert len(found.hex()) == 36 and found.binary()[-4:] == promise[20:24]
    assert PlacementGroupID.from_hex(found.hex()) == found != PlacementGroupID.nil()
    assert PlacementGroup.empty().is_empty and raylet.get(PlacementGroup.empty().ready()).is_empty


def test_a_group_has_a_row_and_its_handle_travels():
    group = raylet.util.placement_group([{"CPU": 1}], name="travels")
    assert group.wait(20)
    [row] = state.list_placement_groups(filters=[("name", "=", "travels")])
    assert row.placement_group_id == group.id.hex() and row.state == "CREATED"

    @raylet.remote(num_cpus=1)
    def inside(group):
        return raylet.util.get_current_placement_group() == group, group.bundle_specs, group.wait(1)

    strategy = PlacementGroupSchedulingStrategy(group, 0)
    assert raylet.get(inside.options(scheduling_strategy=strategy).remote(group)) == (True, [{"CPU": 1.0}], True)
    assert raylet.get(raylet.remote(lambda: raylet.util.get_placement_group("travels")).remote()) == group
    raylet.util.remove_placement_group(group)
    assert raylet.util.placement_group_table(group)["state"] == "REMOVED"


def test_strategies_check_what_they_are_given():
    with pytest.raises(ValueError, match="node_id"):
        NodeAffinitySchedulingStrategy("nonsense", soft=False)
    with pytest.raises(ValueError):
        NodeLabelSchedulingStrategy({})
    with pytest.raises(ValueError):
        In()
    assert NodeLabelSchedulingStrategy({"a": Exists()}).hard


def test_logs_are_found():
    @raylet.remote
    def say():
        print("a line that is kept")
        return os.getpid()

    pid = raylet.get(say.remote())
    lines = until(lambda: [line for line in read_log(pid) if "a line that is kept" in line])
    assert lines and any(str(pid) in name for name in state.list_logs()["worker_out"])
    with pytest.raises(FileNotFoundError):
        next(state.get_log(pid=1))


def read_log(pid):
    try:
        return list(state.get_log(pid=pid))
    except FileNotFoundError:
        return []

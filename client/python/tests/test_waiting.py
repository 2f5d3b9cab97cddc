"""What waits for what it cannot have: the driver is told what is asked for, the rest goes on, and all of it can end.

The one thing to know: notices come when they come, and to whatever `sys.stderr` is then.
This file must not wait for something not to happen.
"""

import re

import pytest
from support import LIMIT_S, get, until

import raylet
from raylet.exceptions import GetTimeoutError, RayActorError, RayError, TaskCancelledError
from raylet.util.placement_group import placement_group, remove_placement_group

NOTICE = r"\(raylet\)\S* (.* asks for .*)"


@raylet.remote
def echo(value=None):
    return value


@raylet.remote
class Actor:
    """Waits for what it is told of."""

    def echo(self, value=None):
        return value

    def get(self, refs):
        return raylet.get(refs[0])

    def get_from(self, actor):
        return raylet.get(actor.echo.remote("from it"))

    def get_from_itself(self, timeout):
        return raylet.get(raylet.get_runtime_context().current_actor.echo.remote(), timeout=timeout)


class Notices:
    """What the driver was told so far."""

    def __init__(self, capsys):
        self.capsys = capsys
        self.text = ""

    def until(self, count):
        """The first so many notices, once there are as many."""

        def told():
            self.text += self.capsys.readouterr().err
            found = re.findall(NOTICE, self.text)
            return found if len(found) >= count else None

        return until(told)


@pytest.fixture
def notices(capsys):
    return Notices(capsys)


# More than there is -----------------------------------------------------------------

CPUS_ASKED = 99
INFEASIBLE = {
    "a task": (lambda: echo.options(num_cpus=CPUS_ASKED).remote(1), r"asks for 99 CPU, and there is 2 CPU"),
    "a task's resource": (lambda: echo.options(resources={"magic": 0.5}).remote(1), r"asks for 1 CPU, 0\.5 magic, and"),
    "a task's gpu": (lambda: echo.options(num_gpus=1).remote(1), r"asks for 1 CPU, 1 GPU, and"),
    "a task's memory": (lambda: echo.options(memory=10**14).remote(1), r"asks for 1 CPU, 100000000000000 bytes of mem"),
    "an actor": (lambda: Actor.options(num_cpus=CPUS_ASKED).remote(), r"^an actor of Actor asks for 99 CPU, and there is 2 CPU"),
    "a group": (lambda: placement_group([{"CPU": 1}, {"CPU": CPUS_ASKED}]), r"a placement group asks for 100 CPU, and"),
}


@pytest.mark.parametrize("form", INFEASIBLE)
def test_more_than_there_is(session, notices, form):
    """The driver is told what is asked for and what there is; what asks for less goes on."""
    make, text = INFEASIBLE[form]
    waits = make()
    assert re.search(text, notices.until(1)[0])
    if isinstance(waits, raylet.ObjectRef):
        with pytest.raises(GetTimeoutError):
            raylet.get(waits, timeout=0)
        raylet.cancel(waits)
        with pytest.raises(TaskCancelledError):
            get(waits)
    elif isinstance(waits, raylet.actor.ActorHandle):
        call = waits.echo.remote()
        raylet.kill(waits)
        with pytest.raises(RayActorError):
            get(call)
    else:
        assert not waits.wait(timeout_seconds=0)
        remove_placement_group(waits)
    assert get([echo.remote(1), Actor.remote().echo.remote(2)]) == [1, 2]


def held_by_actors():
    holders = [Actor.options(num_cpus=1).remote() for _ in range(2)]
    get([holder.echo.remote() for holder in holders])
    return lambda: raylet.kill(holders[0])


def held_by_a_group():
    group = placement_group([{"CPU": 2}])
    get(group.ready())
    return lambda: remove_placement_group(group)


@pytest.mark.parametrize("hold", [held_by_actors, held_by_a_group])
def test_what_nobody_has_to_give_back(session, notices, hold):
    """The driver is told of a task that waits for what actors and groups hold; it runs once they go."""
    give_back = hold()
    waits = echo.remote("in the end")
    text = r"echo asks for 1 CPU and cannot be scheduled right now: .* of 2 CPU"
    assert re.search(text, notices.until(1)[0])
    give_back()
    assert get(waits) == "in the end"


def test_one_notice_for_many_of_a_kind(session, notices):
    asks = echo.options(num_cpus=CPUS_ASKED)
    refs = [asks.remote(n) for n in range(100)]
    notices.until(1)
    refs.append(echo.options(num_cpus=CPUS_ASKED + 1).remote())
    first, second = notices.until(2)
    assert "99 CPU" in first and "100 CPU" in second


# What others have --------------------------------------------------------------------


@pytest.mark.parametrize("waiting", [echo, Actor])
def test_actors_have_all(session, waiting):
    """What waits for a CPU that an actor holds runs as soon as that actor is gone."""
    actors = [Actor.options(num_cpus=1).remote() for _ in range(2)]
    get([actor.echo.remote() for actor in actors])
    assert "CPU" not in raylet.available_resources()
    ref = echo.remote("it runs") if waiting is echo else Actor.options(num_cpus=1).remote().echo.remote("it runs")
    with pytest.raises(GetTimeoutError):
        raylet.get(ref, timeout=0.1)
    raylet.kill(actors.pop())
    assert get(ref) == "it runs"


def test_a_group_has_all(session):
    """What asks for a CPU beside a placement group that holds all of them waits until the group is removed."""
    group = placement_group([{"CPU": 2}])
    get(group.ready())
    ref = echo.remote("it runs")
    with pytest.raises(GetTimeoutError):
        raylet.get(ref, timeout=0.1)
    remove_placement_group(group)
    assert get(ref) == "it runs"


# Each other ----------------------------------------------------------------------------


@raylet.remote(num_cpus=0)
class Board:
    """Where references are left for others."""

    def __init__(self):
        self.refs = {}

    def set(self, refs):
        self.refs.update(refs)

    def get(self, name):
        return self.refs.get(name)


@raylet.remote
def gets_of(board, name):
    return raylet.get(until(lambda: raylet.get(board.get.remote(name)))[0])


def test_tasks_wait_for_each_other(session):
    """Their CPUs are free meanwhile; the end of one of them is the end of all."""
    board = Board.remote()
    refs = {name: gets_of.remote(board, other) for name, other in (("a", "b"), ("b", "c"), ("c", "a"))}
    get(board.set.remote({name: [ref] for name, ref in refs.items()}))
    until(lambda: raylet.available_resources().get("CPU") == 2)
    assert get([echo.remote(n) for n in range(10)]) == list(range(10))
    with pytest.raises(GetTimeoutError):
        raylet.get(refs["a"], timeout=0)
    raylet.cancel(refs["a"])
    for ref in refs.values():
        with pytest.raises(RayError):
            get(ref)


def test_actors_wait_for_each_other(session):
    """An actor that waits takes no other call; killing one of a circle lets the others know."""
    one, other = Actor.remote(), Actor.remote()
    board = Board.remote()
    stuck = one.get.remote([gets_of.remote(board, "stuck")])
    get(board.set.remote({"stuck": [stuck]}))
    asks = other.get_from.remote(one)
    with pytest.raises(GetTimeoutError):
        raylet.get(asks, timeout=0.1)
    raylet.kill(one)
    with pytest.raises(RayError):
        get(stuck)
    with pytest.raises(RayActorError):
        get(asks)
    assert get(other.echo.remote("free")) == "free"


def test_an_actor_waits_for_itself(session):
    """Its own call cannot run before the one that waits for it ends: a time limit ends it."""
    actor = Actor.remote()
    with pytest.raises(GetTimeoutError):
        get(actor.get_from_itself.remote(0.1))
    assert get(actor.echo.remote("free")) == "free"
    assert get(Actor.options(max_concurrency=2).remote().get_from_itself.remote(LIMIT_S)) is None

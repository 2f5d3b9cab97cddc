"""Local mode: the same programs in one process, one call after the other.

The one thing to know: the session is of this file's own and has no raylet. This file must not start processes.
"""

import os

import pytest

import raylet as ray


@pytest.fixture(scope="module", autouse=True)
def session():
    ray.init(local_mode=True, logging_level="ERROR")
    yield
    ray.shutdown()


def test_a_task_runs_in_this_process():
    @ray.remote
    def add(a, b=1):
        return a + b, os.getpid()

    assert ray.get(add.remote(ray.put(1), b=2)) == (3, os.getpid())


def test_an_error_is_raised_by_get():
    @ray.remote
    def fail():
        raise KeyError("local")

    ref = fail.remote()
    with pytest.raises(KeyError, match="local"):
        ray.get(ref)


def test_a_call_that_does_not_fit_fails_at_once():
    with pytest.raises(TypeError):
        ray.remote(lambda: 1).remote(1)


def test_arguments_are_copies():
    @ray.remote
    def grow(items):
        items.append(1)
        return items

    mine = [0]
    assert ray.get(grow.remote(mine)) == [0, 1] and mine == [0]


def test_generators_and_several_results():
    @ray.remote
    def count(n):
        yield from range(n)

    @ray.remote(num_returns=2)
    def two():
        return 1, 2

    assert [ray.get(ref) for ref in count.remote(3)] == [0, 1, 2]
    assert ray.get(two.remote()) == [1, 2]


def test_actors_keep_state_and_have_names():
    @ray.remote
    class Counter:
        def __init__(self, n=0):
            self.n = n

        def add(self, k=1):
            self.n += k
            return self.n

        async def later(self):
            return self.n

        def me(self):
            return ray.get_runtime_context().current_actor

    counter = Counter.options(name="local").remote(5)
    assert ray.get([counter.add.remote(), counter.add.remote(2)]) == [6, 8]
    assert ray.get(ray.get_actor("local").later.remote()) == 8
    assert ray.get(counter.me.remote()) == counter
    ray.kill(counter)
    with pytest.raises(ray.exceptions.ActorDiedError):
        ray.get(counter.add.remote())


def test_a_constructor_that_raises_kills_the_actor():
    @ray.remote
    class Broken:
        def __init__(self):
            raise ValueError("no")

        def hello(self):
            return 1

    with pytest.raises(ray.exceptions.RayError):
        ray.get(Broken.remote().hello.remote())


def test_wait_and_nested_calls():
    @ray.remote
    def leaf(x):
        return x

    @ray.remote
    def root():
        return sum(ray.get([leaf.remote(i) for i in range(4)]))

    ready, rest = ray.wait([root.remote()])
    assert len(ready) == 1 and not rest and ray.get(ready[0]) == 6

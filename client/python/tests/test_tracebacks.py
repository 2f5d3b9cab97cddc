"""Tracebacks: what an error shows, wherever it was raised, is the program's own frames, to the line.

The one thing to know: expected is a list of functions' names, outermost first; a frame of any other file than this one
fails. This file must not count lines.
"""

import asyncio
import re
import threading
import traceback

import pytest
from support import LIMIT_S

import raylet
from raylet.exceptions import ActorDiedError, RayTaskError

FRAME = re.compile(r'File "([^"]*)", line (\d+), in (\S+)')


@pytest.fixture(scope="module", autouse=True)
def shared_session():
    raylet.init(address="local", num_cpus=2, object_store_memory=80 * 2**20, logging_level="ERROR")
    yield
    raylet.shutdown()


def fails():
    raise ValueError("the reason")


def frames_of(text):
    """The functions of the frames that a text shows; each must be of this file, and show its line."""
    found = FRAME.findall(text)
    with open(__file__) as file:
        lines = file.read().splitlines()
    for filename, line, _ in found:
        assert filename == __file__, text
        assert lines[int(line) - 1].strip() in text
    return [name for _, _, name in found]


def error_of(ref):
    """The exception that `get` raises for a reference."""
    with pytest.raises(Exception) as caught:
        raylet.get(ref, timeout=LIMIT_S)
    return caught.value


def last_of(stream):
    """The last reference of a generator."""
    return list(stream)[-1]


@raylet.remote
def task():
    fails()


@raylet.remote
def items():
    yield 1
    fails()


@raylet.remote
def gets():
    return raylet.get(task.remote())


@raylet.remote
def gets_what_gets():
    return raylet.get(gets.remote())


@raylet.remote
def chains():
    try:
        fails()
    except ValueError as error:
        raise KeyError("another") from error


@raylet.remote
def groups():
    try:
        fails()
    except ValueError as error:
        raise ExceptionGroup("some", [error])  # noqa: B904


@raylet.remote
def parts():
    return 1, 2


@raylet.remote
def calls_wrongly():
    task.remote("an argument too many")


@raylet.remote
def gets_wrongly():
    raylet.get("no reference")


@raylet.remote
def puts_wrongly():
    raylet.put(threading.Lock())


@raylet.remote
def returns_wrongly():
    return threading.Lock()


@raylet.remote
def echo(value):
    return value


class Reduces:
    """Fails where it is pickled."""

    def __reduce__(self):
        fails()


@raylet.remote
def returns_what_fails():
    return Reduces()


TASKS = {
    "a task": (lambda: task.remote(), ["task", "fails"]),
    "a task of many threads": (lambda: task.options(num_cpus=2).remote(), ["task", "fails"]),
    "a task that retries": (lambda: task.options(retry_exceptions=[KeyError]).remote(), ["task", "fails"]),
    "a generator": (lambda: last_of(items.remote()), ["items", "fails"]),
    "a generator of two": (lambda: items.options(num_returns=2).remote()[1], ["items", "fails"]),
    "a dynamic generator": (lambda: items.options(num_returns="dynamic").remote(), ["items", "fails"]),
    "a nested task": (lambda: gets.remote(), ["gets", "task", "fails"]),
    "a twice nested task": (lambda: gets_what_gets.remote(), ["gets_what_gets", "gets", "task", "fails"]),
    "an argument": (lambda: echo.remote(task.remote()), ["task", "fails"]),
    "an argument's argument": (lambda: echo.remote(echo.remote(task.remote())), ["task", "fails"]),
    "a cause": (lambda: chains.remote(), ["chains", "fails", "chains"]),
    "a group": (lambda: groups.remote(), ["groups", "fails", "groups", "groups", "fails"]),
    "a wrong number": (lambda: parts.options(num_returns=3).remote()[0], []),
    "a wrong call": (lambda: calls_wrongly.remote(), ["calls_wrongly"]),
    "a wrong get": (lambda: gets_wrongly.remote(), ["gets_wrongly"]),
    "a wrong put": (lambda: puts_wrongly.remote(), ["puts_wrongly"]),
    "a wrong result": (lambda: returns_wrongly.remote(), []),
    "a result that fails": (lambda: returns_what_fails.remote(), ["__reduce__", "fails"]),
}


@pytest.mark.parametrize("form", TASKS)
def test_errors_of_tasks(form):
    make, expected = TASKS[form]
    error = error_of(make())
    assert isinstance(error, RayTaskError)
    assert frames_of(str(error)) == expected


@raylet.remote
class Plain:
    """Fails in every form of a method."""

    def __init__(self, is_bad=False):
        if is_bad:
            fails()

    def method(self):
        fails()

    def items(self):
        yield 1
        fails()

    @raylet.method(num_returns=2)
    def two(self):
        yield 1
        fails()

    @raylet.method(retry_exceptions=[KeyError])
    def retries(self):
        fails()

    def gets(self):
        return raylet.get(task.remote())


@raylet.remote
class Async:
    """Fails in every form of a coroutine."""

    def __init__(self, is_bad=False):
        if is_bad:
            fails()

    async def coroutine(self):
        await asyncio.sleep(0)
        await self.inner()

    async def inner(self):
        fails()

    async def items(self):
        yield 1
        fails()

    @raylet.method(retry_exceptions=[KeyError])
    async def retries(self):
        fails()

    async def gets(self):
        return await task.remote()

    def method(self):
        fails()


METHODS = {
    "method": ["method", "fails"],
    "items": ["items", "fails"],
    "two": ["two", "fails"],
    "retries": ["retries", "fails"],
    "gets": ["gets", "task", "fails"],
    "coroutine": ["coroutine", "inner", "fails"],
}


def called(actor, name):
    """The reference to what fails in a call of a method."""
    ref = getattr(actor, name).remote()
    if isinstance(ref, raylet.ObjectRefGenerator):
        return last_of(ref)
    return ref[1] if isinstance(ref, list) else ref


@pytest.mark.parametrize(
    ("cls", "options", "name"),
    [
        *[(Plain, {}, name) for name in ("method", "items", "two", "retries", "gets")],
        *[(Plain, {"max_concurrency": 2}, name) for name in ("items", "retries")],
        *[(Async, {}, name) for name in ("coroutine", "items", "retries", "gets")],
        *[(Plain, {"max_concurrency": 2}, name) for name in ("method", "gets")],
        (Async, {}, "method"),
    ],
)
def test_errors_of_methods(cls, options, name):
    actor = cls.options(**options).remote()
    error = error_of(called(actor, name))
    assert isinstance(error, RayTaskError)
    assert frames_of(str(error)) == METHODS[name]


@pytest.mark.parametrize(("cls", "options"), [(Plain, {}), (Plain, {"max_concurrency": 2}), (Async, {})])
def test_errors_of_constructors(cls, options):
    error = error_of(cls.options(**options).remote(is_bad=True).method.remote())
    assert isinstance(error, ActorDiedError)
    assert frames_of(str(error)) == ["__init__", "fails"]


def test_errors_of_functions_that_run_in_an_actor():
    error = error_of(Plain.remote().__ray_call__.remote(lambda self: fails()))
    assert frames_of(str(error)) == ["<lambda>", "fails"]


# On the driver -------------------------------------------------------------------


def local_frames(function):
    """The functions behind this one that the traceback of what a function raises shows, with their files."""
    with pytest.raises(Exception) as caught:
        function()
    return [(frame.name, frame.filename) for frame in traceback.extract_tb(caught.value.__traceback__)[1:]]


async def waits_for(ref):
    await ref


def test_an_error_that_is_read_shows_where_it_is_read():
    """`get`, `wait` and `await` add no frame of theirs; the frames of the worker are in the text."""
    for read in (
        lambda: raylet.get(task.remote()),
        lambda: raylet.get([echo.remote(1), task.remote()]),
        lambda: raylet.get(task.options(num_cpus=2).remote(), timeout=0),
        lambda: raylet.put(threading.Lock()),
        lambda: echo.remote(threading.Lock()),
    ):
        assert local_frames(read) == [("<lambda>", __file__)]
    for read in (
        lambda: asyncio.run(waits_for(task.remote())),
        lambda: asyncio.run(waits_for(error_is_there())),
        lambda: task.remote().future().result(LIMIT_S),
    ):
        frames = local_frames(read)
        assert frames[0] == ("<lambda>", __file__)
        assert not any("/raylet/" in filename for _, filename in frames), frames


def error_is_there():
    """A reference to an error that is known already."""
    ref = task.remote()
    raylet.wait([ref])
    return ref


def test_a_wrong_call_shows_where_it_is_made():
    """The program's frame comes first, and behind it are only those that checked the call."""
    for call in (
        lambda: task.remote(1),
        lambda: task(),
        lambda: task.options(unknown=1),
        lambda: Plain.remote(1, 2, 3),
        lambda: Plain(),
        lambda: raylet.get(5),
        lambda: raylet.put(echo.remote(1)),
        lambda: raylet.wait(5),
        lambda: raylet.kill(5),
        lambda: raylet.cancel(5),
        lambda: raylet.get_actor("nobody"),
        lambda: raylet.init(),
    ):
        first, *others = local_frames(call)
        assert first == ("<lambda>", __file__)
        assert all("/raylet/" in filename for _, filename in others) and len(others) <= 5

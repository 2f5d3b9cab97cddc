"""A notebook: its kernel is interrupted, restarted and killed, and cells show what a session makes.

The one thing to know: a front end signals the process group of its kernel, so that workers and the raylet hear an
interrupt, too. This file must not need a browser: it speaks with kernels as one does.
"""

import json
import os
import re
import textwrap

import pytest
from support import LIMIT_S, environment, is_alive, until

pytest.importorskip("ipykernel")
manager = pytest.importorskip("jupyter_client.manager")

BEGIN = """
    import json, os, time, raylet, support
    raylet.init(address="local", num_cpus=2, logging_level="ERROR")

    @raylet.remote
    def plus_one(n):
        return n + 1

    @raylet.remote
    def sleeps(*refs):
        time.sleep(1000)

    @raylet.remote
    class Counter:
        def __init__(self):
            self.n = 0
        def count(self):
            self.n += 1
            return self.n

    counter = Counter.remote()
    assert raylet.get([counter.count.remote(), plus_one.remote(1)]) == [1, 2]
"""
LOOK = """
    support.until(lambda: support.running() == ["sleeps"])
    traces = support.Traces()
    print(json.dumps([traces.directory, traces.segment, sorted(traces.processes)]))
"""


class Notebook:
    """A kernel and what a front end does with it."""

    def __init__(self):
        self.manager = manager.KernelManager()
        self.manager.start_kernel(env=environment())
        self.client = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=LIMIT_S)

    def begin(self, text):
        """Begin a cell; the id of its request."""
        return self.client.execute(textwrap.dedent(text))

    def result(self, request):
        """What a cell printed and shows; the name of its exception where it failed."""
        said = {"stream": [], "execute_result": [], "error": []}
        while True:
            message = self.client.get_iopub_msg(timeout=LIMIT_S)
            if message["parent_header"].get("msg_id") != request:
                continue
            kind, content = message["msg_type"], message["content"]
            if kind == "status" and content["execution_state"] == "idle":
                return ["".join(said[kind]).strip() for kind in said]
            if kind in said:
                told = content.get("text") or content.get("ename") or content["data"]["text/plain"]
                said[kind].append(told)

    def run(self, text):
        """Run a cell; what it printed, or what it shows. Raises AssertionError where it fails."""
        printed, shown, failed = self.result(self.begin(text))
        assert not failed, (failed, printed)
        return shown or printed

    def until_said(self, word):
        """What is printed with this word in it, by whichever cell, as soon as it is."""
        while True:
            text = self.client.get_iopub_msg(timeout=LIMIT_S)["content"].get("text", "")
            if word in text:
                return text

    def close(self):
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


@pytest.fixture
def notebook():
    opened = Notebook()
    yield opened
    opened.close()


def left_of(traces):
    """What there still is of a session."""
    directory, segment, processes = traces
    return [path for path in (directory, segment) if os.path.exists(path)] + [*filter(is_alive, processes)]


WAIT = 'print("waits", flush=True); raylet.get(ref)'


@pytest.mark.parametrize("now", [False, True])
@pytest.mark.parametrize("cell", ["", WAIT])
def test_a_kernel_is_restarted(notebook, now, cell):
    """Politely or at once, idle or in a cell: nothing is left of the session, and the new kernel begins one."""
    notebook.run(BEGIN)
    notebook.run("ref = sleeps.remote(); behind = sleeps.remote(ref)")
    traces = json.loads(notebook.run(LOOK))
    assert len(traces[2]) >= 4 and len(left_of(traces)) == 2 + len(traces[2])
    if cell:
        notebook.begin(cell)
        notebook.until_said("waits")
    notebook.manager.restart_kernel(now=now)
    notebook.client.wait_for_ready(timeout=LIMIT_S)
    until(lambda: not left_of(traces))
    assert notebook.run("'raylet' in globals()") == "False"
    notebook.run(BEGIN)
    assert notebook.run("raylet.get(counter.count.remote())") == "2"


def test_a_cell_is_interrupted(notebook):
    """The wait ends at once and the session goes on with all that it had: the task runs until it is cancelled."""
    notebook.run(BEGIN)
    notebook.run("ref = sleeps.remote()")
    pids = json.loads(notebook.run(LOOK))[2]
    for wait in ("raylet.get(ref)", "raylet.wait([ref])", "raylet.get([raylet.put(1), ref])"):
        request = notebook.begin(f'print("waits", flush=True); {wait}')
        notebook.until_said("waits")
        notebook.manager.interrupt_kernel()
        assert notebook.result(request)[2] == "KeyboardInterrupt"
    assert notebook.run("support.running()") == "['sleeps']"
    assert all(map(is_alive, pids))
    notebook.run("raylet.cancel(ref)")
    printed, _, failed = notebook.result(notebook.begin("raylet.get(ref)"))
    assert failed == "TaskCancelledError"
    notebook.run("support.until(lambda: not support.running())")
    assert notebook.run("raylet.get([counter.count.remote(), plus_one.remote(1)])") == "[2, 2]"


def test_a_cell_runs_again(notebook):
    """Cells are run over and over: `init` may be told to, and a function written anew is the new one."""
    cell = """
        import raylet
        raylet.init(num_cpus=1, address="local", logging_level="ERROR", ignore_reinit_error=True)
        @raylet.remote
        def version():
            return {}
        raylet.get(version.remote())
    """
    assert [notebook.run(cell.format(n)) for n in range(3)] == ["0", "1", "2"]
    printed, _, failed = notebook.result(notebook.begin("raylet.init()"))
    assert failed == "RuntimeError"
    notebook.run("raylet.shutdown(); raylet.init(num_cpus=1, address='local', logging_level='ERROR')")
    assert notebook.run("raylet.get(version.remote())") == "2"


def test_a_cell_awaits(notebook):
    """References are awaited at the top of a cell, and `get` works on the loop that runs it."""
    notebook.run(BEGIN)
    assert notebook.run("await plus_one.remote(1)") == "2"
    cell = "import asyncio; await asyncio.gather(*[plus_one.remote(n) for n in range(3)], counter.count.remote())"
    assert notebook.run(cell) == "[1, 2, 3, 2]"
    assert notebook.run("raylet.get(plus_one.remote(2)) + await plus_one.remote(2)") == "6"
    assert notebook.result(notebook.begin("await plus_one.remote('text')"))[2] == "RayTaskError(TypeError)"


SHOWN = {
    "plus_one": r"RemoteFunction\(__main__\.plus_one\)",
    "plus_one.remote(1)": r"ObjectRef\([0-9a-f]{56}\)",
    "raylet.put(1)": r"ObjectRef\([0-9a-f]{56}\)",
    "Counter": r"ActorClass\(Counter\)",
    "counter": r"Actor\(Counter, ?[0-9a-f]{32}\)",
    "counter.count": r"ActorMethod\(Counter\.count\)",
    "[counter]": r"\[Actor\(Counter, ?[0-9a-f]{32}\)\]",
    "yields.remote()": r"ObjectRefGenerator\([0-9a-f]{56}\)",
}


def test_what_a_cell_shows(notebook):
    """Whatever a session makes is one short line at the end of a cell."""
    notebook.run(BEGIN)
    notebook.run("@raylet.remote\ndef yields():\n    yield 1")
    for value, form in SHOWN.items():
        shown = notebook.run(value)
        assert re.fullmatch(form, shown), (value, shown)


def test_what_workers_print(notebook):
    """It is shown with its label, below one cell or another."""
    notebook.run(BEGIN)
    notebook.begin("raylet.get(raylet.remote(lambda: print('by a' + ' worker')).remote())")
    assert re.search(r"\(.*pid=\d+\)\S* by a worker", notebook.until_said("by a worker"))

"""What tests and the tasks in them share: waiting for things, looking at processes, programs of their own.

The one thing to know: tasks import this module, too, so it must stay cheap. This file must not start a session.
"""

import json
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import raylet
from raylet import _native

LIMIT_S = 60
TESTS = Path(__file__).resolve().parent
PACKAGE_HOME = Path(raylet.__file__).resolve().parents[1]


def until(condition, limit_s=LIMIT_S):
    """The first true value of a condition. Raises AssertionError after so many seconds."""
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.005)
    raise AssertionError("it never came")


def get(refs):
    """As `raylet.get`, but a hang is an error."""
    return raylet.get(refs, timeout=LIMIT_S)


# Files as gates and counters: they work between any processes, also dying ones --------


def touch(path):
    """Open a gate."""
    Path(path).touch()


def pass_gate(path):
    """Wait until a gate is open."""
    until(lambda: os.path.exists(path))


def note(path, word=""):
    """Add a line to a file, in one piece."""
    with open(path, "a") as file:
        file.write(f"{word}\n")


def notes(path):
    """The lines of a file; none where there is no file."""
    path = Path(path)
    return path.read_text().split("\n")[:-1] if path.exists() else []


# Processes --------------------------------------------------------------------


def stat_of(pid):
    """The fields of a process's stat behind its name; None where it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def is_alive(pid):
    """Whether a process is there and more than a zombie."""
    fields = stat_of(pid)
    return fields is not None and fields[0] not in "ZX"


def descendants(pid):
    """The living processes that a process started, and those started by them."""
    children = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (fields := stat_of(entry)) and fields[0] not in "ZX":
            children.setdefault(int(fields[1]), []).append(int(entry))
    found, open_ones = set(), [pid]
    while open_ones:
        for child in children.get(open_ones.pop(), []):
            found.add(child)
            open_ones.append(child)
    return found


# The session --------------------------------------------------------------------


def status():
    """What the raylet says of itself."""
    return json.loads(_native.ask("status"))


def used_bytes():
    """How many bytes of the store objects have."""
    return status()["store"]["used_bytes"]


def object_count():
    """How many objects there are."""
    return status()["store"]["object_count"]


def running():
    """The names of the calls that run."""
    return sorted(row["name"] for row in json.loads(_native.ask("tasks")) if row["state"] == "RUNNING")


class Traces:
    """What the session of this process has on the machine: the raylet's processes, a directory, shared memory."""

    def __init__(self):
        told = status()
        self.raylet = told["raylet_pid"]
        self.directory = raylet.init(ignore_reinit_error=True).address_info["session_dir"]
        self.segment = f"/dev/shm/raylet-{os.getuid()}-{told['session_id']}"
        self.processes = {self.raylet}
        self.look()

    def look(self):
        """Remember the processes that there are by now."""
        self.processes |= descendants(self.raylet)

    def left(self):
        """What is still there, as words."""
        files = [path for path in (self.directory, self.segment) if os.path.exists(path)]
        return files + [f"process {pid}" for pid in self.processes if is_alive(pid)]


# Programs of their own ------------------------------------------------------------


def environment(**more):
    """An environment in which the package and this module are found."""
    path = [str(PACKAGE_HOME), str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path), "RAY_COLOR_PREFIX": "0", **more}


def start_program(directory, text, *arguments, **variables):
    """Start a program of this text; the process, with pipes for what it says and hears."""
    script = Path(directory) / f"program{len(list(Path(directory).iterdir()))}.py"
    script.write_text(textwrap.dedent(text))
    return subprocess.Popen(
        [sys.executable, str(script), *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=directory,
        env=environment(**variables),
    )


def run_program(directory, text, *arguments, **variables):
    """Run a program to its end; its output. Raises AssertionError where it ends badly."""
    program = start_program(directory, text, *arguments, **variables)
    out, err = program.communicate(timeout=LIMIT_S)
    assert program.returncode == 0, out + err
    return out, err

"""Pipelines of datatrove on its executor for Ray, as a user would write them: nothing here names raylet.

The one thing to know: `python datatrove_jobs.py <job> <folder>` runs one job and prints what came of it
as a line of JSON; the tests run it under the name `ray`. This file must not import raylet.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

import ray
from datatrove.data import Document
from datatrove.executor.ray import RayPipelineExecutor
from datatrove.pipeline.base import PipelineStep

SMALL = {"mem_per_cpu_gb": 0.05}


class Number(PipelineStep):
    """Makes one document per rank and notes in a folder that it ran."""

    name = "number"

    def __init__(self, folder, word="ran"):
        super().__init__()
        self.folder, self.word = str(folder), word

    def run(self, data, rank=0, world_size=1):
        note(self.folder, f"{self.word}-{rank}")
        with self.track_time():
            self.stat_update("documents")
            yield Document(text=f"text of {rank}", id=str(rank))


class KillOnce(PipelineStep):
    """Kills the worker, once."""

    name = "kill once"

    def __init__(self, folder):
        super().__init__()
        self.folder = str(folder)

    def run(self, data, rank=0, world_size=1):
        if rank == 1 and note(self.folder, "killed") == 1:
            # The rank runs in a child of the worker.
            os.kill(os.getppid(), signal.SIGKILL)
            time.sleep(30)
        yield from data


class Fail(PipelineStep):
    """Raises in one rank."""

    name = "fail"

    def run(self, data, rank=0, world_size=1):
        if rank == 1:
            raise ValueError("rank 1 fails")
        yield from data


class Sleep(PipelineStep):
    """Takes longer than anybody waits."""

    name = "sleep"

    def run(self, data, rank=0, world_size=1):
        time.sleep(60)
        yield from data


def note(folder, word):
    """Appends a line to a file; how many there are."""
    path = Path(folder) / word
    fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.write(fd, b"x\n")
    os.close(fd)
    return len(path.read_text().split())


def outcome(folder, logs="logs"):
    """What the executor left behind."""
    logs = Path(folder) / logs
    stats = logs / "stats.json"
    return {
        "completed": sorted(path.name for path in (logs / "completions").glob("*")),
        "logs": sorted(path.name for path in (logs / "logs").glob("*")),
        "documents": json.loads(stats.read_text())[0]["stats"]["documents"]["total"] if stats.exists() else None,
        "ran": {path.name: len(path.read_text().split()) for path in Path(folder).glob("*-*")},
    }


def executor(folder, steps, logs="logs", **more):
    return RayPipelineExecutor(pipeline=steps, logging_dir=str(Path(folder) / logs), **{**SMALL, **more})


def plain(folder):
    executor(folder, [Number(folder)], tasks=3).run()
    return outcome(folder)


def killed(folder):
    executor(folder, [Number(folder), KillOnce(folder)], tasks=3).run()
    return {**outcome(folder), "kills": len((Path(folder) / "killed").read_text().split())}


def skips(folder):
    executor(folder, [Number(folder)], tasks=3).run()
    (Path(folder) / "logs" / "completions" / "00001").unlink()
    executor(folder, [Number(folder)], tasks=3).run()
    executor(folder, [Number(folder)], tasks=3).run()
    return outcome(folder)


def depends(folder):
    first = executor(folder, [Number(folder, "first")], logs="first", tasks=2)
    executor(folder, [Number(folder, "second")], tasks=2, depends=first).run()
    return {**outcome(folder), "first": outcome(folder, "first")["completed"]}


def together(folder):
    executor(folder, [Number(folder)], tasks=5, tasks_per_job=2, workers=2).run()
    return outcome(folder)


def two_nodes(folder):
    executor(folder, [Number(folder)], tasks=2, nodes_per_task=2).run()
    return outcome(folder)


def late(folder):
    executor(folder, [Number(folder)], tasks=2, randomize_start_duration=1, log_first=True).run()
    return outcome(folder)


def fails(folder):
    executor(folder, [Number(folder), Fail()], tasks=3).run()
    return outcome(folder)


def timeout(folder):
    since = time.monotonic()
    try:
        executor(folder, [Number(folder), Sleep()], tasks=1, time=2).run()
    except KeyError:
        return {"seconds": time.monotonic() - since, "raised": "KeyError"}
    return {"seconds": time.monotonic() - since, "raised": None}


def main():
    job, folder = sys.argv[1:]
    ray.init(num_cpus=4, logging_level="ERROR")
    found = globals()[job](folder)
    groups = ray.util.placement_group_table().values()
    found["groups left"] = sum(group["state"] != "REMOVED" for group in groups)
    ray.shutdown()
    print("outcome", json.dumps(found), flush=True)


if __name__ == "__main__":
    main()

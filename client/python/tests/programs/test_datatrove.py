"""datatrove's executor for Ray, from the package index, unmodified.

The one thing to know: each test is a driver of its own, run by `raylet run`. This file must not import
datatrove.
"""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

if importlib.util.find_spec("datatrove") is None:
    pytest.skip("datatrove is not installed", allow_module_level=True)

JOBS = Path(__file__).parent / "datatrove_jobs.py"


def run(job, folder):
    """Runs a job; its outcome, and what it wrote besides."""
    temporary = folder / "tmp"
    temporary.mkdir()
    command = [sys.executable, "-m", "raylet", "run", str(JOBS), job, str(folder)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, env={**os.environ, "TMPDIR": str(temporary)}
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("outcome ")]
    assert done.returncode == 0 and lines, done.stdout + done.stderr
    return json.loads(lines[-1].removeprefix("outcome ")), done.stdout + done.stderr


def ranks(count):
    return [f"{rank:05d}" for rank in range(count)]


def logs(count):
    return [f"task_{rank:05d}.log" for rank in range(count)]


def test_ranks_run_and_leave_logs_stats_and_completions(tmp_path):
    found, _ = run("plain", tmp_path)
    assert found["completed"] == ranks(3) and found["logs"] == logs(3)
    assert found["documents"] == 3 and found["groups left"] == 0


def test_a_rank_whose_worker_was_killed_runs_again(tmp_path):
    found, _ = run("killed", tmp_path)
    assert found["completed"] == ranks(3) and found["kills"] == 2
    assert found["documents"] == 3 and found["groups left"] == 0


def test_completed_ranks_are_skipped(tmp_path):
    found, _ = run("skips", tmp_path)
    assert found["completed"] == ranks(3)
    assert found["ran"] == {"ran-0": 1, "ran-1": 2, "ran-2": 1}


def test_a_job_waits_for_the_one_it_depends_on(tmp_path):
    found, _ = run("depends", tmp_path)
    assert found["first"] == found["completed"] == ranks(2)
    assert found["ran"] == {"first-0": 1, "first-1": 1, "second-0": 1, "second-1": 1}


def test_several_ranks_share_a_worker(tmp_path):
    found, _ = run("together", tmp_path)
    assert found["completed"] == ranks(5) and found["documents"] == 5


def test_a_rank_on_two_nodes_runs_twice_and_counts_once(tmp_path):
    found, _ = run("two_nodes", tmp_path)
    assert found["completed"] == ranks(2) and found["documents"] == 2
    assert found["groups left"] == 0


def test_ranks_begin_at_random_and_the_first_logs_here(tmp_path):
    found, written = run("late", tmp_path)
    assert found["completed"] == ranks(2)
    assert "Processing done for rank=" in written


def test_a_rank_that_raises_leaves_the_others_alone(tmp_path):
    found, _ = run("fails", tmp_path)
    assert found["completed"] == ["00000", "00002"] and found["logs"] == logs(3)
    assert found["documents"] is None
    assert "rank 1 fails" in (tmp_path / "logs" / "logs" / "task_00001.log").read_text()


def test_a_rank_that_takes_too_long_ends_the_run_as_on_ray(tmp_path):
    found, _ = run("timeout", tmp_path)
    assert found["raised"] == "KeyError" and found["seconds"] < 20

"""The command line of the demo.

The one thing to know: it takes the Rust form's arguments, so that one line runs both on the same corpus, and leaves
its files beside the Rust form's, in a folder `python`.

This file must not work on text.
"""

import argparse
import json
import re
import sys
from pathlib import Path
from time import perf_counter

import raylet as ray

from . import compare, corpus, job, output, report

# Words that are listed as the most frequent.
TOP_WORDS = 50
UNITS = {"": 0, "K": 10, "M": 20, "G": 30}


def size_of(text: str) -> int:
    """Bytes: `1000`, `64K`, `64M`, `1G`, also written `64MiB`."""
    parts = re.fullmatch(r"(\d+)([KMG]?)(?:I?B)?", text.upper())
    if parts is None or int(parts[1]) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of bytes: 1000, 64K, 64M, 1G")
    return int(parts[1]) << UNITS[parts[2]]


def parser() -> argparse.ArgumentParser:
    """What may be said."""
    parser = argparse.ArgumentParser("demo", description="Turns a folder of text into clean, unique passages.")
    add = parser.add_argument
    add("folders", nargs="*", help="folders or files to read; by default Python's library and Rust's documentation")
    add("--max-bytes", type=size_of, default="256M", help="bytes of files to read, at most")
    add("--repeat", type=int, default=1, help="how often the files are read; each copy's passages are marked")
    add("--to-bytes", type=size_of, help="as often as it takes to so many bytes")
    add("--batch-bytes", type=size_of, default="4M", help="bytes of files in one batch")
    add("--shards", type=int, choices=range(1, 65), metavar="1..64", default=1, help="actors that share the hashes")
    add("--local", action="store_true", help="run all tasks in this process, one after the other")
    add("--kill-one", nargs="?", const="worker", choices=["worker", "actor"], help="kill a process in the middle")
    add("--compare", action="store_true", help="fail unless the Rust form left the same in the output folder")
    add("--output", type=Path, default="target/demo", help="where the files go, into a folder `python`")
    add("--measure", action="store_true", help="only measure the whole job")
    add("--json", action="store_true", help="print one line of JSON instead of text")
    add("--no-check", action="store_true", help="as if --compare were not there")
    add("--ideal", action="store_true", help="nothing: plain processes are measured by the Rust form")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """The program; gives its exit code: 0, or 1 when the work failed or the forms differ. Bad arguments exit with 2."""
    wanted = parser().parse_args(arguments)
    try:
        return 0 if wanted.ideal else run(wanted)
    except (corpus.CorpusError, OSError, ValueError, ray.exceptions.RayError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1


def run(wanted: argparse.Namespace) -> int:
    """The job, its files, and the comparison."""
    found = corpus.find(wanted.folders, wanted.max_bytes, wanted.repeat, wanted.to_bytes, wanted.batch_bytes)
    folder = wanted.output / "python"
    folder.mkdir(parents=True, exist_ok=True)
    started = perf_counter()
    outcome = work(wanted, found, str(folder / "passages.arrow"))
    top = output.ranked(outcome.words, TOP_WORDS)
    stats = report.stats(found, outcome, top)
    (folder / "stats.json").write_text(json.dumps(stats, indent=2, ensure_ascii=False))
    if wanted.json:
        print(json.dumps(stats))
    elif wanted.measure:
        seconds = perf_counter() - started
        print(f"{report.mib(found.size)} in Python: whole {seconds:.3f} s ({found.size / 1e6 / seconds:.0f} MB/s)")
    else:
        report.print_findings(found, outcome.findings, top)
        report.print_costs(outcome)
        print(f"files      {folder / 'passages.arrow'} and {folder / 'stats.json'}")
    return check(wanted, folder) if wanted.compare and not (wanted.no_check or wanted.measure) else 0


def work(wanted: argparse.Namespace, found: corpus.Corpus, path: str) -> job.Outcome:
    """The job, on a raylet of its own with room for the corpus twice: as documents and as what is under way."""
    progress = report.Progress(found.size, wanted.json)
    where = {"local_mode": True} if wanted.local else {"address": "local"}
    ray.init(**where, object_store_memory=found.size * 2 + (256 << 20))
    try:
        return job.run(found, wanted.shards, wanted.kill_one, path, progress)
    finally:
        progress.clear()
        ray.shutdown()


def check(wanted: argparse.Namespace, folder: Path) -> int:
    """Compares with what the Rust form left."""
    different = compare.differences(folder, wanted.output)
    for difference in different:
        print(f"differs: {difference}", file=sys.stderr)
    if different:
        print(f"demo: the Rust form found something else in {len(different)} places", file=sys.stderr)
    elif not wanted.json:
        print("compared   the Rust form found the same: corpus, findings, words, and every value of the passages")
    return 1 if different else 0

"""What the demo shows: progress while it works, then what it found and where time and bytes went.

The one thing to know: every number comes from receipts of tasks or from the findings; nothing is estimated.

This file must not decide what is right: `compare` does.
"""

import sys
from dataclasses import asdict, dataclass
from time import perf_counter
from typing import TYPE_CHECKING

from .corpus import Corpus
from .output import Findings

if TYPE_CHECKING:
    from .job import Outcome
    from .tasks import Receipt

# What is done, in the order of the work, with its name in the table and who does it.
OPERATORS = {
    "read": ("read files", "workers"),
    "strip": ("strip markup", "workers"),
    "normalise": ("normalise", "workers"),
    "filter": ("filter documents", "workers"),
    "slice": ("slice into passages", "workers"),
    "claim": ("claim hashes", "actors"),
    "drop": ("drop duplicates", "workers"),
    "count": ("count words", "workers"),
    "merge": ("merge words", "workers"),
    "sum": ("sum words", "driver"),
    "write": ("write passages", "driver"),
}


@dataclass
class Sum:
    """Sums of one operator's receipts."""

    calls: int = 0
    seconds: float = 0.0
    bytes_in: int = 0
    bytes_out: int = 0


class Tally:
    """Sums of all receipts, and the processes that they come from."""

    def __init__(self) -> None:
        self.sums = {operator: Sum() for operator in OPERATORS}
        self.pids: set[int] = set()
        self.last_worker: int | None = None

    def add(self, operator: str, receipt: "Receipt") -> None:
        """Counts one."""
        total, (_, who) = self.sums[operator], OPERATORS[operator]
        total.calls += 1
        total.seconds += receipt.ns / 1e9
        total.bytes_in += receipt.bytes_in
        total.bytes_out += receipt.bytes_out
        if who != "driver":
            self.pids.add(receipt.pid)
        if who == "workers":
            self.last_worker = receipt.pid

    def remote(self) -> list[Sum]:
        """Sums of what was not done by the driver."""
        return [self.sums[operator] for operator, (_, who) in OPERATORS.items() if who != "driver"]

    def run(self) -> dict[str, int]:
        """How many tasks in how many processes, and where bytes went: each result is stored once."""
        in_place = sum(each.bytes_in for each in self.sums.values()) - self.sums["read"].bytes_in
        return {
            "tasks": sum(each.calls for each in self.remote()),
            "processes": len(self.pids),
            "bytes_read": self.sums["read"].bytes_in,
            "bytes_stored": sum(each.bytes_out for each in self.remote()),
            "bytes_read_in_place": in_place,
            "bytes_written": self.sums["write"].bytes_out,
        }


class Progress:
    """A line on a terminal; nothing elsewhere."""

    def __init__(self, size: int, is_quiet: bool) -> None:
        self.size, self.done, self.started = size, 0, perf_counter()
        self.is_shown = sys.stderr.isatty() and not is_quiet

    def advance(self, size: int, findings: Findings) -> None:
        """So many bytes more are done."""
        self.done += size
        if self.is_shown:
            rate = self.done / 1e6 / (perf_counter() - self.started)
            line = f"{self.done * 100 // self.size:3} % of {mib(self.size)}, {rate:.0f} MB/s, "
            print(f"\r{line}{findings.passages_kept} passages kept\033[K", end="", file=sys.stderr, flush=True)

    def say(self, text: str) -> None:
        """Something happened."""
        self.clear()
        print(text, file=sys.stderr)

    def clear(self) -> None:
        """The line goes."""
        if self.is_shown:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


def mib(size: int) -> str:
    """Numbers of bytes for people."""
    return f"{size / (1 << 20):.1f} MiB"


def print_findings(corpus: Corpus, findings: Findings, top: list[tuple[str, int]]) -> None:
    """What was found, in words."""
    roots = ", ".join(root.path for root in corpus.roots)
    print(f"corpus     {len(corpus.paths)} files, {mib(corpus.size)}, {corpus.copies} x, of {roots}")
    kept = f"{findings.documents_kept} are long enough and not mostly repetition"
    print(f"documents  {findings.documents}, of which {kept} ({findings.files_skipped} files are no text)")
    duplicates = findings.passages - findings.passages_kept
    percent = duplicates * 100 / max(findings.passages, 1)
    print(f"passages   {findings.passages}, without {duplicates} duplicates ({percent:.1f} %) {findings.passages_kept}")
    first = ", ".join(f"{word} {count}" for word, count in top[:8])
    print(f"words      {findings.words}, {findings.distinct_words} different; {first}")


def print_costs(outcome: "Outcome") -> None:
    """Where time and bytes went, in words."""
    tally, run = outcome.tally, outcome.tally.run()
    print(f"\n{'operator':22}{'calls':>8}{'seconds':>10}{'MB/s':>12}{'run by':>12}")
    for operator, (name, who) in OPERATORS.items():
        each = tally.sums[operator]
        rate = each.bytes_in / 1e6 / max(each.seconds, 1e-9)
        print(f"{name:22}{each.calls:>8}{each.seconds:>10.2f}{rate:>12.0f}{who:>12}")
    busy = sum(each.seconds for each in tally.sums.values())
    processes = f"{run['tasks']} tasks and calls in {run['processes']} processes"
    print(f"\n{outcome.seconds:.2f} s, {processes}, which worked {busy:.2f} s in sum")
    stored = f"{mib(run['bytes_stored'])} put into the store (each result once, the only copy)"
    print(f"bytes      {mib(run['bytes_read'])} read from files, {stored}")
    written = f"{mib(run['bytes_written'])} written to the file"
    print(f"           {mib(run['bytes_read_in_place'])} of arguments read where they lie, {written}")
    if outcome.killed is not None:
        print(f"killed     process {outcome.killed}; actors made anew: {outcome.restarts}")


def stats(corpus: Corpus, outcome: "Outcome", top: list[tuple[str, int]]) -> dict:
    """Both for `stats.json`: `corpus`, `found` and `words` are the same for every run on the same files."""
    operators = [{"name": name, **asdict(outcome.tally.sums[operator])} for operator, (name, _) in OPERATORS.items()]
    run = {"seconds": outcome.seconds, "killed_pid": outcome.killed, "actor_restarts": outcome.restarts}
    return {
        "corpus": {
            "folders": [root.path for root in corpus.roots],
            "files": len(corpus.paths),
            "bytes": corpus.size,
            "copies": corpus.copies,
        },
        "found": asdict(outcome.findings),
        "words": [{"word": word, "count": count} for word, count in top],
        "run": run | outcome.tally.run() | {"operators": operators},
    }

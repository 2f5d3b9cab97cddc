"""The job: portions of the corpus through chains of tasks, a bounded number at once.

The one thing to know: a portion's whole chain is submitted at once, as references to results that are not there yet:

    read -> strip_markup -> normalise -> filter_documents -> slice_passages -> claim -> drop_duplicates -> count_words

The driver then waits for the receipts of the oldest portion, and writes its kept passages: in the corpus' order,
whatever order tasks end in. So the result depends on no scheduling.

This file must not touch text.
"""

import os
import signal
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from time import perf_counter, perf_counter_ns

import pyarrow as pa

import raylet as ray
from raylet.exceptions import RayActorError

from . import operators, tasks
from .corpus import Corpus, Portion
from .dedupe import Shards
from .output import Findings, PassageFile
from .report import Progress, Tally

# Portions under way, for each core and beside: while the driver writes, nobody runs dry.
PORTIONS_PER_CORE = 2
PORTIONS_BESIDE = 2


@dataclass
class Outcome:
    """What came of it, and what it took."""

    findings: Findings
    words: pa.RecordBatch
    tally: Tally
    killed: int | None
    restarts: int
    seconds: float


@dataclass
class Flight:
    """A portion under way: references to what it becomes, and to receipts by operator."""

    number: int
    size: int
    passages: ray.ObjectRef
    receipts: dict[str, ray.ObjectRef]
    claims: list[ray.ObjectRef] = field(default_factory=list)
    kept: ray.ObjectRef | None = None
    words: ray.ObjectRef | None = None


def run(corpus: Corpus, shards: int, victim: str | None, path: str, progress: Progress) -> Outcome:
    """Runs the job on the whole corpus and writes the passages to `path`."""
    started = perf_counter()
    with PassageFile(path, corpus.paths) as file:
        job = Job(shards, victim, file, progress)
        job.portions(corpus.portions)
        words = job.words.finish(job.tally)
    job.findings.set_words(words)
    seconds = perf_counter() - started
    return Outcome(job.findings, words, job.tally, job.killed, job.shards.restarts, seconds)


class Job:
    """The job while it runs."""

    def __init__(self, shards: int, victim: str | None, file: PassageFile, progress: Progress) -> None:
        self.shards, self.file, self.progress = Shards(shards), file, progress
        self.flights: deque[Flight] = deque()
        self.words, self.findings, self.tally = WordTree(), Findings(), Tally()
        self.victim, self.killed, self.middle = victim, None, 0

    def portions(self, portions: list[Portion]) -> None:
        """All portions, until the last is written."""
        window = (os.cpu_count() or 1) * PORTIONS_PER_CORE + PORTIONS_BESIDE
        self.middle = len(portions) // 2
        for number, portion in enumerate(portions):
            if len(self.flights) == window:
                self.land()
            self.start(number, portion)
        while self.flights:
            self.land()

    def start(self, number: int, portion: Portion) -> None:
        """Submits all that there is to do for a portion."""
        documents, read = tasks.read.remote(portion)
        stripped, strip = tasks.strip_markup.remote(documents)
        normal, normalise = tasks.normalise.remote(stripped)
        verdict, filtered = tasks.filter_documents.remote(normal)
        passages, hashes, sliced = tasks.slice_passages.remote(normal, verdict)
        receipts = {"read": read, "strip": strip, "normalise": normalise, "filter": filtered, "slice": sliced}
        flight = Flight(number, portion.size, passages, receipts)
        self.finish(flight, self.shards.claim(hashes))
        self.flights.append(flight)

    def finish(self, flight: Flight, answers: list[tuple[ray.ObjectRef, ray.ObjectRef]]) -> None:
        """Submits what follows the shards' answers."""
        flight.claims = [receipt for _, receipt in answers]
        flight.kept, dropped = tasks.drop_duplicates.remote(flight.passages, *[bits for bits, _ in answers])
        flight.words, counted = tasks.count_words.remote(flight.kept)
        flight.receipts |= {"drop": dropped, "count": counted}

    def land(self) -> None:
        """Waits for the oldest portion and writes its passages."""
        claims = self.claimed()
        flight = self.flights.popleft()
        receipts = dict(zip(flight.receipts, ray.get(list(flight.receipts.values())), strict=True))
        self.count(receipts, claims)
        self.words.add(flight.words)
        self.write(ray.get(flight.kept))
        self.progress.advance(flight.size, self.findings)
        if self.victim and flight.number + 1 >= self.middle:
            self.kill_one()

    def claimed(self) -> list[tasks.Receipt]:
        """The receipts of the oldest portion's claims. Actors that have died are made anew and told everything."""
        while True:
            try:
                return ray.get(self.flights[0].claims)
            except RayActorError as death:
                self.shards.restart(death)
                for batch in range(self.flights[0].number):
                    self.shards.ask(batch)
                for flight in self.flights:
                    self.finish(flight, self.shards.ask(flight.number))

    def count(self, receipts: dict[str, tasks.Receipt], claims: Iterable[tasks.Receipt]) -> None:
        """Adds up what one portion's tasks say."""
        for operator, receipt in receipts.items():
            self.tally.add(operator, receipt)
        for receipt in claims:
            self.tally.add("claim", receipt)
        self.findings.documents += receipts["read"].rows
        self.findings.files_skipped += receipts["read"].skipped
        self.findings.bytes_read += receipts["read"].bytes_in
        self.findings.documents_kept += receipts["filter"].rows
        self.findings.passages += receipts["slice"].rows

    def write(self, passages: pa.RecordBatch) -> None:
        """Appends a portion's passages to the file."""
        started = perf_counter_ns()
        self.file.write(passages, self.findings)
        self.tally.add("write", tasks.receipt(started, (passages,), (passages,), passages.num_rows))

    def kill_one(self) -> None:
        """Kills the victim, unless it ended by itself: then another one, next time."""
        victim = self.shards.pid() if self.victim == "actor" else self.tally.last_worker
        if victim == os.getpid() and self.victim == "actor":
            # Without a process of its own it can still be ended.
            self.shards.kill()
        elif victim == os.getpid():
            raise ValueError("the driver ran the tasks, it has no worker to kill: leave out --local or --kill-one")
        elif victim is None or not killed(victim):
            return
        self.progress.say(f"killed {self.victim} (pid {victim}) in the middle of the job")
        self.killed, self.victim = victim, None


def killed(pid: int) -> bool:
    """Kills a process; whether there was one."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


class WordTree:
    """Counts of words on their way to one: whenever there are enough of a level, a task merges them."""

    def __init__(self) -> None:
        self.levels: list[list[ray.ObjectRef]] = []
        self.receipts: list[ray.ObjectRef] = []

    def add(self, words: ray.ObjectRef) -> None:
        """One more."""
        for level in self.levels:
            level.append(words)
            if len(level) < operators.WORDS_MERGED_AT_ONCE:
                return
            words, receipt = tasks.merge_words.remote(*level)
            self.receipts.append(receipt)
            level.clear()
        self.levels.append([words])

    def finish(self, tally: Tally) -> pa.RecordBatch:
        """What no task merged, merged here."""
        left = ray.get([words for level in self.levels for words in level])
        started = perf_counter_ns()
        merged = operators.merge_words(left)
        tally.add("sum", tasks.receipt(started, tuple(left), (merged,), merged.num_rows))
        for receipt in ray.get(self.receipts):
            tally.add("merge", receipt)
        return merged

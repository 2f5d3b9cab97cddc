"""Whether the Rust form found the same.

The one thing to know: compared are the facts of `stats.json` (`corpus`, `found` and `words`: all that does not say how
long it took), and of `passages.arrow` the schema, the cuts between batches and every value of every row. The bytes
of the two files may differ: Arrow leaves padding and the order of metadata to who writes.

This file must not know how passages are found.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

# Of `stats.json`, what follows from the corpus alone.
FACTS = ("corpus", "found", "words")


def differences(ours: Path, theirs: Path) -> list[str]:
    """What differs between what two runs left in their folders; nothing if they found the same. Raises OSError."""
    left, right = (json.loads((folder / "stats.json").read_bytes()) for folder in (ours, theirs))
    different = [f"{fact}: {left[fact]}, there {right[fact]}" for fact in FACTS if left[fact] != right[fact]]
    with pa.memory_map(str(ours / "passages.arrow")) as left, pa.memory_map(str(theirs / "passages.arrow")) as right:
        return different + list(different_passages(pa.ipc.open_file(left), pa.ipc.open_file(right)))


def different_passages(ours: pa.RecordBatchFileReader, theirs: pa.RecordBatchFileReader) -> Iterator[str]:
    """What differs between two files of passages: of rows, the first in each batch."""
    if not ours.schema.equals(theirs.schema):
        yield f"the passages' schema: {ours.schema}, there {theirs.schema}"
    elif ours.num_record_batches != theirs.num_record_batches:
        yield f"batches of passages: {ours.num_record_batches}, there {theirs.num_record_batches}"
    else:
        for number in range(ours.num_record_batches):
            left, right = ours.get_batch(number), theirs.get_batch(number)
            if not left.equals(right):
                yield f"batch {number} of {left.num_rows} passages, there of {right.num_rows}: {first(left, right)}"


def first(left: pa.RecordBatch, right: pa.RecordBatch) -> str:
    """The first row that is not the same in both."""
    rows = zip(left.to_pylist(), right.to_pylist(), strict=False)
    both = next(((row, left, right) for row, (left, right) in enumerate(rows) if left != right), None)
    return "one begins with the other" if both is None else f"row {both[0]}: {both[1]}, there {both[2]}"

"""What the job leaves: an Arrow IPC file of passages, and the findings that go with it.

The one thing to know: both follow from the corpus alone: same passages, in the corpus' order, in the batches that they
were found in. Paths are a dictionary, written once. Schema and findings are the Rust form's.

This file must not know who found the passages.
"""

from dataclasses import dataclass
from typing import Self

import pyarrow as pa

from . import operators

SCHEMA = pa.schema(
    [
        pa.field("path", pa.dictionary(pa.int32(), pa.large_string()), nullable=False),
        pa.field("copy", pa.int32(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("text", pa.large_string(), nullable=False),
    ]
)


@dataclass
class Findings:
    """What was found; the same for every run on the same files, in either language.

    Documents are files that are text, kept are those that are long enough and not mostly repetition; passages are
    kept that no earlier one equals. `text_bytes`, `words` and `distinct_words` are of kept passages.
    """

    documents: int = 0
    files_skipped: int = 0
    bytes_read: int = 0
    documents_kept: int = 0
    passages: int = 0
    passages_kept: int = 0
    text_bytes: int = 0
    words: int = 0
    distinct_words: int = 0

    def set_words(self, words: pa.RecordBatch) -> None:
        """Counts the words of all passages."""
        self.words = sum(words.column("count").to_pylist())
        self.distinct_words = words.num_rows


class PassageFile:
    """The file being written; leaving the block completes it."""

    def __init__(self, path: str, paths: list[str]) -> None:
        self.paths = pa.array(paths, pa.large_string())
        self.file = pa.OSFile(path, "wb")
        self.writer = pa.ipc.new_file(self.file, SCHEMA)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.writer.close()
        self.file.close()

    def write(self, passages: pa.RecordBatch, findings: Findings) -> None:
        """Appends the kept passages of the next batch, and counts them."""
        findings.passages_kept += passages.num_rows
        findings.text_bytes += sum(map(len, operators.texts_of(passages)))
        path = pa.DictionaryArray.from_arrays(passages.column("file"), self.paths)
        columns = [path, *map(passages.column, ("copy", "offset", "text"))]
        self.writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=SCHEMA))


def ranked(words: pa.RecordBatch, count: int) -> list[tuple[str, int]]:
    """The most frequent words; those of one count by the alphabet."""
    rows = zip(words.column("word").to_pylist(), words.column("count").to_pylist(), strict=True)
    return sorted(rows, key=lambda row: (-row[1], row[0]))[:count]

"""The operators of the demo: Arrow batches in, Arrow batches out.

The one thing to know: the work is done by plain functions on the bytes of one text (UTF-8, as Arrow has it), in the
files beside, with what Python is fast at: `re`, `split`, `translate` and `Counter`, on long pieces. Here they meet
columns. A batch that comes from the store is read where it lies.

They must not know who calls them, nor keep anything between calls: the order of batches must not matter.

| batch | columns |
| --- | --- |
| documents, as read | `file`, `copy`, `path`, `text` |
| documents | `file`, `copy`, `text` |
| verdict | `keep`, a row for each document |
| passages | `file`, `copy`, `offset`, `text` |
| words | `word`, `count` |
"""

from collections.abc import Iterable, Sequence
from itertools import accumulate

import pyarrow as pa

from . import markup, normal, passages, words
from . import verdict as verdicts

# Batches of counts that one call merges.
WORDS_MERGED_AT_ONCE = 4


def numbers(values: Iterable[int], kind: pa.DataType) -> pa.Array:
    """A column of numbers."""
    return pa.array(values, kind)


def text_column(texts: Sequence[bytes]) -> pa.Array:
    """A column of texts, each in valid UTF-8."""
    ends = pa.array(accumulate(map(len, texts), initial=0), pa.int64())
    return pa.LargeStringArray.from_buffers(len(texts), ends.buffers()[1], pa.py_buffer(b"".join(texts)))


def texts_of(batch: pa.RecordBatch, name: str = "text") -> list[bytes]:
    """The texts of a column, as bytes."""
    return batch.column(name).view(pa.large_binary()).to_pylist()


def strip_markup(documents: pa.RecordBatch) -> pa.RecordBatch:
    """Documents without their markup."""
    rows = zip(documents.column("path").to_pylist(), texts_of(documents), strict=True)
    return with_texts(documents, [markup.strip(text) if path.endswith(markup.ENDS) else text for path, text in rows])


def normalise(documents: pa.RecordBatch) -> pa.RecordBatch:
    """Documents with white space in one form, and without what nobody sees."""
    return with_texts(documents, [normal.normalise(text) for text in texts_of(documents)])


def with_texts(documents: pa.RecordBatch, texts: Sequence[bytes]) -> pa.RecordBatch:
    """The same documents with other texts."""
    columns = {"file": documents.column("file"), "copy": documents.column("copy"), "text": text_column(texts)}
    return pa.record_batch(columns)


def filter_documents(documents: pa.RecordBatch) -> pa.RecordBatch:
    """A batch with one column `keep`."""
    return pa.record_batch({"keep": pa.array(map(verdicts.is_worth_it, texts_of(documents)), pa.bool_())})


def slice_passages(documents: pa.RecordBatch, verdict: pa.RecordBatch) -> tuple[pa.RecordBatch, bytes]:
    """The passages of the documents that the verdict keeps, and their hashes one after the other."""
    kept = documents.filter(verdict.column("keep"))
    files, copies, offsets, texts = [], [], [], []
    rows = zip(kept.column("file").to_pylist(), kept.column("copy").to_pylist(), texts_of(kept), strict=True)
    for file, copy, text in rows:
        sliced = passages.sliced(text, copy)
        files += [file] * len(sliced)
        copies += [copy] * len(sliced)
        offsets += [offset for offset, _ in sliced]
        texts += [passage for _, passage in sliced]
    columns = {
        "file": numbers(files, pa.int32()),
        "copy": numbers(copies, pa.int32()),
        "offset": numbers(offsets, pa.int64()),
        "text": text_column(texts),
    }
    return pa.record_batch(columns), b"".join(map(passages.hash_of, texts))


def drop_rows(batch: pa.RecordBatch, bits: bytes) -> pa.RecordBatch:
    """The rows whose bit is set. Raises ValueError for bits of another batch."""
    rows = batch.num_rows
    if len(bits) != (rows + 7) // 8:
        raise ValueError(f"{len(bits) * 8} verdicts came for {rows} rows")
    # Arrow's booleans are bits in the same order.
    return batch.filter(pa.BooleanArray.from_buffers(pa.bool_(), rows, [None, pa.py_buffer(bits)]))


def count_words(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Words of all texts in lower case, with their counts. The rows have no order."""
    counts = words.counted(texts_of(batch))
    return pa.record_batch({"word": text_column(list(counts)), "count": numbers(counts.values(), pa.uint64())})


def merge_words(parts: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
    """The sum of several counts."""
    # One thread: every core has a worker already.
    merged = pa.Table.from_batches(parts).group_by("word", use_threads=False).aggregate([("count", "sum")])
    columns = {"word": merged.column("word").combine_chunks(), "count": merged.column("count_sum").combine_chunks()}
    return pa.record_batch(columns)

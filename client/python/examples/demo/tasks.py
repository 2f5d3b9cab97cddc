"""The operators as remote functions, each with a receipt of what it did.

The one thing to know: a receipt is a result of its own, of a few bytes: the driver waits for receipts and passes the
batches on by reference, unread.

This file must not do work; the operators do.
"""

import os
from time import perf_counter_ns
from typing import Any, NamedTuple

import pyarrow as pa

import raylet as ray

from . import corpus, operators


class Receipt(NamedTuple):
    """What a task did: bytes are of arguments and results, rows those that it made; of a filter, those that stay."""

    pid: int
    ns: int
    bytes_in: int
    bytes_out: int
    rows: int
    skipped: int = 0


def receipt(started: int, arguments: tuple, results: tuple, rows: int) -> Receipt:
    """For what started then."""
    bytes_in, bytes_out = (sum(map(bytes_of, values)) for values in (arguments, results))
    return Receipt(os.getpid(), perf_counter_ns() - started, bytes_in, bytes_out, rows)


def bytes_of(value: pa.RecordBatch | bytes) -> int:
    """What it takes to store it."""
    return value.nbytes if isinstance(value, pa.RecordBatch) else len(value)


@ray.remote(num_returns=2)
def read(portion: corpus.Portion) -> tuple[pa.RecordBatch, Receipt]:
    """Files as documents."""
    started = perf_counter_ns()
    documents, size, skipped = corpus.read(portion)
    read = receipt(started, (), (documents,), documents.num_rows)
    return documents, read._replace(bytes_in=size, skipped=skipped)


@ray.remote(num_returns=2)
def strip_markup(documents: pa.RecordBatch) -> tuple[pa.RecordBatch, Receipt]:
    """See `operators.strip_markup`."""
    return one_batch(operators.strip_markup, documents)


@ray.remote(num_returns=2)
def normalise(documents: pa.RecordBatch) -> tuple[pa.RecordBatch, Receipt]:
    """See `operators.normalise`."""
    return one_batch(operators.normalise, documents)


@ray.remote(num_returns=2)
def filter_documents(documents: pa.RecordBatch) -> tuple[pa.RecordBatch, Receipt]:
    """See `operators.filter_documents`."""
    verdict, filtered = one_batch(operators.filter_documents, documents)
    return verdict, filtered._replace(rows=verdict.column("keep").true_count)


@ray.remote(num_returns=3)
def slice_passages(documents: pa.RecordBatch, verdict: pa.RecordBatch) -> tuple[pa.RecordBatch, bytes, Receipt]:
    """See `operators.slice_passages`."""
    started = perf_counter_ns()
    passages, hashes = operators.slice_passages(documents, verdict)
    return passages, hashes, receipt(started, (documents, verdict), (passages, hashes), passages.num_rows)


@ray.remote(num_returns=2)
def drop_duplicates(passages: pa.RecordBatch, *answers: bytes) -> tuple[pa.RecordBatch, Receipt]:
    """The passages that any of the shards has not seen before."""
    is_first = int.from_bytes(answers[0], "little")
    for answer in answers[1:]:
        is_first |= int.from_bytes(answer, "little")
    return one_batch(operators.drop_rows, passages, is_first.to_bytes(len(answers[0]), "little"))


@ray.remote(num_returns=2)
def count_words(passages: pa.RecordBatch) -> tuple[pa.RecordBatch, Receipt]:
    """See `operators.count_words`."""
    return one_batch(operators.count_words, passages)


@ray.remote(num_returns=2)
def merge_words(*parts: pa.RecordBatch) -> tuple[pa.RecordBatch, Receipt]:
    """See `operators.merge_words`."""
    started = perf_counter_ns()
    merged = operators.merge_words(parts)
    return merged, receipt(started, parts, (merged,), merged.num_rows)


def one_batch(operator: Any, *arguments: Any) -> tuple[pa.RecordBatch, Receipt]:
    """What an operator makes of its arguments, and a receipt."""
    started = perf_counter_ns()
    result = operator(*arguments)
    return result, receipt(started, arguments, (result,), result.num_rows)

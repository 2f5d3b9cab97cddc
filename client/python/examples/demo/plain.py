"""The same operators without a raylet: one portion after the other, in one thread.

The one thing to know: it shows what the job adds to the operators, which is no more than who runs them; tests compare
it with the Rust form.

This file must not share code with the job beyond the operators and the output.
"""

import pyarrow as pa

from . import corpus, operators
from .operators.passages import HASH_BYTES
from .output import Findings, PassageFile


def run(found: corpus.Corpus, path: str) -> tuple[Findings, pa.RecordBatch]:
    """Writes the passages to `path`; gives what was found, and how often each word stands in it."""
    findings, seen, words = Findings(), set(), []
    with PassageFile(path, found.paths) as file:
        for portion in found.portions:
            passages, hashes = mapped(portion, findings)
            kept = operators.drop_rows(passages, first_bits(hashes, seen))
            words.append(operators.count_words(kept))
            file.write(kept, findings)
    merged = operators.merge_words(words)
    findings.set_words(merged)
    return findings, merged


def mapped(portion: corpus.Portion, findings: Findings) -> tuple[pa.RecordBatch, bytes]:
    """The operators that need nothing but their batch."""
    documents, size, skipped = corpus.read(portion)
    findings.documents += documents.num_rows
    findings.bytes_read += size
    findings.files_skipped += skipped
    documents = operators.normalise(operators.strip_markup(documents))
    verdict = operators.filter_documents(documents)
    findings.documents_kept += verdict.column("keep").true_count
    passages, hashes = operators.slice_passages(documents, verdict)
    findings.passages += passages.num_rows
    return passages, hashes


def first_bits(hashes: bytes, seen: set[bytes]) -> bytes:
    """A bit for each hash that was not seen before."""
    rows = len(hashes) // HASH_BYTES
    bits = bytearray((rows + 7) // 8)
    for row in range(rows):
        hashed = hashes[row * HASH_BYTES : (row + 1) * HASH_BYTES]
        bits[row // 8] |= (hashed not in seen) << row % 8
        seen.add(hashed)
    return bytes(bits)

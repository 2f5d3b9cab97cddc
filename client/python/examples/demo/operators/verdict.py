"""Which documents are worth keeping: long enough, and not mostly repetition.

The one thing to know: a document is compared with itself in pieces of eight words, and the verdict is a bit; no text
is copied for it.

This file must not compare documents with each other.
"""

import re

# Shorter documents say too little.
DOCUMENT_BYTES_MIN = 256
# How much of a document may be pieces that it had before, in percent.
REPEATED_PERCENT_MAX = 50
# Eight words of a paragraph, with the spaces behind them, or what is left of it.
PIECE = re.compile(rb"(?:[^ \n]*+ ){8}|[^\n]++")


def is_worth_it(text: bytes) -> bool:
    """The verdict."""
    return len(text) >= DOCUMENT_BYTES_MIN and repeated_bytes(text) * 100 <= len(text) * REPEATED_PERCENT_MAX


def repeated_bytes(text: bytes) -> int:
    """Bytes in pieces that stand in the text before."""
    different = set(PIECE.findall(text))
    return len(text) - text.count(b"\n") - sum(map(len, different))

"""How often each word stands in passages.

The one thing to know: counts of parts add up to the counts of all, in any order. Nearly all text is ASCII: it is cut
at C's speed, with bytes beyond ASCII taken for letters; only what has such bytes is looked at by character, once
for all the times that it stands there.

This file must not know languages: a word is a letter and the letters, digits and underscores behind it.
"""

from collections import Counter
from collections.abc import Iterator, Sequence

from . import letters

# Longer runs of letters are no words, but data.
WORD_BYTES_MAX = 64


def cut_table() -> bytes:
    """Letters in lower case, digits, underscores and what is not ASCII as they are; a space for all else."""
    inside = {byte for byte in range(256) if byte >= 128 or chr(byte).isalnum() or byte == ord("_")}
    return bytes(byte if byte in inside else ord(" ") for byte in bytes(range(256)).lower())


CUT = cut_table()
SMALL_LETTERS = frozenset(range(ord("a"), ord("z") + 1))


def counted(texts: Sequence[bytes]) -> Counter[bytes]:
    """The words of texts in lower case, with their counts."""
    runs = Counter(b"\n".join(texts).translate(CUT).split())
    counts: Counter[bytes] = Counter()
    for run, count in runs.items():
        if not run.isascii():
            for word in wide_words(run):
                counts[word] += count
        elif run[0] in SMALL_LETTERS and len(run) <= WORD_BYTES_MAX:
            counts[run] += count
    return counts


def wide_words(run: bytes) -> Iterator[bytes]:
    """The words in a run that has more than ASCII."""
    for part in letters.RUN.findall(letters.lower(run.decode())):
        word = part.encode()
        if letters.is_letter(part[0]) and len(word) <= WORD_BYTES_MAX:
            yield word

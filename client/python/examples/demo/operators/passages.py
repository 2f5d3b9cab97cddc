"""Documents in passages.

The one thing to know: a passage ends where a paragraph does, once it is long enough, so that what two documents share
falls into the same passages. A hash of 128 bits stands for its text: equal hashes are equal texts.

This file must not know which passage came first; whoever sees all decides.
"""

from hashlib import blake2b

# A passage goes on until it has so many bytes.
PASSAGE_BYTES_WANTED = 512
# Then until its paragraph ends, at most so many.
PASSAGE_BYTES_MAX = 1024
# What is left of a document makes no passage of its own if it is shorter.
PASSAGE_BYTES_MIN = 64
# Bytes of a passage's hash.
HASH_BYTES = 16


def sliced(text: bytes, copy: int) -> list[tuple[int, bytes]]:
    """The passages of a document, each with where it starts.

    The corpus may be repeated: passages of its second copy on are marked with their copy's number, as they would all
    be duplicates otherwise.
    """
    mark = f"\u00a7{copy} ".encode() if copy > 0 else b""
    passages, start = [], 0
    while len(text) - start >= PASSAGE_BYTES_MIN:
        end = end_of_passage(text, start)
        passages.append((start, mark + text[start:end].rstrip(b" \n")))
        start = end
    return passages


def end_of_passage(text: bytes, start: int) -> int:
    """Where the passage ends that starts there, with the gap behind it."""
    limit = min(len(text), start + PASSAGE_BYTES_MAX)
    wanted = min(limit, start + PASSAGE_BYTES_WANTED)
    paragraph = text.find(b"\n", wanted, limit)
    if paragraph >= 0:
        return paragraph + 1
    if limit == len(text):
        return limit
    space = text.rfind(b" ", wanted, limit)
    return space + 1 if space >= 0 else start_of_character(text, limit)


def start_of_character(text: bytes, at: int) -> int:
    """Where the character starts that has a byte there."""
    while text[at] & 0xC0 == 0x80:
        at -= 1
    return at


def hash_of(passage: bytes) -> bytes:
    """What stands for a passage."""
    return blake2b(passage, digest_size=HASH_BYTES).digest()

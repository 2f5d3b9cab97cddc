"""Markup away, text stays.

The one thing to know: it is a scanner, not a parser: one regular expression knows where tags, comments, scripts and
entities end, and a table which tags end a paragraph. Broken markup never fails, it is text. No part of the
expression looks twice at a byte (`*+` and `++` give nothing back), so no text takes long.

This file must not look at documents that are not markup, which stay as they are.
"""

import re

# Files whose text is markup, by the ends of their names.
ENDS = (".html", ".htm", ".xhtml", ".xml", ".svg")
# Elements that are a paragraph, or in a paragraph of their own.
BLOCKS = (
    b"address article aside blockquote body dd details div dl dt footer form h1 h2 h3 h4 h5 h6 head header hr li main"
    b" nav ol p pre section summary table title tr ul"
)
# Elements between whose contents there is a gap.
GAPS = b"br td th option button img input"
# Characters that markup has names for.
ENTITIES = {
    b"amp": "&",
    b"lt": "<",
    b"gt": ">",
    b"quot": '"',
    b"apos": "'",
    b"nbsp": "\u00a0",
    b"copy": "\u00a9",
    b"reg": "\u00ae",
    b"mdash": "\u2014",
    b"ndash": "\u2013",
    b"hellip": "\u2026",
    b"lsquo": "\u2018",
    b"rsquo": "\u2019",
    b"ldquo": "\u201c",
    b"rdquo": "\u201d",
    b"times": "\u00d7",
    b"middot": "\u00b7",
}
# No entity's name is longer; what follows so long a name does not belong to it.
ENTITY_BYTES_MAX = 15

# The rest of a tag, whose values may hold `>`: to its end, or to the end of all where it has none.
REST = rb"""[^>"']*+ (?: (?: "[^"]*+" | '[^']*+' ) [^>"']*+ )*+"""
TOKEN = re.compile(
    rb"""
      < (?:
          !-- (?: [^-]++ | -(?!->) )*+ (?: --> )?+
        | (script|style|template|noscript) (?![a-z0-9]) """
    + REST
    # The content of an element that is not text, up to the end tag, which is a token of its own.
    + rb""" (?: > (?: [^<]++ | < (?! / \1 ) )*+ | .*+ )
        | /?+ (?: [!?] | ([a-z][a-z0-9]*+) ) """
    + REST
    + rb""" (?: > | .*+ )
      )
    | & ([a-z0-9#]{1,15}+) ;?+
    """,
    re.VERBOSE | re.DOTALL | re.IGNORECASE,
)


class Remembered(dict):
    """What stands for a tag of this name, or an entity as it was written; worked out when it is first met."""

    def __init__(self, work_out):
        self.work_out = work_out

    def __missing__(self, name: bytes) -> bytes:
        value = self.work_out(name)
        # A text may make up as many as it likes.
        if len(self) < 10_000:
            self[name] = value
        return value


def strip(text: bytes) -> bytes:
    """The text that is in `text`."""
    return TOKEN.sub(replacement, text)


def replacement(token: re.Match[bytes]) -> bytes:
    """What stands for a token in the text."""
    name = token[2]
    if name is not None:
        return TAGS[name]
    return CHARACTERS[token[0]] if token[3] is not None else b""


def gap(name: bytes) -> bytes:
    """What stands for a tag in the text."""
    name = name.lower()
    if name in BLOCKS.split():
        return b"\n\n"
    return b" " if name in GAPS.split() else b""


def entity(written: bytes) -> bytes:
    """The character of `&amp;`, `&#65;` or `&#x41;`; what is none stays as it is."""
    name = written[1:].removesuffix(b";")
    character = ENTITIES.get(name) or numbered(name)
    if character is None:
        return written
    return character.encode() + (b";" if len(name) == ENTITY_BYTES_MAX and written.endswith(b";") else b"")


def numbered(name: bytes) -> str | None:
    """The character of `#65` or `#x41`."""
    digits = re.fullmatch(rb"#(?:[xX]([0-9a-fA-F]+)|([0-9]+))", name)
    if digits is None:
        return None
    number = int(digits[1], 16) if digits[1] else int(digits[2])
    return chr(number) if number < 0xD800 or 0xDFFF < number < 0x110000 else None


TAGS = Remembered(gap)
CHARACTERS = Remembered(entity)

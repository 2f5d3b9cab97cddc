"""One form for what looks the same.

The one thing to know: any white space, Unicode's too, becomes one space, and with an empty line in it one line feed,
which ends a paragraph. Characters nobody sees go. The few that are not ASCII become ASCII first, so that all the
rest is `split` and `join`.

This file must not change a letter, nor its case.
"""

import re

# Controls that are no white space.
UNSEEN = bytes({*range(32), 127} - set(b"\t\n\v\f\r"))
# The same in UTF-8 beyond ASCII, white space, soft hyphens, and what has no width.
WIDE = re.compile(
    rb"\xc2[\x80-\xa0\xad]|\xe1\x9a\x80|\xe2(?:\x80[\x80-\x8f\xa8\xa9\xaf]|\x81[\x9f\xa0])|\xe3\x80\x80|\xef\xbb\xbf"
)
WHITE = "\u0085\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000"
# What they become; those that are in neither go.
ASCII = {character.encode(): b" " for character in WHITE} | {"\u2028".encode(): b"\n", "\u2029".encode(): b"\n\n"}
PARAGRAPHS = re.compile(rb"\n[ \t\r\v\f]*+\n")


def normalise(text: bytes) -> bytes:
    """The text in this form."""
    if not text.isascii():
        text = WIDE.sub(lambda found: ASCII.get(found[0], b""), text)
    paragraphs = PARAGRAPHS.split(text.translate(None, UNSEEN))
    # `split` knows the white space of ASCII, and no other, in bytes.
    return b"\n".join(filter(None, [b" ".join(paragraph.split()) for paragraph in paragraphs]))

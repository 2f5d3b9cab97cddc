"""The corpus: which files, in which order, in which portions, and how a portion becomes a batch.

The one thing to know: everything is decided before anything is read, and as the Rust form decides it: files are
sorted, bounded and cut into portions here. A file that cannot be read, or is no text, is left out when its turn
comes.

This file must not know operators.
"""

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import pyarrow as pa

from .operators import numbers, text_column

# Larger files are data rather than text.
FILE_BYTES_MAX = 64 << 20
# Directories of the standard library that are not part of it.
FOREIGN = frozenset({"site-packages", "dist-packages", "__pycache__"})


class CorpusError(Exception):
    """There is nothing to read."""


class Root(NamedTuple):
    """Where files come from, and the end of the names of those that are wanted."""

    path: str
    end: str = ""


class Entry(NamedTuple):
    """A file to read."""

    path: str
    size: int


@dataclass
class Portion:
    """Some files of consecutive numbers that become one batch; `size` is their bytes, as listed."""

    copy: int
    first_file: int
    paths: list[str] = field(default_factory=list)
    size: int = 0


@dataclass
class Corpus:
    """All files in order, and the portions that they are worked on in; `size` is the bytes of all portions."""

    roots: list[Root]
    paths: list[str]
    portions: list[Portion]
    size: int
    copies: int


def find(folders: list[str], max_bytes: int, repeat: int, to_bytes: int | None, portion_bytes: int) -> Corpus:
    """Lists and cuts. Two calls give the same while nobody changes the files. Raises CorpusError, OSError."""
    roots = [Root(folder) for folder in folders] or default_roots()
    files = bounded([listed(root) for root in roots], max_bytes)
    size = sum(file.size for file in files)
    if size == 0:
        raise CorpusError(f"{len(roots)} folders have no file of at most {max_bytes} bytes")
    portions = cut(files, to_bytes or size * max(repeat, 1), portion_bytes)
    paths = [file.path for file in files]
    return Corpus(roots, paths, portions, sum(portion.size for portion in portions), portions[-1].copy + 1)


def default_roots() -> list[Root]:
    """Python's library and Rust's documentation, where they are installed."""
    library = said("python3", "-c", "import sysconfig; print(sysconfig.get_path('stdlib'))")
    sysroot = said("rustc", "--print", "sysroot")
    wanted = [(library, ".py"), (sysroot and os.path.join(sysroot, "share/doc/rust/html"), ".html")]
    roots = [Root(path, end) for path, end in wanted if path and os.path.isdir(path)]
    if not roots:
        raise CorpusError("neither Python's library nor Rust's documentation was found: give a folder with text")
    return roots


def said(*command: str) -> str | None:
    """What a program prints, if there is one and it succeeds."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError, UnicodeDecodeError):
        return None


def listed(root: Root) -> list[Entry]:
    """The files below a root, sorted by path. What cannot be listed below it is left out."""
    if os.path.isdir(root.path):
        os.scandir(root.path).close()
        found = list(walk(root.path))
    else:
        found = [Entry(root.path, os.stat(root.path).st_size)]
    return sorted(entry for entry in found if entry.path.endswith(root.end))


def walk(directory: str) -> Iterator[Entry]:
    """Files of a directory and of those in it. No link is followed, so there is no loop."""
    try:
        entries = list(os.scandir(directory))
    except OSError:
        return
    for entry in entries:
        if not is_text(entry.name):
            continue
        if entry.is_dir(follow_symlinks=False):
            if entry.name not in FOREIGN:
                yield from walk(entry.path)
        elif entry.is_file(follow_symlinks=False):
            size = entry.stat(follow_symlinks=False).st_size
            if 1 <= size <= FILE_BYTES_MAX:
                yield Entry(entry.path, size)


def is_text(name: str) -> bool:
    """Whether a name is Unicode: bytes that are not come as surrogates."""
    return name.isascii() or not any("\ud800" <= character <= "\udfff" for character in name)


def bounded(lists: list[list[Entry]], max_bytes: int) -> list[Entry]:
    """The first files of each root. Each may have an equal part of the bytes, and what smaller ones leave of theirs."""
    totals = [sum(entry.size for entry in entries) for entries in lists]
    left, allowed = max_bytes, [0] * len(lists)
    for done, at in enumerate(sorted(range(len(lists)), key=totals.__getitem__)):
        allowed[at] = left // (len(lists) - done)
        left -= min(allowed[at], totals[at])
    return [entry for entries, size in zip(lists, allowed, strict=True) for entry in fitting(entries, size)]


def fitting(entries: list[Entry], left: int) -> Iterator[Entry]:
    """Files in order, but for those that would be too much."""
    for entry in entries:
        if entry.size <= left:
            left -= entry.size
            yield entry


def cut(files: list[Entry], wanted_bytes: int, portion_bytes: int) -> list[Portion]:
    """The files cut into portions, again and again until there are so many bytes."""
    portions: list[Portion] = []
    size, copy = 0, 0
    while True:
        is_new = True
        for number, file in enumerate(files):
            if size >= wanted_bytes:
                return portions
            if is_new:
                portions.append(Portion(copy, number))
            portion = portions[-1]
            portion.paths.append(file.path)
            portion.size += file.size
            size += file.size
            is_new = portion.size >= portion_bytes
        copy += 1


def read(portion: Portion) -> tuple[pa.RecordBatch, int, int]:
    """A row for each file that is text; the bytes that were read; how many files are no text or could not be read."""
    files, paths, texts, size = [], [], [], 0
    for number, path in enumerate(portion.paths, portion.first_file):
        content = content_of(path)
        size += len(content)
        if content and b"\0" not in content:
            files.append(number)
            paths.append(path.encode())
            texts.append(valid(content))
    columns = {
        "file": numbers(files, pa.int32()),
        "copy": numbers([portion.copy] * len(files), pa.int32()),
        "path": text_column(paths),
        "text": text_column(texts),
    }
    return pa.record_batch(columns), size, len(portion.paths) - len(files)


def content_of(path: str) -> bytes:
    """The bytes of a file, none if it cannot be read."""
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read()
    except OSError:
        return b""


def valid(content: bytes) -> bytes:
    """As far as it is text: what is not becomes a character that says so."""
    try:
        content.decode()
    except UnicodeDecodeError:
        return content.decode(errors="replace").encode()
    return content

"""The demo's operators one by one, and the whole of it beside its Rust form.

The one thing to know: the Rust form is the measure: where it is built (`cargo build -p raylet-client --example demo`,
which `cargo test` does too) both run on the same made-up corpora, with Unicode, broken markup, bytes that are no text
and empty files, and every value of what they leave is compared.

This file must not know how the operators do it.
"""

import json
import os
import random
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

pa = pytest.importorskip("pyarrow")

ROOT = Path(__file__).resolve().parents[3]
EXAMPLES = ROOT / "client/python/examples"
sys.path.insert(0, str(EXAMPLES))

from demo import compare, corpus, operators, output, plain
from demo.operators import letters, markup, normal, passages, verdict, words


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("<p>one <b>two</b></p><P class='x'>three", "\n\none two\n\n\n\nthree"),
        ("a<br/>b<td>c", "a b c"),
        ("fn&lt;T&gt; <code>x</code>y", "fn<T> xy"),
        ("a<!-- <p>no</p> -->b<!--->c--->d", "abd"),
        ("a<script>if (1 < 2) '</p>'</SCRIPT>b", "ab"),
        ("a<style>p > b {}</style >b", "ab"),
        ("a<scripts>b</scripts><TEMPLATE><template></x></TEMPLATEs>c", "abc"),
        ("<!DOCTYPE html><?xml version='1'?>b</!x>", "b"),
        ('a<i title="x > y">b</i><i t=\'">\'>c', "abc"),
        ("&amp;&#65;&#x42;&nbsp;&quot", '&AB\u00a0"'),
        (
            "a & b &unknown; &#xD800; &#; & &#x110000; &#x_1; &#0x41;",
            "a & b &unknown; &#xD800; &#; & &#x110000; &#x_1; &#0x41;",
        ),
        ("&#00000000000065;&#0000000000065;&#000000000000065;", "A;A\x065;"),
        ("a<p", "a\n\n"),
        ("a<!--", "a"),
        ("a<script>b", "a"),
        ('a<i t="', "a"),
        ('a<i "<p>', "a"),
        ("<blockquoteblockquote>a<h1-x>b", "a\n\nb"),
        *[(text, text) for text in ("<", "a < b", "<>", "</", "</ x>", "<3", "&", "&#", "<\u00e9>", "&\u00e9;", "")],
    ],
)
def test_markup_goes_and_what_is_broken_is_text(text: str, wanted: str) -> None:
    assert markup.strip(text.encode()).decode() == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("  a \t b\r\nc  ", "a b c"),
        ("a\u00a0\u3000b\u2003", "a b"),
        ("a \r\n \t\r\n b\nc\u2029d\n\n", "a\nb c\nd"),
        ("a\u2028b\u2028\u200b\u2028c\u0085d", "a b\nc d"),
        ("\ufeffa\u00adb\u200bc\0d\x1b", "abcd"),
        ("a \u200b b\n\x1c\nc \0", "a b\nc"),
        ("\n\n\n", ""),
        ("\u00c9t\u00e9 \u65e5\u672c Aa", "\u00c9t\u00e9 \u65e5\u672c Aa"),
    ],
)
def test_white_space_has_one_form(text: str, wanted: str) -> None:
    assert normal.normalise(text.encode()).decode() == wanted


def numbered(first: int, last: int) -> bytes:
    return b" ".join(b"word%d" % number for number in range(first, last))


def test_long_documents_that_do_not_repeat_themselves_stay() -> None:
    text, once, other = numbered(0, 100), numbered(0, 64), numbered(64, 160)
    assert verdict.is_worth_it(text[:256])
    assert not verdict.is_worth_it(text[:255])
    assert verdict.is_worth_it(b"\n".join([once, once, other]))
    assert not verdict.is_worth_it(b"\n".join([once, once, once]))
    assert not verdict.is_worth_it(b"0x00, " * 200)


def test_a_passage_ends_with_a_paragraph_once_it_is_long_enough() -> None:
    short, long = b"s" * 300, b"l" * 600
    text = b"\n".join([short, short, long, short])
    assert passages.sliced(text, 0) == [(0, short + b"\n" + short), (602, long), (1203, short)]
    assert passages.sliced(b"x" * 63, 0) == []
    assert passages.sliced(b"t" * 80, 12) == [(0, "\u00a712 ".encode() + b"t" * 80)]


def test_a_long_paragraph_ends_between_words_or_at_least_between_characters() -> None:
    assert all(text.endswith(b"word") for _, text in passages.sliced(b"word " * 500, 0))
    sliced = passages.sliced(("\u65e5" * 1000).encode(), 0)
    assert [len(text.decode()) for _, text in sliced] == [341, 341, 318]


@pytest.mark.parametrize(
    ("texts", "wanted"),
    [
        (["The the THE, cat.", "a cat"], {"the": 3, "cat": 2, "a": 1}),
        (["\u00c9T\u00c9\u2014\u00e9t\u00e9 \u65e5\u672c"], {"\u00e9t\u00e9": 2, "\u65e5\u672c": 1}),
        (["x_1 1x _y 42 \u00a73 z \u00bdx a\u00bd"], {"x_1": 1, "z": 1, "a\u00bd": 1}),
        (["x" * 65, "Y" * 64, "\u00e9" * 33, ""], {"y" * 64: 1}),
        (["\u03a3\u03a3 \u212a \u0130"], {"\u03c3\u03c3": 1, "k": 1, "i": 1}),
    ],
)
def test_words_are_counted_in_lower_case(texts: list[str], wanted: dict[str, int]) -> None:
    counts = words.counted([text.encode() for text in texts])
    assert {word.decode(): count for word, count in counts.items()} == wanted


def test_all_letters_and_digits_of_unicode_17_are_known() -> None:
    every = [chr(number) for number in range(0x110000) if not 0xD800 <= number < 0xE000]
    assert sum(map(letters.is_letter, every)) >= 147_421
    assert len(letters.RUN.findall(" ".join(every))) >= 147_421 + 1_685 + len("_")


def test_verdicts_of_another_batch_are_refused() -> None:
    batch = pa.record_batch({"text": operators.text_column([b"a", b"b"])})
    assert operators.drop_rows(batch, b"\x02").column("text").to_pylist() == ["b"]
    with pytest.raises(ValueError, match="16 verdicts came for 2 rows"):
        operators.drop_rows(batch, b"\0\0")


def part(*texts: bytes) -> pa.RecordBatch:
    return operators.count_words(pa.record_batch({"text": operators.text_column(texts)}))


def test_counts_of_parts_add_up() -> None:
    merged = operators.merge_words([part(b"a b a"), part(), part(b"b c")])
    assert output.ranked(merged, 9) == [("a", 2), ("b", 2), ("c", 1)] == output.ranked(part(b"a b", b"a b c"), 9)


def rust_form() -> str | None:
    """The Rust form's program that was built last."""
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    built = [path for kind in ("release", "debug") if (path := target / kind / "examples/demo").exists()]
    return str(max(built, key=lambda path: path.stat().st_mtime)) if built else None


beside_rust = pytest.mark.skipif(rust_form() is None, reason="the Rust form of the demo is not built")

PIECES = [
    *[
        "<p>",
        "</p>",
        "<br>",
        '<li class="x > y">',
        "<!-- no -->",
        "<!--",
        "-->",
        "<script>",
        "</script>",
        "<sTyle a='b'>",
    ],
    *[
        "</STYLE>",
        "&amp;",
        "&lt",
        "&nbsp;",
        "&#8212;",
        "&#x1F600;",
        "&#0;",
        "&;",
        "&#",
        "<",
        ">",
        '"',
        "'",
        "<3",
        "</",
        "<?",
    ],
    *[
        " ",
        "  ",
        "\n",
        "\n\n",
        "\n \t\n",
        "\r\n\r\n",
        "\t",
        "\u00a0",
        "\u2028",
        "\u2029",
        "\u3000",
        "\u0085",
        "\x1c",
        "\0",
    ],
    *[
        "\u200b",
        "\ufeff",
        "\u00ad",
        "\x07",
        "\u2060",
        "\u00e9",
        "\u00c9",
        "\u65e5\u672c\u8a9e",
        "\u03a3",
        "\u0130",
        "\u01c5",
    ],
    *["\U0001f600", "\u0e01\u0e33", "\u0663", "\u00bd", "\u2167", "\u24b6", "\u0345", "_", "1", "Word", "x2", "a" * 70],
]
# What is no UTF-8: alone, cut short, a surrogate, too long a form, too large.
BROKEN = [b"\xff", b"\xe2\x82", b"\xed\xa0\x80", b"\xc0\xaf", b"\xf4\x90\x80\x80", b"\xf0\x9f\x98", b"\x80"]


def write_corpus(folder: Path, seed: int) -> Path:
    """Files of all kinds, from random pieces; some equal others, some are empty, some are no text."""
    chance = random.Random(seed)
    (folder / "below").mkdir(parents=True)
    (folder / "data.bin").write_bytes(bytes(100))
    for number in range(120):
        text = b"".join(piece(chance) for _ in range(chance.choice([0, 5, 100, 600])))
        name = f"{number:03}{chance.choice(['.html', '.txt', '.xml', '.py'])}"
        (folder / chance.choice(["", "below"]) / name).write_bytes(text)
        if chance.random() < 0.2:
            (folder / f"again{name}").write_bytes(text)
    return folder


def piece(chance: random.Random) -> bytes:
    kind = chance.random()
    if kind < 0.001:
        return chance.choice(BROKEN)
    if kind < 0.4:
        # A NUL makes a file no text: rarely.
        wanted = chance.choice(PIECES)
        return b"" if wanted == "\0" and chance.random() < 0.97 else wanted.encode()
    return b"%s%d " % (chance.choice([b"w", b"W", "\u00fc".encode()]), chance.randrange(3000))


def run_rust(folder: Path, leaves: Path, *arguments: str) -> None:
    command = [rust_form(), str(folder), "--output", str(leaves), "--local", "--no-check", "--json", *arguments]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def run_plain(folder: Path, leaves: Path, portion_bytes: int, repeat: int = 1) -> dict:
    """What `plain` finds, left as the demo leaves it."""
    leaves.mkdir()
    found = corpus.find([str(folder)], 1 << 30, repeat, None, portion_bytes)
    findings, counts = plain.run(found, str(leaves / "passages.arrow"))
    top = [{"word": word, "count": count} for word, count in output.ranked(counts, 50)]
    described = {"folders": [str(folder)], "files": len(found.paths), "bytes": found.size, "copies": found.copies}
    stats = {"corpus": described, "found": asdict(findings), "words": top}
    (leaves / "stats.json").write_text(json.dumps(stats))
    return stats


@beside_rust
@pytest.mark.parametrize("seed", range(6))
def test_operators_find_what_the_rust_form_finds(tmp_path: Path, seed: int) -> None:
    folder = write_corpus(tmp_path / "corpus", seed)
    run_rust(folder, tmp_path / "rust", "--batch-bytes", "16K", "--repeat", "2")
    stats = run_plain(folder, tmp_path / "python", 16 << 10, repeat=2)
    assert compare.differences(tmp_path / "python", tmp_path / "rust") == []
    found = stats["found"]
    assert 0 < found["passages_kept"] < found["passages"]
    assert 0 < found["documents_kept"] < found["documents"]
    assert found["files_skipped"] > 0


@beside_rust
def test_every_character_is_what_it_is_for_the_rust_form(tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    folder.mkdir()
    # The planes in between have no characters.
    every = [chr(number) for number in [*range(1, 0xD800), *range(0xE000, 0x34000), *range(0xE0000, 0xE1000)]]
    (folder / "inside.txt").write_text(" ".join(f"x{character}y" for character in every), newline="")
    (folder / "first.txt").write_text(" ".join(f"{character}x" for character in every), newline="")
    run_rust(folder, tmp_path / "rust")
    run_plain(folder, tmp_path / "python", 4 << 20)
    assert compare.differences(tmp_path / "python", tmp_path / "rust") == []


@beside_rust
def test_a_difference_is_found(tmp_path: Path) -> None:
    folder = write_corpus(tmp_path / "corpus", 0)
    run_rust(folder, tmp_path / "rust", "--batch-bytes", "16K")
    largest = max(folder.rglob("*.txt"), key=lambda path: path.stat().st_size)
    largest.write_bytes(largest.read_bytes().replace(b"w", b"v"))
    run_plain(folder, tmp_path / "python", 16 << 10)
    different = compare.differences(tmp_path / "python", tmp_path / "rust")
    assert any(difference.startswith("words:") for difference in different)
    assert any(difference.startswith("batch ") for difference in different)


def run_demo(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The demo as a user runs it, on small batches."""
    command = [sys.executable, str(EXAMPLES / "demo"), str(folder / "corpus"), "--output", str(folder / "output")]
    return subprocess.run([*command, "--batch-bytes", "16K", *arguments], capture_output=True, text=True, check=False)


WAYS = [
    [],
    ["--shards", "3"],
    ["--local"],
    ["--kill-one"],
    ["--kill-one=actor", "--shards", "2"],
    ["--local", "--kill-one=actor"],
]


@pytest.mark.parametrize("arguments", WAYS, ids=" ".join)
def test_the_job_finds_what_the_operators_find_whoever_dies(tmp_path: Path, arguments: list[str]) -> None:
    pytest.importorskip("raylet._native")
    write_corpus(tmp_path / "corpus", 7)
    run_plain(tmp_path / "corpus", tmp_path / "plain", 16 << 10)
    done = run_demo(tmp_path, *arguments)
    assert done.returncode == 0, done.stderr
    assert compare.differences(tmp_path / "output/python", tmp_path / "plain") == []
    assert ("killed " in done.stderr) == any("kill" in argument for argument in arguments)


@beside_rust
def test_the_demo_compares_itself_with_the_rust_form(tmp_path: Path) -> None:
    pytest.importorskip("raylet._native")
    run_rust(write_corpus(tmp_path / "corpus", 8), tmp_path / "output", "--batch-bytes", "16K")
    done = run_demo(tmp_path, "--compare")
    assert (done.returncode, "found the same" in done.stdout) == (0, True), done.stderr
    (tmp_path / "corpus/more.txt").write_bytes(numbered(0, 200))
    done = run_demo(tmp_path, "--compare")
    assert (done.returncode, "differs: corpus" in done.stderr) == (1, True), done.stdout
    done = run_demo(tmp_path, "--local", "--kill-one")
    assert (done.returncode, "no worker to kill" in done.stderr) == (1, True), done.stderr

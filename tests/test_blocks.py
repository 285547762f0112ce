"""Blocks of 64 bytes against slow oracles, and the rules that read them at every place of a block."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_c4 import oracle as c4_oracle
from test_c4 import outcomes
from test_fineweb import oracle as fineweb_oracle
from test_gopher import quality_oracle, repetition_oracle, scores_of

from penstock.transforms import C4Quality, FineWebQuality, GopherQuality, GopherRepetition
from penstock.transforms.kernels import kernel
from penstock.transforms.kernels.blocks import bare, count, folded, leading, lowest, move, reach, read, strange, within
from penstock.transforms.kernels.text import ALPHA, BREAK, DIGIT, SPACE, SYMBOL, code_point_classes

EVERY_BYTE = np.arange(256, dtype=np.uint8)
EVERY_BYTE.flags.writeable = False
#: What lies on the bound of two blocks: of one byte to four, of each class, in ones and twos.
BOUND = [
    "é",
    "漢",
    "👍",
    "\r\n",
    "\n",
    "\r",
    "\u2028",
    "\x85",
    "\u3000",
    "…",
    "...",
    "....",
    "•",
    "- a",
    "。",
    "J.",
    "É.",
]
BOUND += ["a. ", 'a." ', "a.) b", "a?! b", "the", "#", "--", "[1]", "[edit]", "{", "javascript", "lorem ipsum", "\n\n"]
BOUND += ["Privacy Policy", "use coo\u212aies", "terms of use", "\x1c", "\x00", "１.", "\u0301", " " * 64]
BOUND += ["É.", "x" * 64]


@kernel
def _asked(data: Any, at: Any, out: Any) -> None:
    out[0] = within(bare(data), at, 10, 10)
    out[1] = within(bare(data), at, 0x80, 0xBF)
    out[2] = folded(bare(data), at, 97, 122)
    out[3] = strange(bare(data), at)


@kernel
def _marks(data: Any, end: Any, classes: Any, out: Any) -> None:
    at = spill = np.int64(0)
    row = 0
    while at <= end:
        white, breaks, joined, newline, tails, words, letters, inked, _, _, _, _, ellipses, spill = read(
            bare(data), at, end, spill, bare(classes)
        )
        out[row, 0], out[row, 1], out[row, 2], out[row, 3] = white, breaks, joined, newline
        out[row, 4], out[row, 5], out[row, 6], out[row, 7] = tails, words, letters, inked
        at += 64
        row += 1
    out[row, 0] = np.uint64(ellipses) + classes[0] - classes[0]


@kernel
def _bits(run: Any, marks: Any, carry: Any) -> Any:
    found, onward = reach(run, marks, carry)
    return found, onward, count(found), lowest(found), leading(found)


def places(mask: Any) -> list[int]:
    return [place for place in range(64) if int(mask) >> place & 1]


def test_questions_to_every_byte() -> None:
    out = np.zeros(4, np.uint64)
    for at in range(0, 193, 7):
        _asked(EVERY_BYTE, at, out)
        held = bytes(range(at, at + 64))
        assert places(out[0]) == [place for place, byte in enumerate(held) if byte == 10]
        assert places(out[1]) == [place for place, byte in enumerate(held) if 0x80 <= byte <= 0xBF]
        assert places(out[2]) == [place for place, byte in enumerate(held) if bytes([byte]).isalpha()]
        assert places(out[3]) == [place for place, byte in enumerate(held) if byte < 32 or byte > 127]


masks = st.one_of(
    st.integers(0, 2**64 - 1),
    st.lists(st.integers(0, 63), max_size=4).map(lambda ones: sum(1 << place for place in set(ones))),
    st.tuples(st.integers(0, 63), st.integers(0, 64)).map(lambda ends: (1 << max(ends)) - (1 << min(ends))),
)


@settings(max_examples=300)
@given(masks, masks, st.integers(0, 1))
def test_reach_goes_through_a_run_to_its_end(run: int, marks: int, carry: int) -> None:
    ends = set()
    for start in [*places(marks), *([0] if carry else [])]:
        place = start
        while place < 64 and run >> place & 1:
            place += 1
        ends.add(place)
    found, onward, ones, first, ahead = _bits(np.uint64(run), np.uint64(marks), np.uint64(carry))
    assert set(places(found)) == ends - {64}
    assert int(onward) == (64 in ends)
    here = sorted(ends - {64})
    assert (ones, first, ahead) == (len(here), here[0] if here else 64, 63 - here[-1] if here else 64)


def expected_marks(text: str) -> list[set[int]]:
    """Say for each byte what `read` says: space, breaks, \\r\\n's second, newlines, tails, ink, letters, and digits."""
    found: list[set[int]] = [set() for _ in range(8)]
    classes, at, before = code_point_classes(), 0, ""
    for char in text:
        kind, size = int(classes[ord(char)]), len(char.encode())
        span = set(range(at, at + size))
        found[0] |= span if kind & SPACE else set()
        found[1] |= {at + size - 1} if kind & BREAK else set()
        found[2] |= span if before + char == "\r\n" else set()
        found[3] |= span if char == "\n" else set()
        found[4] |= span - {at}
        found[5] |= span if not kind & (SPACE | SYMBOL) else set()
        found[6] |= span if kind & ALPHA else set()
        found[7] |= span if kind & (ALPHA | DIGIT) else set()
        at, before = at + size, char
    return found


@settings(max_examples=150)
@given(st.lists(st.one_of(st.sampled_from(BOUND), st.text(max_size=12), st.just("ab c" * 9)), max_size=14).map("".join))
def test_reading_says_what_the_table_of_classes_says(text: str) -> None:
    body = text.encode()
    data = np.frombuffer(body + bytes(66), np.uint8)
    out = np.zeros((len(body) // 64 + 2, 8), np.uint64)
    _marks(data, len(body), code_point_classes(), out)
    blocks = len(body) // 64 + 1
    for column, expected in enumerate(expected_marks(text)):
        got = {64 * block + place for block in range(blocks) for place in places(out[block, column])}
        past = set(range(len(body), 64 * blocks)) if column == 0 else set()  # past the end all is space
        assert got == expected | past, column


@kernel
def _moved(data: Any, at: Any, out: Any, to: Any) -> None:
    move(bare(data), at, bare(out), to)
    out[0] = data[0]


def test_moving() -> None:
    out = np.zeros(100, np.uint8)
    _moved(EVERY_BYTE, 70, out, 9)
    assert out[9:73].tolist() == list(range(70, 134))
    assert not out[:9].any()
    assert not out[73:].any()


@pytest.mark.parametrize("bound", BOUND)
def test_rules_see_no_bounds_of_blocks(bound: str) -> None:
    """Each mark stands at each place about the bound of two blocks, in a row that others stand before and behind."""
    rows = [f"{'to be ' * 10}{'a' * gap}{sep}{bound}{sep}and b.\nc" for gap in range(7) for sep in ("", " ")]
    rows += [text[: -len("and b.\nc")].strip("b") for text in rows]
    assert scores_of(GopherQuality(), rows) == [quality_oracle(text) for text in rows]
    assert scores_of(GopherRepetition(), rows) == [repetition_oracle(text) for text in rows]
    fineweb = FineWebQuality().measure(pa.record_batch({"text": rows}))
    assert [{name: value[row].item() for name, value in fineweb.items()} for row in range(len(rows))] == [
        fineweb_oracle(text) for text in rows
    ]
    for rule in (C4Quality(filter_no_terminal_punct=False, min_num_sentences=None, max_word_length=66), C4Quality()):
        assert outcomes(rule, rows) == [c4_oracle(rule, text) for text in rows]


def test_long_stop_words() -> None:
    words = ("x" * 63, "y" * 64, "z" * 65, "é" * 40, "v" * 200, "the")
    rows = [f"{gap}{' '.join(words)}{gap}" for gap in ("", " ", "a ", "b" * 50 + " ")]
    rows += ["x" * 64, "\u3000" + "z" * 65, "é" + "z" * 65, "z" * 66, f"{'v' * 200}\u2003{'v' * 201}"]
    rule = GopherQuality(stop_words=words)
    assert scores_of(rule, rows) == [quality_oracle(text, set(words)) for text in rows]

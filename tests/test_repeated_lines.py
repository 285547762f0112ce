"""Lines, paragraphs and sentences: segmentation and cuts against plain Python, and the peers' bugs."""

from __future__ import annotations

import random
import re
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.transforms.edits import Cuts, edit, in_bytes, undo
from penstock.transforms.kernels.digests import REPEAT, digest_spans, group_entries
from penstock.transforms.kernels.segments import UNITS, find_lines, find_segments
from penstock.transforms.kernels.text import code_point_classes
from penstock.transforms.repeated_lines import Lines, too_little
from penstock.transforms.repeated_spans import Substrings
from penstock.transforms.step import utf8_buffers

M64 = 2**64 - 1


def segments(text: str, unit: str) -> list[tuple[int, int]]:
    """Segments in code points."""
    if unit == "line":
        ends = [*(match.start() for match in re.finditer("\n", text)), len(text)]
        return [(first + 1, end) for first, end in pairwise([-1, *ends])]
    if unit == "paragraph":
        blocks: list[tuple[int, int]] = []
        at = 0
        for line in text.split("\n"):
            if line.strip():
                if blocks and blocks[-1][1] == at - 1:
                    blocks[-1] = (blocks[-1][0], at + len(line))
                else:
                    blocks.append((at, at + len(line)))
            at += len(line) + 1
        return blocks
    spans = []
    for found in re.finditer(r"[^\n]+", text):
        ends = [run.end() for run in re.finditer(r"[.!?。！][.!?。！”\")]*", found[0]) if ends_sentence(run)]
        for first, end in pairwise([0, *ends, len(found[0])]):
            piece = found[0][first:end]
            if piece.strip():
                start = found.start() + first + len(piece) - len(piece.lstrip())
                spans.append((start, start + len(piece.strip())))
    return spans


def ends_sentence(run: re.Match[str]) -> bool:
    """A full-width mark ends one at once, another where space follows."""
    last = [mark for mark in run[0] if mark in ".!?。！"][-1]
    return last in "。！" or not run.string[run.end() :][:1].strip()


def without(text: str, unit: str, gone: list[bool]) -> str:
    """Cut units as the definition has it: lines and paragraphs are joined by what stood to the left of those kept."""
    spans = segments(text, unit)
    kept = [number for number, goes in enumerate(gone) if not goes]
    if not spans:
        return text
    if not kept:
        return text[: spans[0][0]] + text[spans[-1][1] :]
    joined = text[: spans[0][0]]
    for order, number in enumerate(kept):
        gap = text[spans[number - 1][1] : spans[number][0]] if order else ""
        if order and unit != "sentence" and kept[order - 1] < number - 1:
            gap = text[spans[number - 1][1] : spans[number][0]]
        joined += gap + text[spans[number][0] : spans[number][1]]
    return joined + text[spans[-1][1] :]


def cut(texts: list[str], lines: Lines, batch: int = 1 << 30) -> list[str]:
    """Run both passes over batches; give the texts that are left, after undoing every edit."""
    made, base, sizes = [], 0, []
    batches = [pa.array(texts[at : at + batch], pa.string()) for at in range(0, len(texts), batch)]
    for one in batches:
        units = lines.units(one)
        numbers, digests = units.digests()
        made.append((numbers + base, digests))
        sizes.append(len(units))
        base += len(units)
    numbers, digests = (np.concatenate(values) for values in zip(*made, strict=True))
    entries, flags = group_entries(digests, numbers.astype(np.uint64))
    repeats = np.sort(entries[flags == REPEAT, 2].astype(np.int64))
    left, base = [], 0
    for one, size in zip(batches, sizes, strict=True):
        inside = repeats[(repeats >= base) & (repeats < base + size)] - base
        left += edited(one, lines.kind, *lines.units(one).cuts(inside))
        base += size
    return left


def edited(texts: pa.Array, kind: str, rows: Any, spans: Any) -> list[str]:
    """Apply cuts; the edits, in code points, give the texts back."""
    starts = np.cumsum([0, *(len(text.encode()) for text in texts.to_pylist())])
    batch = pa.record_batch({"text": texts})
    out = edit(batch, kind, Cuts(rows, spans + starts[rows][:, None])).to_pylist()
    assert [undo(row["text"], row["edits"]) for row in out] == texts.to_pylist()
    assert all(one["step"] == kind for row in out for one in row["edits"] or ())
    return [row["text"] for row in out]


def brute(texts: list[str], unit: str, window: int = 1) -> list[str]:
    """A window whose units stood before goes."""
    seen, left = set(), []
    for text in texts:
        units = [text[a:b] for a, b in segments(text, unit)]
        gone = [False] * len(units)
        for at in range(max(len(units) - window, 0) + 1 if units else 0):
            key = tuple(units[at : at + window])
            if not "".join(key).strip():
                continue
            if key in seen:
                gone[at : at + window] = [True] * len(key)
            seen.add(key)
        left.append(without(text, unit, gone))
    return left


CASES = [
    ("line", 1, ["a\nb", "b\nc\na"], ["a\nb", "c"]),
    ("line", 1, ["a\na\na"], ["a"]),  # within a document too
    ("line", 1, ["a\n\nb", "x\n\nb"], ["a\n\nb", "x\n"]),  # blank lines are never cut
    ("line", 1, ["a\n", "a\n"], ["a\n", ""]),
    ("line", 1, ["a", "a"], ["a", ""]),
    ("line", 1, ["née\nö", "1\nnée\n2\nö"], ["née\nö", "1\n2"]),
    ("line", 2, ["a\nb\nc", "a\nb\nd", "b\nc"], ["a\nb\nc", "d", ""]),
    ("line", 2, ["a", "a"], ["a", ""]),  # fewer units than a window: compared whole
    ("paragraph", 1, ["a\nb\n\nc", "x\n\n \na\nb\n\n\nc\n\ny"], ["a\nb\n\nc", "x\n\ny"]),
    ("sentence", 1, ["One. Two! Three?", "Zero. Two! Four."], ["One. Two! Three?", "Zero. Four."]),
    ("sentence", 1, ["B.", "A.\n\nB. C."], ["B.", "A.\n\nC."]),  # the paragraph stays one
    ("sentence", 3, ["A. B. C. D.", "X. A. B. C. Y.", "A. B."], ["A. B. C. D.", "X. Y.", "A. B."]),
    ("sentence", 1, ["一。二！", "三。一。"], ["一。二！", "三。"]),
    ("sentence", 1, ['He said "no." Yes.', 'She said "no." Yes.'], ['He said "no." Yes.', 'She said "no."']),
]


@pytest.mark.parametrize(("unit", "window", "texts", "left"), CASES)
def test_named_cases(unit: Any, window: int, texts: list[str], left: list[str]) -> None:
    assert cut(texts, Lines(unit=unit, window=window)) == left


@settings(deadline=None, max_examples=40)
@given(st.lists(st.text("ab é\n", max_size=24), min_size=1, max_size=6), st.integers(1, 3), st.integers(1, 4))
def test_lines_and_paragraphs_are_cut_as_plain_python_does(texts: list[str], window: int, batch: int) -> None:
    assert cut(texts, Lines(unit="line", window=window), batch) == brute(texts, "line", window)
    assert cut(texts, Lines(unit="paragraph", window=window), batch) == brute(texts, "paragraph", window)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.text("ab .!。”\n", max_size=24), min_size=1, max_size=6), st.integers(1, 3))
def test_sentences_are_cut_with_their_space(texts: list[str], window: int) -> None:
    left = cut(texts, Lines(unit="sentence", window=window))
    wanted = brute(texts, "sentence", window)
    assert [text.split() for text in left] == [text.split() for text in wanted]
    assert all(len(text) <= len(old) for text, old in zip(left, texts, strict=True))


def test_the_newline_that_goes_is_that_of_line_edits() -> None:
    chance = random.Random(4)
    texts = ["\n".join(chance.choices(["a", "b", "c", "", "dé"], k=chance.randrange(1, 9))) for _ in range(200)]
    kept: set[str] = set()
    wanted = []
    for text in texts:
        lines = []
        for line in text.split("\n"):
            if not line or line not in kept:
                lines.append(line)
            kept.add(line)
        wanted.append("\n".join(lines))
    assert cut(texts, Lines()) == wanted


def test_normalised_lines_meet_and_are_cut_as_they_stand() -> None:
    texts = ["Page 1 of 10\nText", "  PAGE 7 of 10!\nother text", "***\nA", "---\nB"]
    left = cut(texts, Lines(normalisation="fineweb"))
    assert left == [texts[0], "other text", *texts[2:]]  # what normalises to nothing is blank
    assert cut(texts, Lines()) == texts


@pytest.mark.parametrize(
    ("lines", "left"),
    [
        (Lines(minimum_words=2), ["x y\nx", "x"]),  # dolma's min_words never deduplicated at all
        (Lines(minimum_words=3), ["x y\nx", "x y\nx"]),
        (Lines(minimum_characters=2), ["x y\nx", "x"]),
        (Lines(unit="line", window=2, minimum_words=3), ["x y\nx", ""]),  # the window has three
    ],
)
def test_units_below_the_minimum_stay(lines: Lines, left: list[str]) -> None:
    assert cut(["x y\nx", "x y\nx"], lines) == left


def test_more_than_65536_sentences_do_not_wrap() -> None:
    text = " ".join(f"n{number}." for number in range(70_000))
    assert cut([text], Lines(unit="sentence")) == [text]
    assert cut([text, "x. n69999. n3."], Lines(unit="sentence")) == [text, "x."]


def test_places_are_told_in_bytes_and_edits_in_code_points() -> None:
    texts = pa.array(["é\nß𝄞\nß𝄞"])  # dolma said 40 for the end of 34 characters
    rows, spans = Lines().units(texts).cuts(np.array([2]))
    assert (rows.tolist(), spans.tolist()) == ([0], [[9, 16]])
    edits = edit(pa.record_batch({"text": texts}), "dedup/line", Cuts(rows, spans)).to_pylist()[0]["edits"]
    assert [(one["start"], one["end"], one["removed"]) for one in edits] == [(4, 7, "\nß𝄞")]


def test_slices_and_nulls_see_only_their_own_rows() -> None:
    texts = pa.array(["a", "a\nb", None, "b"], pa.large_string())[1:]
    units = Lines().units(texts)
    assert (units.digests()[0].tolist(), len(units)) == ([0, 1, 3], 4)
    rows, spans = units.cuts(np.array([1, 3]))
    assert (rows.tolist(), spans.tolist()) == ([0, 2], [[1, 3], [0, 1]])
    assert too_little(texts, rows, spans, 1).tolist() == [False, False, True]


@settings(deadline=None, max_examples=40)
@given(st.text("ab \n\u3000é", min_size=1, max_size=30), st.data())
def test_the_words_that_cuts_leave_are_counted(text: str, data: st.DataObject) -> None:
    places = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=6)))
    cuts = list(zip(places[::2], places[1::2], strict=False))
    kept, at = "", 0
    for first, end in cuts:
        kept, at = kept + text[at:first], end
    kept += text[at:]
    spans = np.array(in_bytes(text, cuts), np.int64).reshape(-1, 2)
    for least in (1, 2, 3):
        few = too_little(pa.array(["", text]), np.ones(len(cuts), np.int64), spans, least)
        assert few.tolist() == [False, bool(cuts) and len(kept.split()) < least]


def test_lines_found_fast_are_the_same() -> None:
    chance = random.Random(6)
    texts = ["".join(chance.choices("ab \n\r\u3000é", k=chance.randrange(20))) for _ in range(300)]
    offsets, data = utf8_buffers(pa.array(texts))
    fast = find_lines(offsets, data, code_point_classes())
    slow = find_segments(offsets, data, code_point_classes(), UNITS.index("line"))
    slow[:, 3:] = slow[:, 3:] > 0
    assert fast.tolist() == slow.tolist()


def test_digests_are_murmur3() -> None:
    chance = random.Random(5)
    bodies = [bytes(chance.randrange(256) for _ in range(size)) for size in (*range(70), 1000)]
    ends = np.cumsum([0, *map(len, bodies)])
    data = np.frombuffer(b"".join(bodies), np.uint8)
    digests = digest_spans(data, np.column_stack([ends[:-1], ends[1:]]))
    assert digests.tolist() == [list(murmur(body)) for body in bodies]


def murmur(body: bytes) -> tuple[int, int]:
    """MurmurHash3 x64 128, seed 0, as its reference code has it."""

    def turn(value: int, bits: int) -> int:
        return (value << bits | value >> (64 - bits)) & M64

    def final(value: int) -> int:
        value = (value ^ value >> 33) * 0xFF51AFD7ED558CCD & M64
        value = (value ^ value >> 33) * 0xC4CEB9FE1A85EC53 & M64
        return value ^ value >> 33

    c1, c2, h1, h2 = 0x87C37B91114253D5, 0x4CF5AD432745937F, 0, 0
    whole = len(body) // 16 * 16
    for at in range(0, len(body), 16):
        block = body[at : at + 16].ljust(16, b"\0")
        k1, k2 = int.from_bytes(block[:8], "little"), int.from_bytes(block[8:], "little")
        h1 ^= turn(k1 * c1 & M64, 31) * c2 & M64
        if at < whole:
            h1 = ((turn(h1, 27) + h2) * 5 + 0x52DCE729) & M64
        h2 ^= turn(k2 * c2 & M64, 33) * c1 & M64
        if at < whole:
            h2 = ((turn(h2, 31) + h1) * 5 + 0x38495AB5) & M64
    h1, h2 = h1 ^ len(body), h2 ^ len(body)
    h1 = (h1 + h2) & M64
    h2 = (h2 + h1) & M64
    h1, h2 = final(h1), final(h2)
    h1 = (h1 + h2) & M64
    return h1, (h2 + h1) & M64


def test_settings_are_values() -> None:
    assert Lines(unit="line") == Lines()
    assert hash(Substrings()) == hash(Substrings(length=100))
    assert (Lines(unit="sentence").kind, Substrings().kind) == ("dedup/sentence", "dedup/substring")

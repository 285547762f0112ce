"""The words in which two texts differ, for people: what is equal far from a difference is folded to a count.

Bounded in time and length: of each text 200,000 characters are looked at; what lies between the words that both begin
with and the words that both end with is aligned up to 1,000 words, and at most 400 words are shown.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Literal

MOST_CHARACTERS = 200_000
MOST_WORDS = 1_000  # aligned of each text; the time grows with the square where words repeat
CONTEXT = 12  # equal words shown beside a difference
LONGEST_STRETCH = 80  # different words shown in a row
SHOWN = 400
OPENING = 60  # words shown of equal texts
_LEAST = 4  # a fold that hides fewer words is longer than they are
# Chinese characters and kana are words each; of anything else 60 characters at most.
_HAN = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"(\s*)([{_HAN}]|[^\s{_HAN}]{{1,60}})")

Where = Literal["both", "removed", "kept"]
Word = tuple[str, str]  # the white space before it, and itself


@dataclass(frozen=True)
class Stretch:
    """Words that stand in both texts or in one; `text` is None where they are folded."""

    where: Where
    words: int
    text: str | None


@dataclass(frozen=True)
class Difference:
    """Two texts beside each other: those of a document that went and of the one that stayed."""

    stretches: tuple[Stretch, ...]
    removed: int  # words that only the text that went has
    kept: int  # words that only the text that stayed has
    whole: bool  # both were compared to their ends

    def side(self, where: Where) -> Iterator[Stretch]:
        """Give what stands on one side."""
        return (stretch for stretch in self.stretches if stretch.where in ("both", where))


def word_diff(removed: str, kept: str) -> Difference:
    """Compare two texts by their words."""
    whole = max(len(removed), len(kept)) <= MOST_CHARACTERS
    left, right = (_words(text[:MOST_CHARACTERS]) for text in (removed, kept))
    runs: list[tuple[Where, Sequence[Word]]] = []
    for where, words in _runs(left, right):
        if runs and runs[-1][0] == where:
            words = [*runs.pop()[1], *words]
        runs.append((where, words))
    ends = sum(len(words) for where, words in runs if where != "kept") == len(left)
    counts = {side: sum(len(words) for where, words in runs if where == side) for side in ("removed", "kept")}
    return Difference(tuple(_shown(runs)), counts["removed"], counts["kept"], whole and ends)


def plain(difference: Difference) -> str:
    """Write a difference as text: [-words that went-] and {+words that stayed+}."""
    marks = {"both": ("", ""), "removed": ("[-", "-]"), "kept": ("{+", "+}")}
    made = []
    for stretch in difference.stretches:
        before, after = marks[stretch.where]
        made.append(folded(stretch) if stretch.text is None else f"{before}{stretch.text.strip()}{after}")
    return " ".join(made)


def folded(stretch: Stretch) -> str:
    """Say what a fold hides."""
    kind = {"both": "equal", "removed": "removed", "kept": "kept"}[stretch.where]
    return f"… {stretch.words:,} {kind} {'word' if stretch.words == 1 else 'words'} …"


def _words(text: str) -> list[Word]:
    return [("\n" if "\n" in gap else " " if gap else "", word) for gap, word in _WORD.findall(text)]


def _runs(left: Sequence[Word], right: Sequence[Word]) -> Iterator[tuple[Where, Sequence[Word]]]:
    """Align two texts: what both begin with, the middle, what both end with; a middle that is cut has no end."""
    ours, theirs = ([word for _, word in words] for words in (left, right))
    head, short = 0, min(len(ours), len(theirs))
    while head < short and ours[head] == theirs[head]:
        head += 1
    tail = 0
    while tail < short - head and ours[-1 - tail] == theirs[-1 - tail]:
        tail += 1
    if max(len(ours), len(theirs)) - head - tail > MOST_WORDS:
        tail = 0
    yield "both", left[:head]
    a, b = (words[head : min(head + MOST_WORDS, len(words) - tail)] for words in (ours, theirs))
    operations = SequenceMatcher(None, a, b, autojunk=False).get_opcodes()
    cut = head + len(a) + tail < len(ours) or head + len(b) + tail < len(theirs)
    if cut and len(operations) > 1 and operations[-1][0] != "equal":
        operations.pop()  # what has no counterpart here may have one behind the cut
    for kind, a_start, a_end, b_start, b_end in operations:
        if kind == "equal":
            yield "both", left[head + a_start : head + a_end]
            continue
        yield "removed", left[head + a_start : head + a_end]
        yield "kept", right[head + b_start : head + b_end]
    yield "both", left[len(left) - tail :]


def _shown(runs: Sequence[tuple[Where, Sequence[Word]]]) -> Iterator[Stretch]:
    """Fold what is equal and far from a difference, what is long, and what is beyond the number of words shown."""
    runs = [(where, words) for where, words in runs if words]
    left = SHOWN
    beyond: dict[Where, int] = {"both": 0, "removed": 0, "kept": 0}
    for at, (where, words) in enumerate(runs):
        if where != "both":
            before, after = LONGEST_STRETCH, 0
        elif len(runs) == 1:
            before, after = OPENING, 0
        else:
            before, after = (CONTEXT if at else 0), (CONTEXT if at < len(runs) - 1 else 0)
        if len(words) - before - after < _LEAST:
            before, after = len(words), 0
        left -= min(before + after, len(words))
        if left < 0:
            beyond[where] += len(words)
        else:
            yield from _folded(where, words, before, after)
    yield from (Stretch(where, words, None) for where, words in beyond.items() if words)


def _folded(where: Where, words: Sequence[Word], before: int, after: int) -> Iterator[Stretch]:
    parts = (words[:before], words[before : len(words) - after], words[len(words) - after :] if after else [])
    for number, part in enumerate(parts):
        if part:
            text = None if number == 1 else "".join(gap + word for gap, word in part)
            yield Stretch(where, len(part), text)

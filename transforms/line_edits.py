r"""Edits of lines, each by choice: citation marks, counters, lines of a list, what patterns of the user's match.

What is cut stays in `edits` with its place and its rule, so that `edits.undo` gives the text back. Built-in edits are
compiled (some 300 MB/s a core); patterns are Python's and run only over texts that hold the letters they need.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict, Field, field_validator

from .. import InputError
from .edits import Cuts, edit, in_bytes, line_cut
from .held import readable, stamp
from .kernels.characters import characters
from .kernels.line_edits import RULES, edit_cuts
from .kernels.text import code_point_classes
from .kernels.trie import Trie, build_trie
from .step import Outcome, StepModel, first_reason, utf8


class LinePattern(BaseModel):
    """A regular expression (Python's `re`) over each line of a text, and what its matches become."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z0-9_]+$")  # in `edits`: line_edits/name
    pattern: str = Field(min_length=1)
    replacement: str = ""  # as it stands: no groups
    needs: str | None = None  # letters, told by case, without which a text is not looked at
    drop_line: bool = False  # the whole line goes if the pattern is found in it

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str) -> str:
        try:
            compiled = re.compile(pattern)
        except re.error as error:
            raise ValueError(f"{pattern!r} is no regular expression: {error}") from error
        if compiled.match(""):
            raise ValueError(f"{pattern!r} matches nothing at all, at every place: ask for one character at least")
        return pattern


class LineEdits(StepModel):
    r"""Cut what is chosen out of the lines of a text; a page that is empty afterwards goes as `line_edits/empty`.

    In this order: `citations`, the marks [1], [], [edit] and [citation needed] (C4's, `c4_utils.py`); `counters`, lines
    that are a number, perhaps K, M or B, and likes, shares, comments, … (DCLM's `counter_line_modifier`); `lines`, a
    file of lines to drop, compared whole, stripped, by case; then each of `patterns`. A line that goes takes one
    newline with it. Nothing else is stripped or moved.

    >>> step = LineEdits(counters=True, patterns=[{"name": "by", "pattern": r"^By \w+$", "drop_line": True}])
    >>> edited = step.apply(pa.record_batch({"text": ["By Ann\nTrue.[1]\n1,024 likes"]})).batch
    >>> edited["text"][0].as_py(), [one["step"] for one in edited["edits"][0].as_py()]
    ('True.', ['line_edits/citation', 'line_edits/counter', 'line_edits/by'])
    """

    files = ("lines",)
    kind: Literal["line_edits"] = "line_edits"
    citations: bool = True
    counters: bool = False
    lines: str | None = None
    patterns: tuple[LinePattern, ...] = ()
    record_edits: bool = True

    @field_validator("lines")
    @classmethod
    def _readable(cls, lines: str | None) -> str | None:
        _listed(lines)
        return lines

    @field_validator("patterns")
    @classmethod
    def _named_once(cls, patterns: tuple[LinePattern, ...]) -> tuple[LinePattern, ...]:
        names = [one.name for one in patterns]
        if twice := [name for name in (*RULES, *names) if (*RULES, *names).count(name) > 1]:
            raise ValueError(f"two edits are called {twice[0]!r}: give each pattern a name of its own")
        return patterns

    def apply(self, batch: pa.RecordBatch) -> Outcome:
        """Edit `text`, a round of edits for the built-in ones and one for each pattern, and give the reasons."""
        bits, _ = characters()
        trie = _listed(self.lines)[0]
        cuts = edit_cuts(*utf8(batch), code_point_classes(), bits, trie, self.citations, self.counters)
        names = np.array([f"{self.kind}/{rule}" for rule in RULES], object)[cuts[:, 3]]
        rules = pa.array(names.tolist(), pa.string())
        batch = edit(batch, self.kind, Cuts(cuts[:, 0], cuts[:, 1:3], rules=rules), record=self.record_edits)
        for pattern in self.patterns:
            batch = edit(batch, self.kind, self._cuts(batch, pattern), record=self.record_edits)
        text = batch.column("text")
        empty = np.diff(utf8(batch)[0]) == 0
        return Outcome(batch, first_reason({f"{self.kind}/empty": empty & text.is_valid().to_numpy(False)}))

    def fingerprint(self) -> dict[str, Any]:
        """Name what decides: the fields, with the digest of the list in place of its path."""
        return {**super().fingerprint(), "lines": _listed(self.lines)[1]}

    def _cuts(self, batch: pa.RecordBatch, pattern: LinePattern) -> Cuts:
        """Find a pattern's matches in a batch."""
        column, offsets = batch.column("text").cast(pa.large_string()).cast(pa.large_binary()), utf8(batch)[0]
        wanted = column.is_valid()
        if pattern.needs:
            wanted = pc.and_(wanted, pc.match_substring(column, pattern.needs).fill_null(False))
        expression, rows, spans = re.compile(pattern.pattern), [], []
        for row in np.flatnonzero(wanted.to_numpy(zero_copy_only=False)).tolist():
            text = column[row].as_py().decode("utf-8", "surrogateescape")
            places = list(_line_cuts(text, expression, pattern.drop_line))
            rows += [row] * len(places)
            spans += [(first + offsets[row], last + offsets[row]) for first, last in in_bytes(text, places)]
        return Cuts(
            np.array(rows, np.int64),
            np.array(spans, np.int64).reshape(-1, 2),
            None if pattern.drop_line else pa.array([pattern.replacement] * len(rows), pa.large_string()),
            pa.array([f"{self.kind}/{pattern.name}"] * len(rows), pa.string()),
        )


def _line_cuts(text: str, expression: re.Pattern[str], drop_line: bool) -> Iterator[tuple[int, int]]:
    """Give what an expression cuts from a text, in code points."""
    at, kept = 0, False
    for line in text.split("\n"):
        end = at + len(line)
        if drop_line and expression.search(line):
            yield line_cut(text, at, end, kept)
        else:
            kept = True
            if not drop_line:
                matches = (found.span() for found in expression.finditer(line))
                yield from ((at + first, at + last) for first, last in matches if first < last)
        at = end + 1


def _listed(path: str | None) -> tuple[Trie, str | None]:
    """Read a file of lines: their trie, and the digest of its bytes."""
    if path is None:
        return _load(None, 0, 0)
    with readable(f"the list of lines {path!r}"):
        return _load(path, *stamp(path))


@lru_cache(16)
def _load(path: str | None, _modified: int, _size: int) -> tuple[Trie, str | None]:
    if path is None:
        return build_trie([]), None
    body = Path(path).read_bytes()
    try:
        lines = [line.strip() for line in body.decode("utf-8-sig").split("\n")]
    except UnicodeDecodeError as error:
        raise InputError(f"the list of lines {path!r} is not UTF-8 at byte {error.start}: save it as UTF-8") from error
    if not any(lines):
        raise InputError(f"the list of lines {path!r} has none; write one line of text a line, or leave it out")
    return build_trie([line.encode() for line in lines]), sha256(body).hexdigest()

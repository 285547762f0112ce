"""Write texts in one way: one line end, composed characters, nothing invisible that carries no meaning.

A kernel finds the few bytes that matter, so that a clean text costs a nanosecond a byte; what only Unicode's tables can
tell is asked of Python for texts that reach beyond U+02FF, for other texts are composed already.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from importlib import metadata
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field

from .. import RunError, require
from .edits import Cuts, edit
from .kernels.normalise import CONTROLS, MARKS, NEWLINES, ODD, WIDTHS, odd_characters, rows_reaching, trailing_spaces
from .step import Outcome, StepModel, utf8, with_columns

#: Normal forms leave the places before ASCII alone: a run is a mark's possible base and what is not ASCII behind it.
_RUN = re.compile(rb"[\x00-\x7f]?[\x80-\xff]+")
_LINE = re.compile(rb"[^\n]+")
#: The first byte of a character that may change: from U+0300 (NFC), from U+00A0 (NFKC).
_REACH = {"NFC": 0xCC, "NFKC": 0xC2}


class _Change(NamedTuple):
    row: int
    first: int  # byte
    end: int
    text: str


class Normalise(StepModel):
    r"""Edit the text to one way of writing; drop nothing. Score: `normalise.edits`, how many places were changed.

    In this order: `mojibake` undoes wrong decodings line by line ("schÃ¶n"), with `ftfy.fix_encoding`, which the extra
    `ftfy` brings; `newlines` makes `\n` of every line end (CR LF, CR, VT, FF, U+0085, U+2028, U+2029); `controls`
    takes out U+0000 to U+001F but tab and newline, U+007F to U+009F; `bom` U+FEFF wherever it stands; `zero_width`
    U+200B, U+2060 and the soft hyphen U+00AD (never U+200C and U+200D, which Persian, Hindi and emoji need); then the
    text is composed (`form`; NFKC also turns ligatures, full-width letters and superscripts into plain ones);
    `trailing_spaces` go before newlines and the end.

    Normal forms come from Python's tables, and new Unicode versions add characters: `unicode` is the version that the
    recipe was made under, part of the fingerprint, and a process with another refuses.

    >>> batch = pa.record_batch({"text": ["Cafe\u0301\r\n\ufeffau lait\x07", "plain"]})
    >>> outcome = Normalise().apply(batch)
    >>> outcome.batch["text"].to_pylist(), outcome.batch["normalise.edits"].to_pylist()
    (['Café\nau lait', 'plain'], [4, 0])
    """

    kind: Literal["normalise"] = "normalise"
    form: Literal["NFC", "NFKC"] | None = "NFC"
    newlines: bool = True
    controls: bool = True
    bom: bool = True
    zero_width: bool = False
    trailing_spaces: bool = False
    mojibake: bool = False
    unicode: str = Field(default_factory=lambda: unicodedata.unidata_version)
    record_edits: bool = True  # keep what was changed in the column `edits`

    def apply(self, batch: pa.RecordBatch) -> Outcome:
        """Edit the text in rounds; add the count of edits, int64, and the edits."""
        if self.form and unicodedata.unidata_version != self.unicode:
            raise RunError(
                f"this Python knows Unicode {unicodedata.unidata_version}, and normalise was set up under "
                f"{self.unicode}: run every worker on one version of Python, or set form to null"
            )
        counts = np.zeros(len(batch), np.int64)
        made = edit(batch, self.kind, _cuts([]), record=self.record_edits)
        for rule, changes in (
            ("mojibake", self._mojibake),
            ("character", self._characters),
            ("form", self._form),
            ("trailing_spaces", self._trailing),
        ):
            cuts = changes(*utf8(made))
            if len(cuts.rows):
                counts += np.bincount(cuts.rows, minlength=len(batch))
                made = edit(made, f"{self.kind}/{rule}", cuts, record=self.record_edits)
        columns = {f"{self.kind}.edits": pa.array(counts)}
        return Outcome(with_columns(made, columns), pa.nulls(len(batch), pa.string()))

    def fingerprint(self) -> dict[str, Any]:
        """Name what decides: the fields, Unicode's version where it counts, ftfy's where it does the work."""
        own = super().fingerprint()
        if self.form is None:
            del own["unicode"]
        if self.mojibake:
            require("ftfy", "ftfy")
            own["ftfy"] = metadata.version("ftfy")
        return own

    def _characters(self, offsets: NDArray[np.int64], data: NDArray[np.uint8]) -> Cuts:
        bits = ((self.newlines, NEWLINES), (self.controls, CONTROLS), (self.bom, MARKS), (self.zero_width, WIDTHS))
        what = sum(bit for on, bit in bits if on)
        found = odd_characters(offsets, data, what, ODD) if what else np.zeros((0, 4), np.int64)
        inserted = pa.array(["", "\n"], pa.large_string()).take(pa.array(found[:, 3]))
        return Cuts(found[:, 0], found[:, 1:3], inserted)

    def _trailing(self, offsets: NDArray[np.int64], data: NDArray[np.uint8]) -> Cuts:
        found = trailing_spaces(offsets, data) if self.trailing_spaces else np.zeros((0, 3), np.int64)
        return Cuts(found[:, 0], found[:, 1:])

    def _form(self, offsets: NDArray[np.int64], data: NDArray[np.uint8]) -> Cuts:
        if self.form is None:
            return _cuts([])
        rows = np.flatnonzero(rows_reaching(offsets, data, _REACH[self.form]))
        return _cuts(self._composed(rows.tolist(), offsets, data))

    def _composed(self, rows: list[int], offsets: NDArray[np.int64], data: NDArray[np.uint8]) -> Iterator[_Change]:
        """Find the runs of each text that are not in the form."""
        assert self.form is not None
        for row, first, body in _texts(rows, offsets, data):
            text = _decoded(body)
            if text is not None and unicodedata.is_normalized(self.form, text):
                continue
            for run in _RUN.finditer(body):
                old = _decoded(run[0])
                if old is not None and (new := unicodedata.normalize(self.form, old)) != old:
                    yield _trimmed(row, first + run.start(), old, new)

    def _mojibake(self, offsets: NDArray[np.int64], data: NDArray[np.uint8]) -> Cuts:
        if not self.mojibake:
            return _cuts([])
        ftfy = require("ftfy", "ftfy")
        rows = np.flatnonzero(rows_reaching(offsets, data, 0x80)).tolist()
        return _cuts(_repaired(rows, offsets, data, ftfy.fix_encoding))


def _repaired(rows: list[int], offsets: NDArray[np.int64], data: NDArray[np.uint8], fix: Any) -> Iterator[_Change]:
    """Find the lines that were decoded wrongly."""
    for row, first, body in _texts(rows, offsets, data):
        for line in _LINE.finditer(body):
            old = None if line[0].isascii() else _decoded(line[0])
            if old is not None and (new := fix(old)) != old:
                yield _trimmed(row, first + line.start(), old, new)


def _texts(rows: list[int], offsets: NDArray[np.int64], data: NDArray[np.uint8]) -> Iterator[tuple[int, int, bytes]]:
    for row in rows:
        first = int(offsets[row])
        yield row, first, data[first : int(offsets[row + 1])].tobytes()


def _decoded(body: bytes) -> str | None:
    """Decode UTF-8; None where it is none, which is left as it is."""
    try:
        return body.decode()
    except UnicodeDecodeError:
        return None


def _trimmed(row: int, first: int, old: str, new: str) -> _Change:
    """Leave out of a change what both texts begin and end with."""
    shorter = min(len(old), len(new))
    head = next((place for place in range(shorter) if old[place] != new[place]), shorter)
    tail = next((place for place in range(shorter - head) if old[-1 - place] != new[-1 - place]), shorter - head)
    start = first + len(old[:head].encode())
    return _Change(row, start, start + len(old[head : len(old) - tail].encode()), new[head : len(new) - tail])


def _cuts(changes: Iterable[_Change]) -> Cuts:
    held = list(changes)
    spans = np.array([(change.first, change.end) for change in held], np.int64).reshape(-1, 2)
    rows = np.array([change.row for change in held], np.int64)
    return Cuts(rows, spans, pa.array([change.text for change in held], pa.large_string()))

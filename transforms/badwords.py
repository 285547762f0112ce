"""Pages with words from a list of the user's, as C4 and mC4 dropped them (Raffel et al. 2020, JMLR 21(140), 2.2).

No list ships with penstock. C4 took the English "List of Dirty, Naughty, Obscene, and Otherwise Bad Words" (LDNOOBW),
mC4 those of its languages. Entries are found by a trie, so that a long list costs no more than a short one: some 85
MB/s a core, where datatrove's regular expression of ten entries makes 19.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
import xxhash
from numpy.typing import NDArray
from pydantic import Field, model_validator

from .. import InputError
from .held import readable, stamp
from .kernels.characters import characters, lowered
from .kernels.listed import ANYWHERE, FLANKED, IN_LINE, find_phrases
from .kernels.trie import Trie, build_trie
from .step import Filter, Outcome, Scores, Share, first_reason, utf8, with_columns


class BadWords(Filter):
    r"""Drop pages that have a word or phrase from a list.

    `lists` is a file, one entry a line, or a mapping of languages to files; then a row is held against the list of its
    `language` (`zh` for `zh-Latn` where that has none, `default_language` where it is null), and a row whose language
    has no list is kept. Case is ignored: text and entries are lower-cased, final sigma read as sigma.

    `variant="fineweb"` decides as datatrove v0.10.0 (`C4BadWordsFilter`) and the code of mC4 (TensorFlow Datasets,
    `text/c4_utils.py`, `get_badwords_filter_fn`) given the same entries: an entry counts with no word character (`\w`:
    letters, numbers, underscore; combining marks are none) before and behind it; in `substring_languages` anywhere.
    Both have exceptions for Japanese and Chinese, which here are up to who writes the file; datatrove takes those from
    every language's list. `variant="c4"` decides as the first C4's expression, `[^a-z]word[^a-z]` in the
    lower-cased line: a digit or an é is a boundary, and an entry at the beginning or end of its line is not found. Put
    behind `C4Quality(variant="c4")`, which leaves the lines that C4 held against it.

    A share `keep_fraction` of the pages that would go is kept, chosen by hash of `id` and `seed`: the same pages in
    every run (datatrove draws anew in each process, mC4 hashes the URL). A batch without `id` is hashed by its text.

    Scores: `matches`, places where an entry stands; `draw` in [0, 1), which keeps a page below `keep_fraction`; `word`,
    the first entry met, the longest there.
    """

    files = ("lists",)
    kind: Literal["bad_words"] = "bad_words"
    variant: Literal["fineweb", "c4"] = "fineweb"
    lists: str | dict[str, str]
    default_language: str = "en"  # datatrove's
    substring_languages: tuple[str, ...] = ("ja", "th", "zh")  # datatrove and mC4, c4_utils.py
    keep_fraction: Share = 0.0  # datatrove's; mC4's code as well
    seed: Annotated[int, Field(ge=0, lt=1 << 63)] = 0

    @model_validator(mode="after")
    def _readable(self) -> BadWords:
        """Read the lists, so that one that is missing or empty is met before anything runs."""
        for path in self._paths().values():
            _read(path)
        return self

    def measure(self, batch: pa.RecordBatch) -> Scores:
        """Score each row: `matches` int64, `draw` float64, `word` str or None."""
        matches, words = np.zeros(len(batch), np.int64), np.full(len(batch), None, object)
        offsets, data = utf8(batch)
        bits, lower = characters()
        for (path, mode), rows in self._groups(batch).items():
            entries, trie, _ = _read(path)
            found = find_phrases(offsets, data, rows, trie, bits, lower, mode)
            matches[rows] = found[:, 0]
            words[rows] = np.array([None, *entries], object)[found[:, 1]]
        return {"matches": matches, "draw": self._draw(batch), "word": words}

    def decide(self, scores: Scores) -> pa.StringArray:
        """Say why each row is dropped; null where it is kept."""
        fired = (scores["matches"] > 0) & (scores["draw"] >= self.keep_fraction)
        return first_reason({f"{self.kind}/bad_word": fired})

    def apply(self, batch: pa.RecordBatch) -> Outcome:
        """Add the scores as columns, and give the reasons."""
        scores = self.measure(batch)
        kinds = {"matches": pa.int64(), "draw": pa.float64(), "word": pa.string()}
        columns = {f"{self.kind}.{name}": pa.array(scores[name], kind) for name, kind in kinds.items()}
        return Outcome(with_columns(batch, columns), self.decide(scores))

    def fingerprint(self) -> dict[str, Any]:
        """Name what decides: the fields, with digests of the lists in place of their paths."""
        digests = {language: _read(path)[2] for language, path in self._paths().items()}
        return {**super().fingerprint(), "lists": digests.get("", digests)}

    def _paths(self) -> Mapping[str, str]:
        """Give the files by language; "" is for all."""
        return {"": self.lists} if isinstance(self.lists, str) else self.lists

    def _groups(self, batch: pa.RecordBatch) -> dict[tuple[str, int], NDArray[np.int64]]:
        """Part the rows by list and by how an entry must stand."""
        paths = self._paths()
        if "language" not in batch.schema.names or (self.variant == "c4" and "" in paths):
            languages = [self.default_language] * len(batch)
        else:
            languages = [name or self.default_language for name in batch.column("language").to_pylist()]
        groups: dict[tuple[str, int], list[int]] = {}
        for row, language in enumerate(languages):
            path = paths.get("") or paths.get(language) or paths.get(language.partition("-")[0])
            if path is not None:
                substring = language.partition("-")[0] in self.substring_languages
                mode = IN_LINE if self.variant == "c4" else ANYWHERE if substring else FLANKED
                groups.setdefault((path, mode), []).append(row)
        return {key: np.array(rows, np.int64) for key, rows in groups.items()}

    def _draw(self, batch: pa.RecordBatch) -> NDArray[np.float64]:
        named = "id" if "id" in batch.schema.names else "text"
        keys = (
            batch.column(named).to_pylist()
            if named == "id"
            else batch.column(named).cast(pa.large_binary()).to_pylist()
        )
        digests = [xxhash.xxh3_64_intdigest(key or b"", self.seed) for key in keys]
        draws: NDArray[np.float64] = (np.array(digests, np.uint64) >> np.uint64(11)).astype(np.float64) * 2.0**-53
        return draws


def _read(path: str) -> tuple[list[str], Trie, str]:
    """Read a list: its entries, their trie, the digest of the file; again only where the file changed."""
    with readable(f"the list {path!r}"):
        return _load(path, *stamp(path))


@lru_cache(64)
def _load(path: str, _modified: int, _size: int) -> tuple[list[str], Trie, str]:
    body = Path(path).read_bytes()
    try:
        entries = list(
            dict.fromkeys(line.strip().lower() for line in body.decode("utf-8-sig").split("\n") if line.strip())
        )
    except UnicodeDecodeError as error:
        raise InputError(f"the list {path!r} is not UTF-8 at byte {error.start}; save it as UTF-8") from error
    if not entries:
        raise InputError(f"the list {path!r} has no entry; write one a line, or leave the list out")
    return entries, build_trie([_lowered(entry) for entry in entries]), sha256(body).hexdigest()


def _lowered(entry: str) -> bytes:
    """Write an entry as `find_phrases` reads texts."""
    data = np.frombuffer(entry.encode(), np.uint8)
    out = np.empty(3 * len(data) + 1, np.uint8)
    return out[: lowered(data, 0, len(data), characters()[1], out)].tobytes()

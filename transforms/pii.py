"""Redact personal data: e-mail addresses and public IP addresses, and by choice numbers and keys.

What is found is replaced in the text and kept in the column `edits`, so that it can be audited and undone. A kernel
scans for the few places where a kind can stand; exact rules look at those alone (`pii_rules.py`), so that ordinary
text costs some nanoseconds a byte whatever the rules are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from hashlib import blake2b
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa
import xxhash
from numpy.typing import NDArray
from pydantic import Field, field_validator

from .edits import Cuts, edit
from .kernels.pii import windows
from .kernels.pii_fineweb import BYTES, fineweb_emails, fineweb_ipv4, word_characters
from .kernels.pii_scan import CONTEXT
from .pii_rules import BEFORE, RULES, Rule, global_ipv4
from .step import Outcome, StepModel, utf8, with_columns

Kind = Literal["private_key", "key", "email", "iban", "credit_card", "us_ssn", "phone", "ip"]

#: What stands in for a kind where `replace` is "fixed". E-mail and IPv4 are FineWeb's (datatrove, `formatters/pii.py`);
#: the others are set apart for examples: RFC 3849, the North American 555-01XX, numbers that fail their own check.
FIXED: dict[str, tuple[str, ...]] = {
    "email": ("email@example.com", "firstname.lastname@example.org"),
    "ip": (
        "22.214.171.124", "126.96.36.199", "188.8.131.52", "184.108.40.206", "220.127.116.11", "18.104.22.168",
    ),
    "ipv6": ("2001:db8::1", "2001:db8::2"),
    "phone": ("+1 202-555-0123", "+1 202-555-0198"),
    "us_ssn": ("000-00-0000",),
    "credit_card": ("0000 0000 0000 0000",),
    "iban": ("XX00 0000 0000 0000 0000",),
    "key": ("<KEY>",),
    "private_key": ("<PRIVATE_KEY>",),
}  # fmt: skip


class Found(NamedTuple):
    """What stands in a batch: rows (n,) rising, spans (n, 2) bytes, numbers (n,) of the kinds among the step's."""

    rows: NDArray[np.int64]
    spans: NDArray[np.int64]
    kinds: NDArray[np.int64]


class RedactPii(StepModel):
    """Replace personal data in the text; drop nothing. Scores: how many of each kind, `redact_pii.email` and so on.

    `variant="penstock"` finds addresses as they are written on the web: an e-mail address may stand right behind
    Chinese or Thai text, hold letters of Europe's alphabets and must end in what can be a top-level domain (not
    `image@2x.png`); four numbers behind the word "version" are no IP address; IPv6 is found too. `variant="fineweb"`
    finds what datatrove v0.10.0's `PIIFormatter` replaces: its two expressions, matched exactly. Both take only IP
    addresses that are global by one pinned table, where Python's answer depends on its version.

    `replace`: "tag" puts `<EMAIL>`; "fixed" one of a few values made to be harmless, FineWeb's for e-mail and IPv4,
    chosen by a hash of what is replaced (datatrove takes turns, so that its output depends on how files are dealt to
    processes); "pseudonym" `<EMAIL_1f2e3d4c>`, the same for the same address in one document and unlike in any other.
    `key` goes into both hashes; whoever has it and a guess can check the guess.

    Not found: what is written out ("john at example dot org"), names, street addresses, percent-encoded text.

    >>> batch = pa.record_batch({"text": ["Ask jo@example.net, not 192.168.0.1, or 8.8.8.8."]})
    >>> RedactPii().apply(batch).batch["text"].to_pylist()
    ['Ask <EMAIL>, not 192.168.0.1, or <IP>.']
    """

    kind: Literal["redact_pii"] = "redact_pii"
    variant: Literal["penstock", "fineweb"] = "penstock"
    kinds: tuple[Kind, ...] = Field(default=("email", "ip"), min_length=1)  # FineWeb's two
    replace: Literal["tag", "fixed", "pseudonym"] = "tag"
    key: str = ""
    record_edits: bool = True  # keep what was replaced in the column `edits`

    @field_validator("kinds")
    @classmethod
    def _in_order(cls, kinds: tuple[Kind, ...]) -> tuple[Kind, ...]:
        """Put the kinds into the order in which they take text; refuse one that stands twice."""
        if len(set(kinds)) < len(kinds):
            raise ValueError(f"kinds is {list(kinds)}: name each once")
        return tuple(sorted(kinds, key=list(RULES).index))

    def apply(self, batch: pa.RecordBatch) -> Outcome:
        """Replace what is found; add the counts, int64, and the edits."""
        offsets, data = utf8(batch)
        found = self.find(offsets, data)
        counts = {
            f"{self.kind}.{kind}": pa.array(np.bincount(found.rows[found.kinds == number], minlength=len(batch)))
            for number, kind in enumerate(self.kinds)
        }
        names = np.array([f"{self.kind}/{kind}" for kind in self.kinds], object)[found.kinds]
        inserted = pa.array(self._replacements(batch, found, data), pa.large_string())
        cuts = Cuts(found.rows, found.spans, inserted, pa.array(names, pa.string()))
        made = edit(batch, self.kind, cuts, record=self.record_edits)
        return Outcome(with_columns(made, counts), pa.nulls(len(batch), pa.string()))

    def find(self, offsets: NDArray[np.int64], data: NDArray[np.uint8]) -> Found:
        """Find personal data in texts as kernels read them; what two kinds want goes to the first of them."""
        scans = _Scans(offsets, data)
        own = _FINEWEB if self.variant == "fineweb" else {}
        parts = [[own[kind](offsets, data)] if kind in own else scans.matches(kind) for kind in self.kinds]
        forms = [(number, form) for number, forms in enumerate(parts) for form in forms]
        ranks = np.repeat(np.arange(len(forms)), [len(form) for _, form in forms])
        found, ranks = _apart(np.concatenate([form for _, form in forms]), ranks)
        return Found(found[:, 0], found[:, 1:], np.array([number for number, _ in forms])[ranks])

    def _replacements(self, batch: pa.RecordBatch, found: Found, data: NDArray[np.uint8]) -> list[str]:
        """Choose what stands in for each find."""
        kinds, tags = found.kinds.tolist(), [kind.upper() for kind in self.kinds]
        if self.replace == "tag":
            return [f"<{tags[kind]}>" for kind in kinds]
        taken = [data[first:end].tobytes() for first, end in found.spans.tolist()]
        if self.replace == "fixed":
            pairs = zip(kinds, taken, strict=True)
            return [self._fixed(self.kinds[kind], removed) for kind, removed in pairs]
        ids = batch.column("id") if "id" in batch.schema.names else None
        rows = zip(found.rows.tolist(), kinds, taken, strict=True)
        return [
            f"<{tags[kind]}_{self._pseudonym(b'' if ids is None else _bytes(ids[row].as_py()), removed)}>"
            for row, kind, removed in rows
        ]

    def _fixed(self, kind: str, removed: bytes) -> str:
        values = FIXED["ipv6" if kind == "ip" and b":" in removed else kind]
        return values[xxhash.xxh3_64_intdigest(self.key.encode() + b"\0" + removed) % len(values)]

    def _pseudonym(self, document: bytes, removed: bytes) -> str:
        """Hash (key, document, what is replaced, its case aside) to eight hex digits."""
        hashed = blake2b(document + b"\0" + removed.lower(), key=blake2b(self.key.encode()).digest(), digest_size=4)
        return hashed.hexdigest()


def _bytes(value: object) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


class _Scans:
    """The windows of each scan, looked for once, and what the rules make of them."""

    def __init__(self, offsets: NDArray[np.int64], data: NDArray[np.uint8]) -> None:
        self._offsets, self._data = offsets, data
        self._windows: dict[str, list[list[int]]] = {}

    def matches(self, kind: str) -> list[NDArray[np.int64]]:
        """Find each form of a kind: (n, 3) row, first byte, end."""
        for rule in RULES[kind]:
            if rule.scan not in self._windows:
                self._windows[rule.scan] = windows(rule.scan, self._offsets, self._data).tolist()
        held = [list(self._of(rule, self._windows[rule.scan])) for rule in RULES[kind]]
        return [np.array(found, np.int64).reshape(-1, 3) for found in held]

    def _of(self, rule: Rule, held: Sequence[Sequence[int]]) -> Iterator[tuple[int, int, int]]:
        body: memoryview = self._data.data  # slices of it are no copies
        for row, first, end in held:
            start, stop = int(self._offsets[row]), int(self._offsets[row + 1])
            for one, other in _spans(rule, bytes(body[first:end]), 0 if first == start else CONTEXT):
                at, last = first + one, first + other
                if rule.check is not None:
                    before, after = body[max(start, at - BEFORE) : at], body[last : min(stop, last + CONTEXT)]
                    size = rule.check(bytes(body[at:last]), bytes(before), bytes(after))
                    if not size:
                        continue
                    last = last if size is True else at + size
                yield row, at, last


def _spans(rule: Rule, window: bytes, lead: int) -> list[tuple[int, int]]:
    """Match a rule's expression in a window; without one the window is the match."""
    if rule.pattern is None:
        return [(0, len(window))]
    return [match.span() for match in rule.pattern.finditer(window, 0 if rule.scan in ("token", "pem") else lead)]


def _fineweb_emails(offsets: NDArray[np.int64], data: NDArray[np.uint8]) -> NDArray[np.int64]:
    found: NDArray[np.int64] = fineweb_emails(offsets, data, BYTES, word_characters())
    return found


def _fineweb_ips(offsets: NDArray[np.int64], data: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Find IPv4 addresses where datatrove would: in what its e-mail expression has left."""
    found = fineweb_ipv4(offsets, data, _fineweb_emails(offsets, data), BYTES)
    return np.asarray(found[global_ipv4(found[:, 3])][:, :3])


_FINEWEB: dict[str, Callable[[NDArray[np.int64], NDArray[np.uint8]], NDArray[np.int64]]] = {
    "email": _fineweb_emails,
    "ip": _fineweb_ips,
}


def _apart(found: NDArray[np.int64], ranks: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Sort finds by place; of those that lie over one another keep the one of the lowest rank."""
    order = np.lexsort((ranks, found[:, 1]))
    found, ranks = found[order], ranks[order]
    if not (found[1:, 1] < found[:-1, 2]).any():
        return found, ranks
    stays = np.zeros(len(found), bool)
    for rank in range(int(ranks.max()) + 1):
        mine, held = ranks == rank, found[stays]
        place = np.searchsorted(held[:, 1], found[mine, 2], side="left") - 1  # the last that begins before the end
        stays[mine] = (place < 0) | (held[place, 2] <= found[mine, 1]) if len(held) else True
    return found[stays], ranks[stays]

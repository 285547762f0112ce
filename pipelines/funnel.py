"""The funnel: what came in, what each rule of each step dropped, what stays. Exact: from the manifest alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

READER = -1


@dataclass(frozen=True)
class RuleCount:
    """Documents and bytes (of text when their fate was decided) that one rule dropped."""

    kind: str
    rule: str
    documents: int
    bytes: int

    @property
    def short(self) -> str:
        """Name the rule without the step that stands beside it."""
        return self.rule.removeprefix(f"{self.kind}/")


@dataclass(frozen=True)
class StageCount:
    """What one step received and what fell out there; `rules` from the largest down."""

    step: int
    kind: str
    documents_in: int
    rules: tuple[RuleCount, ...]
    quarantined: int

    @property
    def rejected(self) -> int:
        """Count what the step's rules dropped."""
        return sum(rule.documents for rule in self.rules)

    @property
    def documents_out(self) -> int:
        """Count what went on to the next step."""
        return self.documents_in - self.rejected - self.quarantined


@dataclass(frozen=True)
class Funnel:
    """A run's account: documents_in = kept + rejected + duplicates + quarantined."""

    documents_in: int
    stages: tuple[StageCount, ...]  # the reader, then the recipe's steps
    passed: int  # what every rule kept, before duplicates were dropped
    passed_bytes: int
    rejected: int
    duplicates: int
    quarantined: int
    kept: int
    kept_bytes: int | None
    tokens: int | None
    deduplicated: bool

    @property
    def adds_up(self) -> bool:
        """Say whether nothing vanished."""
        return self.documents_in == self.kept + self.rejected + self.duplicates + self.quarantined


def funnel(manifest: Mapping[str, Any]) -> Funnel:
    """Read the account out of a manifest."""
    entries: Sequence[Mapping[str, Any]] = manifest.get("funnel") or ()
    stages = _stages(manifest, entries)
    passed = [entry for entry in entries if entry["fate"] == "kept"]
    passed_bytes, duplicates = sum(int(entry["bytes"]) for entry in passed), int(manifest.get("duplicates") or 0)
    kept_bytes = manifest.get("bytes_kept") if duplicates else passed_bytes
    if duplicates and kept_bytes == passed_bytes:
        kept_bytes = None  # a manifest that weighed the documents before duplicates went
    return Funnel(
        documents_in=int(manifest.get("documents_in") or 0),
        stages=stages,
        passed=sum(int(entry["documents"]) for entry in passed),
        passed_bytes=passed_bytes,
        rejected=int(manifest.get("rejected") or 0),
        duplicates=duplicates,
        quarantined=int(manifest.get("quarantined") or 0),
        kept=int(manifest.get("kept") or 0),
        kept_bytes=kept_bytes,
        tokens=manifest.get("tokens") if manifest.get("tokens_sha256") else None,
        deduplicated=any((manifest.get("stages") or {}).get(name) for name in ("duplicates", "urls")),
    )


def _stages(manifest: Mapping[str, Any], entries: Sequence[Mapping[str, Any]]) -> tuple[StageCount, ...]:
    """Follow the documents through reader and steps; a step that dropped nothing has its place too."""
    kinds = {READER: "read", **dict(enumerate(manifest.get("steps") or ()))}
    left, stages = int(manifest.get("documents_in") or 0), []
    for step, kind in sorted(kinds.items()):
        mine = [entry for entry in entries if int(entry["step"]) == step]
        rules = [
            RuleCount(kind, str(entry["rule"] or ""), int(entry["documents"]), int(entry["bytes"]))
            for entry in mine if entry["fate"] == "rejected"
        ]  # fmt: skip
        quarantined = sum(int(entry["documents"]) for entry in mine if entry["fate"] == "quarantined")
        ordered = tuple(sorted(rules, key=lambda rule: (-rule.documents, rule.rule)))
        stages.append(StageCount(step, kind, left, ordered, quarantined))
        left = stages[-1].documents_out
    return tuple(stages)


def funnel_table(manifest: Mapping[str, Any]) -> str:
    """Draw a run's funnel as plain text: a line a step and rule with documents, their share of the input, and bytes."""
    account = funnel(manifest)
    lines = [("", "documents", "share", "bytes"), ("records in", *_cells(account, account.documents_in, None))]
    for stage in account.stages:
        if stage.rules or stage.quarantined:
            lines.append((f"  {stage.kind}", "", "", ""))
        lines += [(f"    {visible(rule.short)}", *_cells(account, -rule.documents, rule.bytes)) for rule in stage.rules]
        if stage.quarantined:
            lines.append(("    quarantined", *_cells(account, -stage.quarantined, None)))
    if account.deduplicated:
        lines.append(("passed the rules", *_cells(account, account.passed, account.passed_bytes)))
        gone = None if account.kept_bytes is None else account.passed_bytes - account.kept_bytes
        lines.append(("    duplicates", *_cells(account, -account.duplicates, gone)))
    lines.append(("kept", *_cells(account, account.kept, account.kept_bytes)))
    if account.tokens is not None:
        lines.append(("tokens", f"{account.tokens:,}", "", ""))
    widths = [max(len(line[column]) for line in lines) for column in range(4)]
    return "\n".join(
        f"{name:<{widths[0]}}  {documents:>{widths[1]}}  {share:>{widths[2]}}  {size:>{widths[3]}}".rstrip()
        for name, documents, share, size in lines
    )


def _cells(account: Funnel, documents: int, size: int | None) -> tuple[str, str, str]:
    return f"{documents:,}", percent(abs(documents), account.documents_in), "" if size is None else bytes_text(size)


def percent(part: int, whole: int) -> str:
    """Write a share: one decimal place, and what is not nothing never reads as 0."""
    if not whole:
        return ""
    share = 100 * part / whole
    return "< 0.1 %" if 0 < share < 0.05 else f"{share:.1f} %"


def bytes_text(size: int) -> str:
    """Write a number of bytes in decimal units, three digits."""
    for unit, power in (("TB", 12), ("GB", 9), ("MB", 6), ("kB", 3)):
        if size >= 10**power:
            number = size / 10**power
            return f"{number:.{max(0, 2 - len(str(int(number))) + 1)}f} {unit}"
    return f"{size} B"


_PICTURES: dict[int, str] = {
    **{code: chr(0x2400 + code) for code in range(32) if chr(code) not in "\n\t"},
    0x7F: "␡",
    **{code: f"⟨U+{code:04X}⟩" for code in (*range(0x80, 0xA0), 0x61C, 0x200E, 0x200F, 0x2028, 0x2029)},
    # These reorder what stands around them, up to the digits of a table.
    **{code: f"⟨U+{code:04X}⟩" for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))},
    **{plane << 16 | code: "\ufffd" for plane in range(17) for code in (0xFFFE, 0xFFFF)},
    **dict.fromkeys(range(0xFDD0, 0xFDF0), "\ufffd"),
    **dict.fromkeys(range(0xD800, 0xE000), "\ufffd"),
}


def visible(text: str) -> str:
    """Show control characters, direction overrides and non-characters: data must not steer a page or a terminal."""
    return text.replace("\r\n", "\n").translate(_PICTURES)

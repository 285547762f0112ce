"""Sections of the report page that are tables: languages, quarantine, tokens, and facts of the run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .funnel import Funnel, bytes_text, percent
from .report_charts import stacked, text
from .report_parts import name_of, partial, plural, shorten, table
from .report_survey import PLACES, Survey

MOST_LANGUAGES = 24
MOST_STREAMS = 200
MOST_ERRORS = 30


def languages_section(manifest: Mapping[str, Any]) -> str:
    """List the languages of what passed the rules, the most frequent by name."""
    counts = sorted((manifest.get("languages") or {}).items(), key=lambda item: (-item[1][0], item[0]))
    if not counts or [name for name, _ in counts] == [""]:
        return ""
    whole = sum(documents for _, (documents, _) in counts)
    shown, rest = counts[:MOST_LANGUAGES], counts[MOST_LANGUAGES:]
    rows = [(name or "none", documents, size) for name, (documents, size) in shown]
    if rest:
        others = plural(len(rest), "other language")
        rows.append((others, sum(item[1][0] for item in rest), sum(item[1][1] for item in rest)))
    most = max(documents for _, documents, _ in rows)
    lines = [
        (text(name), f"{documents:,}", percent(documents, whole), bytes_text(size),
         stacked([("kept", documents)], most, name, height=10))
        for name, documents, size in rows
    ]  # fmt: skip
    head = (("Language", ""), ("Documents", "n"), ("Share", "n"), ("Text", "n"), ("", "w"))
    return table(head, lines, "Languages of the documents that passed the rules, before duplicates were dropped")


def quarantine_section(account: Funnel, found: Survey) -> str:
    """List what could not be processed, by error, with places."""
    if not account.quarantined:
        return ""
    groups = sorted(found.errors.items(), key=lambda item: (-item[1].documents, item[0]))
    rows = [
        (text(shorten(error)), f"{group.documents:,}",
         "<br>".join(f"<code>{text(item.where)}</code>" for item in group.records[:PLACES]))
        for error, group in groups[:MOST_ERRORS]
    ]  # fmt: skip
    left = sum(group.documents for _, group in groups[MOST_ERRORS:])
    note = f'<p class="note">and {plural(left, "record")} with other errors</p>' if left else ""
    head = (("Error", ""), ("Records", "n"), ("Places", "p"))
    return (
        f"<p>{plural(account.quarantined, 'record')} could not be processed and {_was(account.quarantined)} set aside; "
        "the rest of their files was read. The ledger holds their bytes, up to 1 MiB each.</p>"
        f"{table(head, rows, 'Errors and the first places of each')}{note}{partial(found)}"
    )


def _was(count: int) -> str:
    return "was" if count == 1 else "were"


def tokens_section(manifest: Mapping[str, Any]) -> str:
    """List documents and tokens by stream."""
    streams = sorted((manifest.get("streams") or {}).items())
    whole = sum(int(item["tokens"]) for _, item in streams)
    if not whole:
        return ""
    rows = [
        (name_of(name), f"{int(item['documents']):,}", f"{int(item['tokens']):,}", percent(int(item["tokens"]), whole),
         stacked([("kept", int(item["tokens"]))], whole, name, height=10))
        for name, item in streams[:MOST_STREAMS]
    ]  # fmt: skip
    head = (("Stream", ""), ("Documents", "n"), ("Tokens", "n"), ("Share", "n"), ("", "w"))
    more = len(streams) - MOST_STREAMS
    note = f'<p class="note">and {plural(more, "other stream")}</p>' if more > 0 else ""
    return table(head, rows, "Token files by stream") + note


def run_section(manifest: Mapping[str, Any]) -> str:
    """Give what names the run and its parts, and what it took."""
    facts = [("tokens_sha256", manifest.get("tokens_sha256")), ("recipe", manifest.get("recipe_fingerprint"))]
    facts += [(f"{name} stage", value) for name, value in (manifest.get("stages") or {}).items()]
    facts += [(name, _pairs(manifest.get(name) or {})) for name in ("versions", "models")]
    listed = "".join(f"<dt>{text(name)}</dt><dd><code>{text(value)}</code></dd>" for name, value in facts if value)
    if not listed:
        return ""
    note = "The same input and recipe give the same bytes, and so the same fingerprints, on any machine and runner."
    return f"<p>{note}</p><dl>{listed}</dl>{_cost(manifest.get('cost') or {})}"


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in sorted(values.items()))


def _cost(costs: Mapping[str, Any]) -> str:
    """Show what each stage took; only a manifest that records it has it."""
    rows = []
    for name, cost in costs.items():
        seconds, size = float(cost.get("cpu_seconds") or 0), int(cost.get("input_bytes") or 0)
        speed = f"{size / 1e6 / seconds:.1f} MB/s" if size and seconds else ""
        spent = sorted((cost.get("by") or {}).items(), key=lambda item: -item[1])
        by = ", ".join(f"{what.lstrip('0123456789 ')} {value:.2f}" for what, value in spent)
        peak = bytes_text(int(cost.get("peak_rss_bytes") or 0))
        rows.append((text(name), f"{cost.get('tasks', 0):,}", f"{seconds:,.1f}", speed, peak, text(by)))
    head = (("Stage", ""), ("Tasks", "n"), ("CPU seconds", "n"), ("Input a CPU second", "n"), ("Peak memory", "n"),
            ("CPU seconds by work", "u"))  # fmt: skip
    return table(head, rows, "What the stages took, as their tasks recorded it") if rows else ""

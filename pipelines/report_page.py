"""The report page: its head, the funnel, what each rule dropped, scores and lengths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .dedup_report import clusters_section, duplicates_section, pairs_section
from .dedup_survey import settings_of
from .funnel import Funnel, StageCount, bytes_text, percent
from .report_charts import histogram, lengths, number, stacked, text
from .report_parts import disclosure, document, legend, name_of, partial, plural, swatch, table
from .report_style import page
from .report_survey import LENGTH_EDGES, Record, Survey
from .report_tables import languages_section, quarantine_section, run_section, tokens_section
from .thresholds import Threshold, concerns, kind_of_rule, short, thresholds

Cuts = Mapping[str, Sequence[Threshold]]


def render(manifest: Mapping[str, Any], account: Funnel, found: Survey, cuts: Cuts) -> bytes:
    """Draw the whole page; a section that has nothing to say is left out."""
    sections = [
        ("funnel", "Funnel", funnel_section(account)),
        ("rules", "What the rules dropped", rules_section(account, found, manifest)),
        ("scores", "Scores", scores_section(found, cuts)),
        ("languages", "Languages", languages_section(manifest)),
        ("lengths", "Lengths", lengths_section(found)),
        *duplicates_sections(manifest, account, found),
        ("quarantine", "Quarantine", quarantine_section(account, found)),
        ("tokens", "Tokens", tokens_section(manifest)),
        ("run", "This run", run_section(manifest)),
    ]
    drawn = [section for section in sections if section[2]]
    links = "".join(f'<li><a href="#{anchor}">{name}</a></li>' for anchor, name, _ in drawn)
    body = "\n".join(
        f'<section id="{anchor}" aria-labelledby="h-{anchor}">\n<h2 id="h-{anchor}">{name}</h2>\n{content}</section>'
        for anchor, name, content in drawn
    )
    name, version = str(manifest.get("name") or "run"), text(manifest.get("penstock", ""))
    head = f'<header>{head_section(name, account)}<nav aria-label="Sections"><ul>{links}</ul></nav></header>'
    foot = f"<footer><p>Written by penstock {version}. This page holds all it shows and asks no network for anything."
    return page(f"{name} · penstock report", f"{head}\n<main>\n{body}\n</main>\n{foot}</p></footer>")


def duplicates_sections(manifest: Mapping[str, Any], account: Funnel, found: Survey) -> list[tuple[str, str, str]]:
    """Draw what deduplication found, where it ran."""
    if not account.deduplicated:
        return []
    own = found.duplicates
    return [
        (
            "duplicates",
            "Duplicates",
            duplicates_section(own, account.passed or account.documents_in, settings_of(manifest)),
        ),
        ("pairs", "Pairs", pairs_section(own)),
        ("clusters", "Clusters", clusters_section(own, found.found)),
    ]


def head_section(name: str, account: Funnel) -> str:
    """Say in one sentence and one bar what became of all records."""
    whole = account.documents_in
    fates = (
        ("kept", "kept", account.kept),
        ("rejected", "dropped by rules", account.rejected),
        ("duplicates", "duplicates", account.duplicates),
        ("quarantined", "quarantined", account.quarantined),
    )
    into = f", cut into {account.tokens:,} tokens" if account.tokens is not None else ""
    size = f", {bytes_text(account.kept_bytes)} of text" if account.kept_bytes is not None else ""
    lead = f"Of {plural(whole, 'record')} read, {plural(account.kept, 'document')} stayed{size}{into}."
    title = "Fate of all records: " + ", ".join(f"{name} {count:,}" for _, name, count in fates)
    bar = stacked([(kind, count) for kind, _, count in fates], whole, title, height=26)
    key = "".join(
        f"<li>{swatch(kind)}{name}<b>{count:,}</b><span>{percent(count, whole)}</span></li>"
        for kind, name, count in fates
    )
    added = " + ".join(f"{count:,}" for _, _, count in fates)
    proof = f'<p class="note">{whole:,} = {added}: every record read is accounted for.</p>'
    if not account.adds_up:
        total = sum(count for _, _, count in fates)
        proof = f'<p class="bad">This run does not add up: {whole:,} records were read, but {added} = {total:,}.</p>'
    return (
        f'<p class="eyebrow">penstock report</p><h1>{text(name)}</h1><p class="lead">{lead}</p>'
        f'{bar}<ul class="key">{key}</ul>{proof}'
    )


def funnel_section(account: Funnel) -> str:
    """Draw a bar a step, and a table of all rules."""
    steps = "".join(_step(stage, account.documents_in) for stage in account.stages)
    if account.deduplicated:
        gone = f"{plural(account.duplicates, 'duplicate')} dropped" if account.duplicates else "nothing dropped"
        segments = [("kept", account.kept), ("duplicates", account.duplicates)]
        steps += _bar("deduplication", account.kept, segments, gone, account.documents_in)
    tokens = f"; they make <b>{account.tokens:,}</b> tokens" if account.tokens is not None else ""
    size = f" with <b>{bytes_text(account.kept_bytes)}</b> of text" if account.kept_bytes is not None else ""
    return (
        "<p>Each step sees what the step before it let through. A bar is as long as the share of all records that "
        f'reached the step.</p><ol class="funnel">{steps}</ol>'
        f"<p><b>{plural(account.kept, 'document')}</b>{size} {'is' if account.kept == 1 else 'are'} kept{tokens}.</p>"
        f"{_rules_table(account)}"
    )


def _step(stage: StageCount, whole: int) -> str:
    gone = [f"{plural(stage.rejected, 'record')} dropped"] if stage.rejected else []
    gone += [f"{stage.quarantined:,} quarantined"] if stage.quarantined else []
    segments = [("kept", stage.documents_out), ("rejected", stage.rejected), ("quarantined", stage.quarantined)]
    return _bar(stage.kind, stage.documents_out, segments, ", ".join(gone) or "nothing dropped", whole)


def _bar(name: str, out: int, segments: Sequence[tuple[str, int]], gone: str, whole: int) -> str:
    bar = stacked(segments, whole, f"{name}: {out:,} go on, {gone}")
    counts = f'<span class="count">{out:,} left</span>{bar}<span class="gone">{gone}</span>'
    return f"<li><h3>{text(name)}</h3>{counts}</li>"


def _rules_table(account: Funnel) -> str:
    whole, rules = account.documents_in, [rule for stage in account.stages for rule in stage.rules]
    most = max((rule.documents for rule in rules), default=0)
    rows = [
        (name_of(rule.rule), f"{rule.documents:,}", percent(rule.documents, whole), bytes_text(rule.bytes),
         stacked([("rejected", rule.documents)], most, rule.rule, height=10))
        for rule in rules
    ]  # fmt: skip
    if account.deduplicated:
        size = "" if account.kept_bytes is None else bytes_text(account.passed_bytes - account.kept_bytes)
        share = percent(account.duplicates, whole)
        rows.append(("duplicate of a kept document", f"{account.duplicates:,}", share, size, ""))
    head = (("Rule", ""), ("Documents", "n"), ("Of all", "n"), ("Bytes", "n"), ("", "w"))
    caption = "What each rule dropped. Bytes: of text, or of the page where no text had been extracted yet"
    return table(head, rows, caption) if rows else ""


def rules_section(account: Funnel, found: Survey, manifest: Mapping[str, Any]) -> str:
    """Show some documents that each rule dropped."""
    blocks = []
    for stage in account.stages:
        for rule in stage.rules:
            if examples := found.examples.get(rule.rule):
                kind = kind_of_rule(rule.rule, stage.kind)
                shown = "".join(document(item, charge(item, kind, manifest)) for item in examples)
                blocks.append(disclosure(f"<h3>{name_of(rule.rule)}</h3>", plural(rule.documents, "document"), shown))
    if not blocks:
        return ""
    note = "Up to three documents of each rule, chosen by a hash of their ids; text where the ledger holds a sample."
    return f"<p>{note}</p>\n{''.join(blocks)}{partial(found)}"


def charge(item: Record, kind: str, manifest: Mapping[str, Any]) -> str:
    """Say which scores of a step speak against a document; where no threshold is known, its first scores."""
    own = {name: value for name, value in item.scores.items() if concerns(kind, name)}
    beyond = [
        f"{short(name)} {number(value)} {cut.sign} {number(cut.value)}"
        for name, value in own.items()
        for cut in thresholds(manifest, name, item.language)
        if cut.beyond(value)
    ]
    return ", ".join(beyond or [f"{short(name)} {number(value)}" for name, value in list(own.items())[:6]])


def scores_section(found: Survey, cuts: Cuts) -> str:
    """Draw how each score is spread, beside its thresholds; those without one stand behind a click."""
    cards: dict[bool, list[str]] = {True: [], False: []}
    for name, values in found.scores.items():
        if len(values):
            cards[name in cuts].append(_card(name, found, cuts.get(name, ())))
    if not any(cards.values()):
        return ""
    with_cuts, without = (f'<div class="grid">{"".join(cards[kind])}</div>' for kind in (True, False))
    shown = with_cuts if cards[True] else ""
    if cards[False]:
        count = plural(len(cards[False]), "score without a threshold", "scores without a threshold")
        shown += disclosure(f"<h3>{count}</h3>", "", without)
    return (
        "<p>How each score is spread over the documents that reached its step. A dashed line is the recipe's "
        "threshold; what lies beyond it goes. Bar heights grow with the square root of the count, so that thin tails "
        "stay visible; the outermost bars hold whatever lies farther out.</p>"
        f"{legend(('kept', 'within the threshold'), ('rejected', 'beyond it'))}{shown}{partial(found)}"
    )


def _card(name: str, found: Survey, own: Sequence[Threshold]) -> str:
    values, scored = found.scores[name], found.scored[name]
    drops = "drops " + " and ".join(f"{cut.drops} {number(cut.value)}" for cut in own) if own else ""
    whole = plural(scored, "scored document")
    sampled = f"{len(values):,} of {whole}" if len(values) < scored else whole
    facts = " · ".join(filter(None, [drops, sampled]))
    chart = histogram(values, own, f"Distribution of {name}: {facts}")
    return f'<figure class="card"><h3>{name_of(name)}</h3><p>{text(facts)}</p>{chart}</figure>'


def lengths_section(found: Survey) -> str:
    """Draw lengths of what passed the rules and what did not."""
    series = [(kind, found.lengths[kind]) for kind in ("kept", "rejected") if kind in found.lengths]
    counts = {kind: int(values.sum()) for kind, values in series}
    if not sum(counts.values()):
        return ""
    said = ", ".join(f"{plural(count, 'document')} {kind}" for kind, count in counts.items())
    chart = lengths(series, LENGTH_EDGES, f"Documents by bytes of text: {said}")
    return (
        "<p>Bytes of UTF-8 text of each document when its fate was decided; two bars for each doubling.</p>"
        f"{legend(('kept', 'passed the rules'), ('rejected', 'dropped by a rule'))}"
        f'<figure class="card">{chart}</figure>{partial(found)}'
    )

"""What a deduplication came to, for a terminal: counts, warnings with what to check, pairs explained by their words.

A job that removes nothing, or nearly everything, has most often been asked the wrong thing: that is said.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .dedup_examples import read_examples
from .dedup_report import percent_of, suspicious
from .dedup_survey import Duplicates, Pair, settings_of, survey_duplicates
from .dedup_texts import DedupTexts, Shown
from .directory import RunDirectory
from .duplicates import Dedup
from .funnel import bytes_text, percent, visible
from .report_parts import plural
from .word_diff import plain, word_diff

TOP = 5  # inputs named
NEARLY_ALL = 0.9


def dedup_summary(manifest: Mapping[str, Any], found: Duplicates, output: str) -> str:
    """Say in some lines what came in, what went and why, what stayed, what each input lost, and where things lie."""
    documents = _documents(manifest)
    dedup = settings_of(manifest)
    kinds = sorted(found.kinds.items(), key=lambda item: (-item[1], item[0]))
    refused = [(f"  {fate}", -int(manifest.get(fate) or 0)) for fate in ("rejected", "quarantined")]
    rows = [("records", int(manifest.get("documents_in") or 0)), *(row for row in refused if row[1])]
    rows = [("documents", documents)] if len(rows) == 1 else [*rows, ("documents", documents)]
    rows += [(f"  {visible(kind)}", -count) for kind, count in kinds]
    rows += [("kept", int(manifest.get("kept") or 0))]
    width = max(len(f"{count:,}") for _, count in rows)
    lines = [f"{name:<14} {count:>{width},}  {percent(abs(count), max(documents, 1)):>7}" for name, count in rows]
    if found.count:
        lines.append(f"{'clusters':<14} {found.count:>{width},}  the largest has {found.largest:,} documents")
    for stage, (cut, spans, size) in found.cuts.items():
        where = plural(cut, "document")
        lines.append(f"{stage:<14} {plural(spans, 'stretch', 'stretches')} with {bytes_text(size)} cut out of {where}")
    lines += _lost(found)
    lines += [f"warning: {line}" for line in warnings(manifest, found, dedup)]
    return "\n".join([*lines, "", *_places(manifest, output)])


def _documents(manifest: Mapping[str, Any]) -> int:
    """Count the documents that deduplication met: what was read, without what was refused."""
    whole = int(manifest.get("documents_in") or 0)
    return whole - int(manifest.get("rejected") or 0) - int(manifest.get("quarantined") or 0)


def _lost(found: Duplicates) -> list[str]:
    """Say what the inputs lost, and to which the most."""
    lost = found.by_source()
    if len(found.entered) <= 1 and len(lost) <= 1:
        return []
    lines = []
    for name, count in lost[:TOP]:
        to, most = max(
            ((to, n) for (of, to), n in found.lost.items() if of == name), key=lambda item: (item[1], item[0])
        )
        share = f" ({percent(count, found.entered[name])} of its own)" if found.entered.get(name) else ""
        whom = "itself" if to == name else visible(to)
        lines.append(f"  {visible(name)} lost {count:,}{share}, {percent(most, count)} of them to {whom}")
    more = len(lost) - TOP
    return lines + ([f"  and {plural(more, 'other input')} lost {sum(n for _, n in lost[TOP:]):,}"] if more > 0 else [])


def warnings(manifest: Mapping[str, Any], found: Duplicates, dedup: Dedup | None) -> list[str]:
    """Say what looks wrong, and what to check."""
    documents, said = _documents(manifest), []
    if documents > 1 and not found.removed:
        said.append(
            "no document was removed: check that the mapped text field holds the text, and that the copies you expect "
            "are in these inputs; `--explain` and the report show what meets, and fewer rows a band meet more"
        )
    elif documents and found.removed > NEARLY_ALL * documents:
        said.append(
            f"{percent(found.removed, documents)} of the documents were removed: check that the text field is not one "
            "that all records share, that no input is named twice, and look at pairs with `--explain`"
        )
    if dedup is not None and (large := suspicious(found, documents, dedup)):
        bounds = f"{dedup.guard.size:,} documents, or {percent_of(dedup.guard.share)} of all"
        held = "" if dedup.guard.split else "; guard: {split: true} keeps joined only what is alike"
        said.append(f"{plural(large, 'cluster is', 'clusters are')} larger than {bounds}{held}")
    for name, count in found.by_source():
        own = found.entered.get(name, 0)
        if own > 1 and count >= own:
            said.append(f"the input {visible(name)} lost all of its {own:,} documents")
    return said


def _places(manifest: Mapping[str, Any], output: str) -> list[str]:
    """Say where things lie."""
    stages = manifest.get("stages") or {}
    lines = []
    for stage, name in (("output", "output"), ("text", "output")):
        if stages.get(stage):
            lines.append(f"{name:<14} {output}/{stage}/{stages[stage]}/data/")
    tables = manifest.get("tables") or {}
    if tables.get("clusters"):
        lines.append(f"{'removed':<14} {output}/{tables['clusters']}")
    if index := manifest.get("index"):
        lines.append(f"{'index':<14} {index['url']}, batch {visible(str(index['batch']))}")
    return [*lines, f"{'report':<14} {output}/report.html"]


def explain(path: str, count: int) -> str:
    """Explain so many removals of a finished run: who went for whom, how similar they are, in which words they differ.

    They are chosen as the report chooses them. Raises RequestError where `path` is no finished run.
    """
    run = RunDirectory.open(path)
    texts = DedupTexts(run.store, run.manifest)
    found = survey_duplicates(run.store, run.manifest, texts)
    found.clusters = []
    read_examples(found, texts, settings_of(run.manifest), max(0, count))
    if not found.pairs:
        return "no document was removed"
    whole = f"{plural(len(found.pairs), 'pair')} of {found.removed:,}"
    return "\n\n".join([*map(_explained, found.pairs), f"{whole}; [-words that went-] {{+words that stayed+}}"])


def _explained(pair: Pair) -> str:
    assert pair.shown is not None
    gone, kept = pair.shown
    similarity = "" if pair.similarity is None else f"  similarity {pair.similarity:.3f}"
    head = [
        f"{pair.kind}{similarity}  cluster of {pair.cluster_size:,}",
        f"  went    {_named(gone, pair.ids[0])}",
        f"  stayed  {_named(kept, pair.ids[1])}",
    ]
    if gone.text is None or kept.text is None:
        return "\n".join([*head, f"  no text: {visible(gone.absent or kept.absent or '')}"])
    body = visible(plain(word_diff(gone.text, kept.text)))
    return "\n".join([*head, *(f"  | {line}" for line in body.splitlines())])


def _named(shown: Shown, id_: bytes) -> str:
    return "  ".join(visible(name) for name in dict.fromkeys(filter(None, (shown.source_id, shown.name, id_.hex()))))

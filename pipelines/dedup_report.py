"""Sections of the report page on duplicates: what went and why, who lost to whom, pairs side by side, clusters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .dedup_charts import curve, curve_points, similarities, size_classes
from .dedup_survey import CLUSTERS, Cluster, Duplicates, Pair
from .dedup_texts import Shown
from .duplicates import Dedup
from .funnel import bytes_text, percent
from .report_charts import stacked, text
from .report_parts import disclosure, plural, sample, shorten, table, url_text
from .report_survey import Record
from .word_diff import Difference, folded, word_diff

MOST_SOURCES = 20
TITLE_CHARACTERS = 120
KINDS = {
    "url": "the same URL", "exact": "the same text", "near": "nearly the same text", "line": "nothing but lines that "
    "stood before", "substring": "nothing but stretches that stood before",
}  # fmt: skip


def duplicates_section(found: Duplicates, documents: int, dedup: Dedup | None) -> str:
    """Say what went, by kind and by size of cluster, how likely a pair was to meet, and which input lost to which."""
    if not found.removed:
        return f"<p>No two documents were found to be the same.</p>{_cuts(found)}"
    parts = [
        _cuts(found),
        f"<p>{plural(found.removed, 'document')} went because others say the same. They form "
        f"{plural(found.count, 'cluster')} with those that stay; {found.cluster_sizes.get(2, 0):,} of the clusters are "
        f"pairs, the largest has {found.largest:,} members.</p>",
        _guard(found, documents, dedup),
        _kinds(found, documents),
        _sizes(found),
        _curve(found, dedup),
        _sources(found),
    ]
    return "\n".join(part for part in parts if part)


def _cuts(found: Duplicates) -> str:
    """Say what was cut out of the documents that stay."""
    return "".join(
        f"<p>{text(stage.capitalize())} that stood before: {plural(spans, 'stretch', 'stretches')} with "
        f"{bytes_text(size)} of text were cut out of {plural(documents, 'document')}.</p>"
        for stage, (documents, spans, size) in found.cuts.items()
    )


def _kinds(found: Duplicates, documents: int) -> str:
    most = max(found.kinds.values())
    rows = [
        (text(KINDS.get(kind, kind)), f"{count:,}", percent(count, documents), percent(count, found.removed),
         stacked([("duplicates", count)], most, kind, height=10))
        for kind, count in sorted(found.kinds.items(), key=lambda item: (-item[1], item[0]))
    ]  # fmt: skip
    head = (("What the document shares with the one that stays", ""), ("Documents", "n"), ("Of all", "n"),
            ("Of those that went", "n"), ("", "w"))  # fmt: skip
    return table(head, rows, "What went, by kind")


def _sizes(found: Duplicates) -> str:
    if not found.count:
        return ""
    classes = size_classes(found.cluster_sizes)
    most = max(count for _, count, _ in classes)
    rows = [
        (name, f"{count:,}", percent(count, found.count), f"{documents:,}",
         stacked([("duplicates", count)], most, f"{name} documents", height=10))
        for name, count, documents in classes
    ]  # fmt: skip
    head = (("Documents in a cluster", ""), ("Clusters", "n"), ("Share", "n"), ("Documents", "n"), ("", "w"))
    return table(head, rows, "Clusters by size")


def _guard(found: Duplicates, documents: int, dedup: Dedup | None) -> str:
    """Warn of clusters that are suspiciously large, by the run's own bounds."""
    large = suspicious(found, documents, dedup)
    if not large or dedup is None:
        return ""
    bounds = f"{dedup.guard.size:,} documents, or {percent_of(dedup.guard.share)} of all"
    said = (
        f'<p class="bad">{plural(large, "cluster is", "clusters are")} larger than {bounds}: look at the pairs below. '
        "Chains of near pairs can join what is not alike.</p>"
    )
    rows = [
        (f"<code>{text(entry['cluster'])}</code>", f"{entry['documents']:,}", f"{entry['contents']:,}",
         f"{entry['removed']:,}", "<br>".join(map(_of_source, sorted(entry["sources"].items()))))
        for entry in found.guarded[:MOST_SOURCES]
    ]  # fmt: skip
    head = (("Cluster", ""), ("Documents", "n"), ("Different texts", "n"), ("Removed", "n"), ("By input", "u"))
    return said + (table(head, rows, "What the guard found, the largest first") if rows else "")


def _of_source(item: tuple[str, Sequence[int]]) -> str:
    name, (lost, whole) = item
    return f"{text(shorten(name))} lost {lost:,} of {whole:,}"


def suspicious(found: Duplicates, documents: int, dedup: Dedup | None) -> int:
    """Count the clusters beyond the guard's bounds."""
    if dedup is None:
        return 0
    size, share = dedup.guard.size, dedup.guard.share * documents
    return sum(count for held, count in found.cluster_sizes.items() if held > size or (held >= 100 and held > share))


def percent_of(share: float) -> str:
    """Write a share that was asked for."""
    return f"{100 * share:g} %"


def _curve(found: Duplicates, dedup: Dedup | None) -> str:
    if dedup is None or dedup.minhash is None:
        return ""
    minhash, verify = dedup.minhash, dedup.verify
    points = ", ".join(f"{at:g}: {percent_of(round(chance, 3))}" for at, chance in curve_points(minhash, verify))
    cut = "" if verify is None else f" A pair that met is compared in full, and holds from a similarity of {verify:g}."
    meets = round(minhash.match_probability(minhash.threshold), 3)
    chart = curve(minhash, verify, f"Chance that a pair meets, by its similarity: {points}")
    made = (
        '<h3>How likely a pair was to meet</h3><p class="note">Jaccard similarity of '
        f"{text(minhash.ngram)}-grams of {text(minhash.unit)}, {minhash.bands} bands of {minhash.rows} values. "
        f"At the threshold, (1/{minhash.bands})^(1/{minhash.rows}), {percent_of(meets)} of the pairs meet.{cut}</p>"
        f'<figure class="card">{chart}<p>Chance of a match</p></figure>'
    )
    if not found.similarities.any():
        return made
    whole = int(found.similarities.sum())
    what = plural(whole, "near pair")
    if found.sampled is not None:
        what = f"{what} chosen by hash, compared in full for this page"
    drawn = similarities(found.similarities, f"Similarity of what went to what stayed: {what}")
    note = "Bar heights grow with the square root of the count."
    return f'{made}<figure class="card">{drawn}<p>Similarity of what went to what stayed: {what}. {note}</p></figure>'


def _sources(found: Duplicates) -> str:
    """Draw which input lost how many documents in favour of which."""
    lost = found.by_source()
    if not lost:
        return ""
    names = sorted({name for _, name in found.lost})
    if len(lost) == 1 and names == [lost[0][0]] and len(found.entered) <= 1:
        return f'<p class="note">All were lost in favour of documents of the same input, {text(names[0])}.</p>'
    weights = {name: sum(count for (_, to), count in found.lost.items() if to == name) for name in names}
    kept = sorted(names, key=lambda name: (-weights[name], name))[:MOST_SOURCES]
    rows = [_lost(found, name, count, kept) for name, count in lost[:MOST_SOURCES]]
    whole = sum(count for _, count in lost)
    if len(lost) > MOST_SOURCES:
        rest = sum(count for _, count in lost[MOST_SOURCES:])
        others = plural(len(lost) - MOST_SOURCES, "other input")
        rows.append((others, f"{rest:,}", "", *[""] * len(kept), *([""] if len(names) > len(kept) else [])))
    more = [("others", "n")] if len(names) > len(kept) else []
    heads = [(f"to {text(shorten(name, 40))}", "n") for name in kept]
    head = (("Input", ""), ("Lost", "n"), ("Of its own", "n"), *heads, *more)
    return "<h3>Which input lost to which</h3>" + table(
        head, rows, f"{plural(whole, 'document')} that went, by their input and by that of the document that stayed"
    )


def _lost(found: Duplicates, name: str, count: int, kept: Sequence[str]) -> Sequence[str]:
    """Draw what one input lost: in all, as a share of its own documents, and to each of the others."""
    cells = [found.lost.get((name, to), 0) for to in kept]
    rest = count - sum(cells)
    shares = [f"{cell:,} <span class=soft>{percent(cell, count)}</span>" if cell else "" for cell in cells]
    more = {to for _, to in found.lost} - set(kept)
    own = percent(count, found.entered[name]) if name in found.entered else ""
    return (text(shorten(name)), f"{count:,}", own, *shares, *([f"{rest:,}" if rest else ""] if more else []))


def pairs_section(found: Duplicates) -> str:
    """Show pairs side by side, the words in which they differ marked."""
    if not found.pairs:
        return ""
    blocks = "".join(_pair(pair) for pair in found.pairs)
    key = (
        '<p class="legend"><span><del>only in the one that went</del></span> '
        "<span><ins>only in the one that stayed</ins></span></p>"
    )
    return (
        "<p>Documents that went beside the ones that stayed for them, chosen by a hash of their ids and spread over "
        f"how similar they are. Equal words far from a difference are folded.</p>{key}\n{blocks}"
    )


def _pair(pair: Pair) -> str:
    assert pair.shown is not None
    gone, kept = pair.shown
    facts = [KINDS.get(pair.kind, pair.kind)]
    if pair.similarity is not None and pair.kind == "near":
        facts.append(f"similarity {pair.similarity:.3f}")
    difference: Difference | None = None
    if gone.text is not None and kept.text is not None:
        difference = word_diff(gone.text, kept.text)
        facts.append(_said(difference, gone.text == kept.text))
    facts.append(f"of a cluster of {pair.cluster_size:,}")
    heading = f'<h3 class="url" dir="auto">{text(shorten(gone.title, TITLE_CHARACTERS))}</h3>'
    sides = "".join(
        f'<div><p class="meta">{name}</p>{_names(shown)}{_side(shown, difference, where)}</div>'
        for name, shown, where in (("went", gone, "removed"), ("stayed", kept, "kept"))
    )
    body = f'<p class="meta">{text(" · ".join(facts))}</p><div class="pair">{sides}</div>'
    count = facts[1] if pair.kind == "near" and pair.similarity is not None else pair.kind
    return disclosure(heading, text(count), body)


def _said(difference: Difference, same: bool) -> str:
    if same:
        return "the same, character by character"
    if not difference.removed and not difference.kept:
        return "they differ in white space alone" if difference.whole else "no difference in what was compared"
    words = f"{plural(difference.removed, 'word')} against {difference.kept:,}"
    return words if difference.whole else f"{words} up to where they were compared"


def _names(shown: Shown) -> str:
    lines = dict.fromkeys(filter(None, (shown.source_id, shown.url, shown.name)))
    return "".join(f'<p class="url" dir="auto">{url_text(line)}</p>' for line in lines)


def _side(shown: Shown, difference: Difference | None, where: Any) -> str:
    if shown.text is None:
        return f'<p class="note">No text here: {text(shown.absent or "it could not be read")}.</p>'
    if difference is None:
        return sample(shown.text)
    return f'<pre dir="auto">{"".join(_stretches(difference, where))}</pre>'


def _stretches(difference: Difference, where: Any) -> Iterable[str]:
    tags = {"both": ("", ""), "removed": ("<del>", "</del>"), "kept": ("<ins>", "</ins>")}
    for number, stretch in enumerate(difference.side(where)):
        if stretch.text is None:
            yield f'{" " if number else ""}<span class="soft">{text(folded(stretch))}</span>'
            continue
        before, after = tags[stretch.where]
        body = stretch.text.lstrip()
        gap = stretch.text[: len(stretch.text) - len(body)] if number else ""
        yield f"{gap}{before}{text(body)}{after}"


def clusters_section(found: Duplicates, records: Mapping[bytes, Record]) -> str:
    """Show the largest clusters, each with the text of one copy."""
    if not found.clusters:
        return ""
    shown = "".join(_cluster(cluster, records) for cluster in found.clusters[:CLUSTERS])
    return f"<p>The largest {len(found.clusters)}, each with the text of one dropped copy.</p>\n{shown}"


def _cluster(cluster: Cluster, records: Mapping[bytes, Record]) -> str:
    kept = records.get(cluster.kept)
    title = cluster.names.get(cluster.kept) or ((kept.url or kept.where) if kept else cluster.kept.hex())
    rows = [("kept", *_member(cluster, cluster.kept, kept))]
    rows += [("dropped", *_member(cluster, name, records.get(name))) for name, _, _ in cluster.members]
    left = cluster.size - len(rows)
    note = f'<p class="note">and {plural(left, "other copy", "other copies")}</p>' if left > 0 else ""
    members = table((("", ""), ("Document", "u"), ("Bytes", "n")), rows, "Members")
    heading = f'<h3 class="url" dir="auto">{text(shorten(title, TITLE_CHARACTERS))}</h3>'
    return disclosure(heading, f"{cluster.size:,} copies", f"{members}{note}{sample(cluster.text)}")


def _member(cluster: Cluster, name: bytes, item: Record | None) -> tuple[str, str]:
    own = cluster.names.get(name)
    if item is None:
        return (f'<span class="url" dir="auto">{url_text(own)}</span>' if own else f"<code>{name.hex()}</code>"), ""
    lines = dict.fromkeys(filter(None, (own, item.url or item.where)))
    return f'<span class="url" dir="auto">{"<br>".join(map(url_text, lines))}</span>', bytes_text(item.bytes)

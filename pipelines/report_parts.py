"""Pieces of HTML that the sections of the report share. What comes from documents passes through `text` or these."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .funnel import bytes_text
from .report_charts import text
from .report_survey import Record, Survey

TEXT_CHARACTERS = 700
URL_CHARACTERS = 300


def plural(count: int, one: str, more: str = "") -> str:
    """Write a count with its noun."""
    return f"{count:,} {one if count == 1 else more or one + 's'}"


def shorten(value: str, characters: int = URL_CHARACTERS) -> str:
    """Cut a text, and say that it goes on."""
    return value if len(value) <= characters else value[:characters] + " …"


def name_of(name: str) -> str:
    """Write the name of a rule, score or stream, which may break at its joints."""
    joined = text(name)
    for joint in "/._":
        joined = joined.replace(joint, f"{joint}<wbr>")
    return f"<code>{joined}</code>"


def swatch(kind: str) -> str:
    """Draw a colour's key."""
    return f'<svg width="12" height="12" aria-hidden="true"><rect class="{kind}" width="12" height="12" rx="2"/></svg>'


def legend(*entries: tuple[str, str]) -> str:
    """Say what colours mean."""
    return '<p class="legend">' + "".join(f"<span>{swatch(kind)}{name}</span>" for kind, name in entries) + "</p>"


def table(head: Sequence[tuple[str, str]], rows: Iterable[Sequence[str]], caption: str) -> str:
    """Draw a table that scrolls inside its own box; `head` gives (title, class of the column); cells are HTML."""
    kinds = [f' class="{kind}"' if kind else "" for _, kind in head]
    titles = "".join(f'<th scope="col"{kind}>{title}</th>' for (title, _), kind in zip(head, kinds, strict=True))
    lines = []
    for first, *others in rows:
        cells = "".join(f"<td{kind}>{cell}</td>" for cell, kind in zip(others, kinds[1:], strict=True))
        lines.append(f'<tr><th scope="row"{kinds[0]}>{first}</th>{cells}</tr>')
    return (
        f'<div class="scroll" role="region" aria-label="{text(caption)}" tabindex="0">'
        f"<table><caption>{text(caption)}</caption><thead><tr>{titles}</tr></thead>"
        f"<tbody>{''.join(lines)}</tbody></table></div>\n"
    )


def disclosure(title: str, count: str, body: str) -> str:
    """Draw a part that opens at a click: a title in HTML, a count at its right, a body."""
    head = f'<summary>{title}<span class="count">{count}</span></summary>'
    return f'<details>{head}<div class="inner">{body}</div></details>\n'


def url_text(value: str) -> str:
    """Write a URL, never as a link: what was dropped was often dropped for a reason."""
    return text(shorten(value))


def sample(value: str | None) -> str:
    """Show the beginning of a document's text."""
    return f'<pre dir="auto">{text(shorten(value, TEXT_CHARACTERS))}</pre>' if value else ""


def document(item: Record, more: str = "") -> str:
    """Show one record: URL, place, language, size, what else is said of it, text."""
    facts = [item.where, item.language or "", bytes_text(item.bytes), more]
    url = f'<p class="url" dir="auto">{url_text(item.url)}</p>' if item.url else ""
    meta = " · ".join(text(shorten(fact)) for fact in facts if fact)
    return f'<article>{url}<p class="meta">{meta}</p>{sample(item.text)}</article>'


def partial(found: Survey) -> str:
    """Say so where only a part of the ledger was read."""
    if found.parts_read >= found.parts:
        return ""
    parts = f"{found.parts_read:,} of {found.parts:,} parts, chosen by hash"
    return f'<p class="note">Drawn from {found.rows_read:,} records: {parts}.</p>'

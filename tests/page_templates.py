"""What a page must and must not give, by the templates its site was made with: truth for scoring extractors.

The templates were written by looking at the pages, not at what any extractor makes of them. Of each page come segments:
texts of the content (paragraphs, items, headings, cells), code blocks, table rows, and texts of the page's furniture
(navigation, side bars, headers, footers) that the content does not hold.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Template(NamedTuple):
    """Which sites, what is content there, and what is furniture, inside the content or beside it."""

    sites: str
    content: str
    furniture: str


_DOCBOOK = ".navheader, .navfooter, .spirit-nav"
_SPHINX = (
    ".sphinxsidebar, .related, .footer, footer, nav, .mobile-nav, .headerlink, .bd-sidebar, .bd-toc, .prev-next-area"
)
_JAVADOC = "nav, .topNav, .subNav, .bottomNav, .legalCopy, .legal-copy, .skipNav, noscript"
TEMPLATES = (
    Template("postgresql|gimp-help|installation-guide|aptitude|maint-guide|apt-doc|debian-faq", "body", _DOCBOOK),
    Template("db5.3", "div.sect1, div.chapter, div.sect2", _DOCBOOK),
    Template("debian-handbook|harden-doc", "body", "#banner, #title, .docnav"),
    Template("linux-doc|python3.11|scipy|sklearn|sympy|statsmodels|astropy", "div.body, [role=main]", _SPHINX),
    Template("pandas", "main", _SPHINX),
    Template("django", "#yui-main", "#hd, #sidebar, #ft, .headerlink"),
    Template("javadoc-|openjdk", "main, .contentContainer", _JAVADOC),
    Template("libreoffice-help", "#DisplayArea", "#TopHeader, #SearchFrame, #Index, #leftside, #BottomLeft, footer"),
    Template("sqlite3", "body", ".menu, .searchmenu, .tagline, .fancy_toc"),
    Template("octave|maxima", "body", ".header, .nav-panel"),
    Template("lilypond", "#main", "#tocframe, #footer, .nav_table"),
    Template("apache2", "#page-content", "#page-header, #path, #quickview, .toplang, .bottomlang, #footer, .up"),
    Template("libstdc", "div.contents", "#top, #nav-path, .footer"),
    Template("racket", "div.main", ".tocset, .navsettop, .navsetbottom, .versionbox"),
    Template("erlang", "#content", "#leftnav, .topbar"),
    Template("rust-web", "main", "nav, .sidebar, .nav-chapters, #menu-bar, .nav-wrapper"),
    Template("udhr", "body", ""),
)
_TEXT_TAGS = ("p", "li", "dt", "dd", "h1", "h2", "h3", "h4", "h5", "h6", "td", "th")
_FURNITURE_TAGS = ("a", "p", "li", "td", "span", "h1", "h2", "h3")
_BLOCKS = {*_TEXT_TAGS, "ul", "ol", "dl", "table", "div", "pre", "section", "article", "blockquote", "form", "br"}
_SILENT = {"script", "style", "noscript", "template", "head", "button"}
_ODD = re.compile(r"[\s¶\u200b\u00ad]+")
LEAST = 20  # characters of a text, 10 of furniture
MOST = 12  # segments of a kind on a page


@dataclass
class Page:
    """What is asked of the text of one page."""

    url: str
    html: str
    must: list[str] = field(default_factory=list)  # squeezed, in the page's order
    must_not: list[str] = field(default_factory=list)  # squeezed
    code: list[str] = field(default_factory=list)  # with its line breaks
    rows: list[list[str]] = field(default_factory=list)  # squeezed cells


def squeezed(text: str) -> str:
    """Leave out what extractors set as they like: space, and the pilcrows of permanent links."""
    return _ODD.sub("", text)


class Node(NamedTuple):
    """An element, once its page is parsed: a plain copy, because the parser's own tree is slow to ask."""

    tag: str
    names: frozenset[str]  # tag, .class, #id, tag.class and [role=value]
    children: tuple[Node | str, ...]

    @property
    def text(self) -> str:
        """Join the texts inside."""
        return "".join(child if isinstance(child, str) else child.text for child in self.children)

    def within(self) -> Iterator[Node]:
        """Give the elements inside, in the page's order."""
        for child in self.children:
            if isinstance(child, Node):
                yield child
                yield from child.within()

    def without(self, unwanted: frozenset[str], gone: list[Node]) -> Node:
        """Leave out the elements of these names; they are added to `gone`."""
        kept: list[Node | str] = []
        for child in self.children:
            if isinstance(child, str):
                kept.append(child)
            elif child.names & unwanted:
                gone.append(child)
            else:
                kept.append(child.without(unwanted, gone))
        return Node(self.tag, self.names, tuple(kept))


def parse(html: str) -> Node:
    """Parse a page; give its body."""
    from resiliparse.parse.html import HTMLTree, NodeType

    def copy(node: Any) -> Node:
        children: list[Node | str] = []
        child = node.first_child
        while child is not None:
            if child.type == NodeType.TEXT:
                children.append(child.text)
            elif child.type == NodeType.ELEMENT and child.tag not in _SILENT and not child.hasattr("hidden"):
                children.append(copy(child))
            child = child.next
        classes = [f".{name}" for name in node.class_list]
        names = [
            node.tag,
            *classes,
            *(node.tag + name for name in classes),
            f"#{node.id}",
            f"[role={node.getattr('role')}]",
        ]
        return Node(node.tag, frozenset(names), tuple(children))

    return copy(HTMLTree.parse(html).body)


def label(url: str, html: str) -> Page | None:
    """Label a page by its site's template; None where there is none for it, or no content."""
    template = next((one for one in TEMPLATES if re.search(one.sites, url.split("/")[2])), None)
    if template is None:
        return None
    gone: list[Node] = []
    body = parse(html).without(_names(template.furniture), gone)
    root = next((node for node in (body, *body.within()) if node.names & _names(template.content)), None)
    if root is None:
        return None
    page, whole = Page(url, html), squeezed(root.text)
    page.must = _chosen(
        url, [text for text in map(squeezed, _leaves([root], _TEXT_TAGS, links=False)) if len(text) >= LEAST]
    )
    furniture = [text for text in map(squeezed, _leaves(gone, _FURNITURE_TAGS, links=True)) if len(text) >= LEAST // 2]
    page.must_not = [text for text in _chosen(url, furniture) if text not in whole]
    code = [node.text for node in root.within() if node.tag == "pre"]
    page.code = _chosen(url, [text for text in code if len(squeezed(text)) >= LEAST])
    page.rows = _chosen(url, list(_rows(root)))
    return page if page.must else None


def _names(selectors: str) -> frozenset[str]:
    return frozenset(selectors.split(", ")) - {""}


def _leaves(nodes: Iterable[Node], tags: Container[str], *, links: bool) -> Iterator[str]:
    """Give the texts of elements of these tags that hold no block and no line break; without `links`, no mere links."""
    for node in nodes:
        for leaf in (node, *node.within()):
            if leaf.tag in tags and not any(child.tag in _BLOCKS for child in leaf.within()):
                linked = sum(len(child.text) for child in leaf.within() if child.tag == "a")
                if links or 2 * linked <= len(leaf.text):
                    yield leaf.text


def _rows(root: Node) -> Iterator[list[str]]:
    for node in root.within():
        if node.tag == "tr":
            cells = [child for child in node.children if isinstance(child, Node) and child.tag in ("td", "th")]
            texts = [squeezed(cell.text) for cell in cells]
            nested = any(inner.tag in _BLOCKS - {"p", "div"} for cell in cells for inner in cell.within())
            if len(cells) > 1 and all(texts) and not nested:
                yield texts


def _chosen(url: str, found: list[Any]) -> list[Any]:
    """Take a few, by a hash, in the page's order; none twice."""
    once = list({repr(item): item for item in found}.items())
    ranked = sorted(once, key=lambda item: hashlib.sha256(f"{url}{item[0]}".encode()).digest())[:MOST]
    kept = {key for key, _ in ranked}
    return [item for key, item in once if key in kept]


@dataclass
class Score:
    """Counts over pages; `shares` divides."""

    counts: dict[str, list[int]] = field(default_factory=dict)

    def add(self, name: str, hits: int, of: int) -> None:
        """Count so many hits of so many."""
        entry = self.counts.setdefault(name, [0, 0])
        entry[0] += hits
        entry[1] += of

    def shares(self) -> dict[str, float]:
        """Give each count as a share, in percent."""
        return {name: round(100 * hits / of, 2) for name, (hits, of) in self.counts.items() if of}


def score(page: Page, text: str, into: Score, group: str = "") -> None:
    """Hold a page's extracted text against what is asked of it."""
    body = squeezed(text)
    places = [body.find(segment) for segment in page.must]
    found = [place for place in places if place >= 0]
    into.add(f"{group}must_have", len(found), len(places))
    into.add(f"{group}must_not_have", sum(segment in body for segment in page.must_not), len(page.must_not))
    into.add(f"{group}in_order", sum(map(int.__le__, found, found[1:])), max(len(found) - 1, 0))
    into.add(f"{group}code", sum(_holds_code(text, code) for code in page.code), len(page.code))
    lines = [squeezed(line) for line in text.splitlines()]
    into.add(f"{group}table_rows", sum(_holds_row(lines, row) for row in page.rows), len(page.rows))


def _holds_code(text: str, code: str) -> bool:
    """Say whether code stands there line by line, its inner indentation kept (the whole may be moved)."""
    code, text = (one.replace("\xa0", " ").replace("\u200b", "") for one in (code, text))
    wanted = [line.rstrip() for line in code.expandtabs().strip("\n").splitlines() if line.strip()]
    lines = [line.rstrip() for line in text.expandtabs().splitlines() if line.strip()]
    least = min(len(line) - len(line.lstrip()) for line in wanted)
    first = wanted[0][least:]
    for at, line in enumerate(lines):
        if line.endswith(first):
            moved = len(line) - len(first)
            here = lines[at : at + len(wanted)]
            if [one[moved:] if one[:moved].strip() == "" else one for one in here] == [one[least:] for one in wanted]:
                return True
    return False


def _holds_row(lines: list[str], row: list[str]) -> bool:
    """Say whether the cells of a row stand in one line in their order."""
    for line in lines:
        at = 0
        for cell in row:
            at = line.find(cell, at)
            if at < 0:
                break
            at += len(cell)
        else:
            return True
    return False

"""Make `quickstart.warc.gz` from a larger crawl: `python make_quickstart.py web.warc.gz`.

Records are copied byte for byte, in the crawl's order, with the requests and 404 answers beside them. Packages are
chosen by licence (NOTICE credits them); of each, some pages that the quickstart's rules keep and some that they do not,
by the hash of their address. Javadoc is taken as the same page of two or three versions: near-duplicates.
"""

from __future__ import annotations

import hashlib
import re
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from penstock.transforms import C4Quality, ExtractHtml, FineWebQuality, GopherQuality, GopherRepetition, LanguageId
from penstock.transforms.readers import Piece, list_files, read

STEPS = [
    ExtractHtml(),
    LanguageId(minimum=0.65),
    GopherRepetition(),
    GopherQuality(min_stop_words=None),
    C4Quality(filter_no_terminal_punct=False),
    FineWebQuality(),
]
LEGAL = ("postgresql-doc-15/html/legalnotice.html", "sqlite3/copyright.html", "debian-handbook/html/de-DE/index.html")


class Group(NamedTuple):
    """Pages whose addresses match (up to the page's name), how many that are kept, and how many that are not."""

    pattern: str
    kept: int
    others: int
    versions: int = 1  # a page is taken in all of them


HANDBOOK = (
    "ar-MA ca-ES cs-CZ da-DK de-DE el-GR es-ES fa-IR fr-FR hr-HR id-ID it-IT ja-JP ko-KR nb-NO nl-NL pl-PL pt-BR ro-RO"
)
HELP = "ca cs da de el es et eu fi fr hi hu id it ja ko nl pl pt pt-br ru sv tr vi zh-cn zh-tw"
GROUPS = [
    Group("debian-handbook.*/html/en-US/", 10, 1),
    *(
        Group(f"debian-handbook.*/html/{language}/", 4, 1)
        for language in f"{HANDBOOK} ru-RU sv-SE tr-TR vi-VN zh-CN zh-TW".split()
    ),
    *(Group(rf"libreoffice-help-{language}\.docs", 3, 1) for language in HELP.split()),
    Group(r"libreoffice-help-en-(us|gb)\.docs", 16, 2),
    Group("sqlite3-doc", 70, 8),
    Group("postgresql-doc-15", 54, 12),
    Group("apache2-doc", 14, 8),
    Group("rust-web-doc", 14, 5),
    Group("javadoc-lucene-core-9", 9, 3, 2),
    Group("javadoc-commons-io-2", 7, 3, 2),
    Group("javadoc-commons-lang3-3.1[34]", 2, 4, 2),
    Group("javadoc-guava-3", 4, 2, 3),
    Group("javadoc-jsoup-1", 3, 3, 2),
]


def members(crawl: bytes) -> Iterator[tuple[int, int, str, str]]:
    """Yield (start, end, record type, address) of each gzip member."""
    at = 0
    while at < len(crawl):
        inflate = zlib.decompressobj(31)
        head = inflate.decompress(crawl[at : at + (1 << 20)]).split(b"\r\n\r\n", 1)[0].decode()
        end = at + (1 << 20)
        while not inflate.eof:
            inflate.decompress(crawl[end : end + (1 << 20)])
            end += 1 << 20
        end = min(end, len(crawl)) - len(inflate.unused_data)
        fields = dict(line.split(": ", 1) for line in head.split("\r\n")[1:])
        yield at, end, fields["WARC-Type"], fields.get("WARC-Target-URI", "")
        at = end


def kept_pages(path: str) -> set[str]:
    """The addresses of the pages that the rules keep."""
    (entry,) = list_files(path)
    kept: set[str] = set()
    for outcome in read(Piece(entry.url, "web", entry.path, "warc", entry.size)):
        batch = outcome.batch.filter(outcome.reasons.is_null())
        for step in STEPS:
            done = step.apply(batch)
            batch = done.batch.filter(done.reasons.is_null())
        kept.update(batch.column("url").to_pylist())
    return kept


def choose(sizes: dict[str, int], kept: set[str]) -> set[str]:
    """Choose pages group by group; a page of several versions is known by its path."""
    chosen = {url for url in sizes if url.endswith(LEGAL)}
    for group in GROUPS:
        pages: dict[str, list[str]] = {}
        for url in sizes:
            if re.match(f"https://{group.pattern}", url):
                name = url if group.versions == 1 else url.split("/", 3)[3]
                pages.setdefault(name, []).append(url)
        pages = {name: urls for name, urls in pages.items() if len(urls) == group.versions}
        order = sorted(pages, key=lambda name: hashlib.sha256(name.encode()).digest())
        good = [name for name in order if all(url in kept and sizes[url] < 16_000 for url in pages[name])]
        rest = [name for name in order if all(url not in kept and sizes[url] < 4_000 for url in pages[name])]
        chosen.update(url for name in good[: group.kept] + rest[: group.others] for url in pages[name])
    return chosen


def main(path: str) -> None:
    """Write the file beside this script."""
    crawl = Path(path).read_bytes()
    found = list(members(crawl))
    sizes = {url: end - start for start, end, kind, url in found if kind == "response" and not url.endswith(".missing")}
    chosen = choose(sizes, kept_pages(path))
    hosts = {url.split("/")[2] for url in chosen}
    about = b"description: a selection of pages; NOTICE says whose\r\nformat: WARC File Format 1.0\r\n"
    info = (
        b"WARC/1.0\r\nWARC-Type: warcinfo\r\nWARC-Date: 2024-01-01T00:00:00Z\r\nWARC-Filename: quickstart.warc.gz\r\n"
    )
    info += (
        b"WARC-Record-ID: <urn:uuid:6f1d1f0a-3c0e-5d7e-9b1a-70656e73746f>\r\nContent-Type: application/warc-fields\r\n"
    )
    info += b"Content-Length: %d\r\n\r\n%s\r\n\r\n" % (len(about), about)
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    out, missing = bytearray(packer.compress(info) + packer.flush()), 0
    for start, end, _, url in found:
        lost = url.endswith(".missing") and url.split("/")[2] in hosts and missing < 12
        missing += lost
        if url in chosen or lost:
            out += crawl[start:end]
    (Path(__file__).parent / "quickstart.warc.gz").write_bytes(out)
    print(f"{len(chosen)} pages, {missing} answers of 404, {len(out)} bytes")


if __name__ == "__main__":
    main(sys.argv[1])

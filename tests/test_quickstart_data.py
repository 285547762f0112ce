"""The crawl that ships with the examples: small, of several languages, and every page of it credited."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from read_rows import errors, rows_of

ROOT = Path(__file__).parents[1]
CRAWL = ROOT / "examples" / "data" / "quickstart.warc.gz"


def test_the_quickstart_crawl_is_credited_page_by_page() -> None:
    assert CRAWL.stat().st_size <= 2_000_000
    rows = rows_of(CRAWL)
    pages = [row["url"] for row in rows if row["reason"] is None]
    assert not errors(rows)
    assert (len(rows), len(pages)) == (527, 515)
    assert Counter(row["reason"] for row in rows) == {None: 515, "read/http_status": 12}
    notice = (ROOT / "NOTICE").read_text(encoding="utf-8")
    credits = re.findall(r"^(\S+\.docs\.example) \((\d+) pages", notice, re.MULTILINE)
    found: Counter[str] = Counter()
    for url in pages:
        host = url.split("/")[2]
        (name,) = [name for name, _ in credits if re.fullmatch(re.sub("LANGUAGE|VERSION", r"[a-z0-9.-]+", name), host)]
        found[name] += 1
    assert dict(found) == {name: int(count) for name, count in credits}


def test_the_quickstart_crawl_has_the_same_page_of_several_versions() -> None:
    paths = Counter(row["url"].split("/", 3)[3] for row in rows_of(CRAWL) if "//javadoc-" in row["url"] and row["html"])
    assert sum(count > 1 for count in paths.values()) >= 30

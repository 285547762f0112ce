"""URLs meet block lists: as datatrove decides, as UT1 means it, and as a slow oracle in plain Python says."""

from __future__ import annotations

import doctest
import gzip
import json
import pickle
import random
import re
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pydantic
import pytest

from penstock import InputError
from penstock.transforms import block_lists, urls
from penstock.transforms.kernels.aho_corasick import build_automaton, columns_of, count_patterns
from penstock.transforms.kernels.urls import registered
from penstock.transforms.urls import UrlFilter

GOLDEN = json.loads((Path(__file__).parent / "data" / "datatrove_urls.json").read_text("utf-8"))
LISTS: dict[str, list[str]] = {
    "domains": ["bad.example", "Casino.co.uk.", "*.wild.org", "10.0.0.1", "xxx", "слот.рф", "www.shown.net"],
    "hosts": ["only.example.net", "[::1]"],
    "urls": ["https://www.fine.org/A/?x=1", "fine.org:8080/b/", "HTTP://u:p@fine.org:443/c#d", "fine.org"],
    "hard_words": ["hard", "2 Hard-1"],
    "soft_words": ["soft", "tender", "mild", "hard", "five", "six"],
    "subwords": ["hidden gem", "dengem", "emx"],
}


@pytest.fixture
def fields(tmp_path: Path) -> dict[str, Any]:
    """The lists as files, with the comments, space and line ends that lists have."""
    return written(tmp_path, LISTS)


def written(folder: Path, lists: dict[str, list[str]]) -> dict[str, Any]:
    for name, values in lists.items():
        (folder / name).write_bytes(f"# {name}\r\n\n".encode() + "\r\n".join(f"  {each} " for each in values).encode())
    return {name: str(folder / name) for name in lists}


def batch(values: Sequence[str | None], kind: pa.DataType | None = None) -> pa.RecordBatch:
    return pa.record_batch({"row": pa.array(range(len(values))), "url": pa.array(values, kind or pa.string())})


def made(**fields: Any) -> UrlFilter:
    return UrlFilter(**fields)


def reasons(step: UrlFilter, values: Sequence[str | None]) -> list[str | None]:
    return [reason and reason.partition("/")[2] for reason in step.reasons(batch(values)).to_pylist()]


# What others decide


def test_decides_as_datatrove_does(tmp_path: Path) -> None:
    step = UrlFilter(variant="fineweb", **written(tmp_path, GOLDEN["lists"]))
    decided = dict(zip(GOLDEN["urls"], reasons(step, GOLDEN["urls"]), strict=True))
    assert decided == dict(zip(GOLDEN["urls"], GOLDEN["rules"], strict=True))
    assert len(set(GOLDEN["rules"])) == 7  # each of the six rules, and none


def test_registered_domains_are_those_of_the_public_suffix_list() -> None:
    """The list's own examples (https://publicsuffix.org/list/), and names in Unicode and punycode."""
    for host, expected in {
        "com": None, "example.com": "example.com", "b.example.com": "example.com", "a.b.example.com": "example.com",
        "uk": None, "co.uk": None, "example.co.uk": "example.co.uk", "c.kobe.jp": None, "b.c.kobe.jp": "b.c.kobe.jp",
        "a.b.c.kobe.jp": "b.c.kobe.jp", "city.kobe.jp": "city.kobe.jp", "www.city.kobe.jp": "city.kobe.jp",
        "ck": None, "test.ck": None, "b.test.ck": "b.test.ck", "www.ck": "www.ck", "www.www.ck": "www.ck",
        "blogspot.com": "blogspot.com", "x.blogspot.com": "blogspot.com", "nosuchsuffix": None, "a.nosuchsuffix": None,
        "shishi.公司.cn": "shishi.公司.cn", "www.xn--85x722f.xn--55qx5d.cn": "xn--85x722f.xn--55qx5d.cn",
    }.items():  # fmt: skip
        data = np.frombuffer(host.encode(), np.uint8)
        at = registered(block_lists.public_suffixes(), data, 0, len(data))
        assert (None if at < 0 else bytes(data[at:]).decode()) == expected, host


# What a list means here


@pytest.mark.parametrize(
    ("url", "rule", "match"),
    [
        ("http://bad.example/", "domain", "bad.example"),
        ("HTTPS://a.b.BAD.example.:99/x", "domain", "bad.example"),
        ("http://notbad.example/", None, None),
        ("http://bad.example.org/", None, None),
        ("//u:p@x@casino.co.uk", "domain", "casino.co.uk"),
        ("sub.wild.org/x", "domain", "wild.org"),
        ("http://10.0.0.1/", "domain", "10.0.0.1"),
        ("http://9.10.0.0.1/", None, None),
        ("http://any.thing.xxx", "domain", "xxx"),
        ("http://слот.рф/x", "domain", "xn--k1aghg.xn--p1ai"),
        ("http://СЛОТ。рф/x", "domain", "xn--k1aghg.xn--p1ai"),
        ("http://xn--k1aghg.xn--p1ai", "domain", "xn--k1aghg.xn--p1ai"),
        ("http://shown.net/", "domain", "www.shown.net"),
        ("http://other.shown.net/", None, None),
        ("http://only.example.net", "subdomain", "only.example.net"),
        ("http://www.only.example.net", "subdomain", "only.example.net"),
        ("http://below.only.example.net", None, None),
        ("http://[::1]:80/", "subdomain", "[::1]"),
        ("http://fine.org/a/?x=1#top", "url", "fine.org/a/?x=1"),
        ("https://www.fine.org:8080/b", "url", "fine.org:8080/b"),
        ("http://fine.org/b", None, None),
        ("fine.org/C/", "url", "fine.org/c"),
        ("http://www.fine.org", "url", "fine.org"),
        ("http://fine.org/d", None, None),
        ("http://ok.org/HARD", "hard_blacklisted", "hard"),
        ("http://ok.org/a%20hard%2Fb", "hard_blacklisted", "hard"),
        ("http://ok.org/harder", None, None),
        ("http://ok.org/2Hard1", "hard_blacklisted", "2hard1"),
        ("http://ok.org/soft-soft", None, None),
        ("http://ok.org/soft-Tender", "soft_blacklisted", "tender, soft"),
        ("http://ok.org/soft-tender-mild-five-six", "soft_blacklisted", "six, five, mild, tender"),
        ("http://hid.den/GE_M", "blacklisted_subword", "hiddengem"),
        ("http://xden.gem", "blacklisted_subword", "dengem"),
        ("", None, None),
        (None, None, None),
        ("\x00", None, None),
        ("http://", None, None),
        ("漢字", None, None),
        ("http://ok.org/" + "x" * (1 << 20), None, None),
        ("http://ok.org/\n\n\n", None, None),
        ("http://ok.org/🙂/مرحبا", None, None),
    ],
)
def test_what_a_list_bans(fields: dict[str, Any], url: str | None, rule: str | None, match: str | None) -> None:
    outcome = UrlFilter(**fields).apply(batch([url]))
    assert outcome.reasons.to_pylist() == [rule and f"url_filter/{rule}"]
    assert outcome.batch["url_filter.match"].to_pylist() == [match]


def test_dclm_looks_at_hosts_alone_and_takes_the_underscore_for_a_letter(fields: dict[str, Any]) -> None:
    step = UrlFilter(variant="dclm", **{**fields, "hosts": ()})
    for url, rule in {
        "http://bad.example/": "domain",
        "http://www.bad.example": "domain",
        "http://a.bad.example": None,
        "http://ok.org/a_hard": None,
        "http://ok.org/a-HARD": "hard_blacklisted",
        "http://ok.org/hid-den.gem": "blacklisted_subword",
        "http://ok.org/hid_dengem": "blacklisted_subword",
        "http://ok.org/hidd_en/gem": None,
    }.items():
        assert reasons(step, [url]) == [rule], url


def oracle(url: str, threshold: int = 2) -> str | None:
    """Decide by the default variant on ASCII URLs, slowly."""
    text = url.strip("".join(map(chr, range(33)))).lower()
    rest = re.sub(r"^(?:[a-z0-9+.-]+:)?//", "", text)
    authority, path = re.fullmatch(r"([^/?#]*)(.*)", rest, re.S).groups()  # type: ignore[union-attr]
    host = authority.rpartition("@")[2]
    inside = re.match(r"\[.*?\]", host)
    name, port = (inside[0], host[inside.end() :]) if inside else (host.partition(":")[0], ":" + host.partition(":")[2])
    name = name.strip().rstrip(".")
    domains = {each.lower().strip("*.") for each in LISTS["domains"] if each.isascii()}
    parents = {name} if re.fullmatch(r"[\d.]*|\[.*", name) else {name[m:] for m in starts(name)}
    if domains & (parents | {name.removeprefix("www."), f"www.{name}"}):
        return "domain"
    if name.removeprefix("www.") in {each.lower() for each in LISTS["hosts"]}:
        return "subdomain"
    port = "" if port in (":", ":80", ":443") else port
    key = f"{name.removeprefix('www.')}{port}{path.partition('#')[0]}"
    if re.sub(r"[/\0- ]+$", "", key) in {"fine.org/a/?x=1", "fine.org:8080/b", "fine.org/c", "fine.org"}:
        return "url"
    words = set(re.split(r"(?:%[0-9a-f]{2}|[^a-z0-9])+", text))
    if words & {"hard", "2hard1"}:
        return "hard_blacklisted"
    if len(words & set(LISTS["soft_words"])) >= threshold:
        return "soft_blacklisted"
    bare = re.sub(r"[^a-z0-9]", "", text)
    return "blacklisted_subword" if any(each in bare for each in ("hiddengem", "dengem", "emx")) else None


def starts(name: str) -> list[int]:
    return [0, *(at + 1 for at, letter in enumerate(name) if letter == "." and at + 1 < len(name))]


@pytest.mark.parametrize("seed", range(3))
def test_random_urls_are_decided_as_the_oracle_says(fields: dict[str, Any], seed: int) -> None:
    chance = random.Random(seed)
    pieces = [
        "http",
        "https",
        ":",
        "//",
        "/",
        ".",
        "@",
        "?",
        "#",
        "%20",
        "%",
        "-",
        "_",
        " ",
        "www.",
        "fine.org",
        "co.uk",
    ]
    pieces += [each for values in LISTS.values() for each in values if each.isascii()]
    pieces += [
        "a",
        "x=1",
        "/b",
        "/c",
        ":8080",
        ":443",
        "HARD",
        "Soft",
        "hid",
        "den",
        "gem",
        "e",
        "mx",
        "net",
        "org",
        "4",
    ]
    drawn = [
        chance.choice(["http://", "https://www.", "", "http://"])
        + "".join(chance.choices(pieces, k=chance.randint(1, 7)))
        for _ in range(4_000)
    ]
    for url, rule in zip(drawn, reasons(UrlFilter(**fields), drawn), strict=True):
        assert rule == oracle(url), url


def test_patterns_are_found_as_a_slow_search_finds_them() -> None:
    chance = random.Random(4)
    read_as = np.arange(256).astype(np.uint8)
    read_as[ord("-")] = 0
    for _ in range(60):
        patterns = sorted({"".join(chance.choices("abc", k=chance.randint(1, 5))) for _ in range(chance.randint(0, 9))})
        automaton = build_automaton(*block_lists.string_set(patterns)[1:])
        for number in range(20):
            text = "".join(chance.choices("abcd-", k=chance.randint(0, 30)))
            data = np.frombuffer(text.encode(), np.uint8)
            columns, seen = columns_of(automaton, read_as), np.zeros(9, np.int32)
            found, first = count_patterns(data, 0, len(data), columns, automaton, seen, number + 1)
            bare = text.replace("-", "")
            held = [pattern for pattern in patterns if pattern in bare]
            ends = {pattern: bare.find(pattern) + len(pattern) for pattern in held}
            assert found == len(held)
            assert (first < 0) == (not held)
            if held:
                least = [pattern for pattern in held if ends[pattern] == min(ends.values())]
                assert patterns[first] == max(least, key=len)


# What every filter promises

ODD = ["", "http://bad.example/", None, "http://слот.рф/x", "http://ok.org/soft-tender", "x" * 99, "http://hid.den/gem"]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view()], ids=str)
def test_a_slice_sees_only_its_rows_and_order_does_not_matter(fields: dict[str, Any], kind: pa.DataType) -> None:
    step = UrlFilter(**fields)
    whole = step.apply(batch(ODD, kind))
    part = step.apply(batch(ODD, kind).slice(1, 4))
    assert part.reasons.equals(whole.reasons.slice(1, 4))
    assert part.batch.equals(whole.batch.slice(1, 4))
    turned = step.apply(batch(ODD[::-1], kind))
    order = pa.array(range(len(ODD))[::-1])
    assert (
        turned.batch.drop_columns(["url"])
        .take(order)
        .drop_columns(["row"])
        .equals(whole.batch.drop_columns(["row", "url"]))
    )


def test_reasons_replay_from_the_columns_and_an_empty_batch_tells_them(fields: dict[str, Any]) -> None:
    step = UrlFilter(**fields, missing="drop")
    outcome = step.apply(batch(ODD))
    names = ["missing", "domain", "subdomain", "url", "hard_words", "soft_words", "subwords"]
    assert outcome.batch.schema.names[2:] == [*(f"url_filter.{name}" for name in names), "url_filter.match"]
    scores = {name: outcome.batch[f"url_filter.{name}"].to_numpy() for name in names}
    assert all(value.dtype == np.int64 for value in scores.values())
    assert step.decide(scores).equals(outcome.reasons)
    assert outcome.reasons.to_pylist()[:3] == ["url_filter/missing", "url_filter/domain", "url_filter/missing"]
    assert step.apply(batch(ODD).slice(0, 0)).batch.schema == outcome.batch.schema
    assert step.apply(pa.record_batch({"row": [1], "url": pa.nulls(1)})).reasons.to_pylist() == ["url_filter/missing"]


def test_bytes_that_are_no_utf8_harm_no_neighbour(fields: dict[str, Any]) -> None:
    broken = [b"\xe2\x80", b"http://\xff\xfe.\xc3/", b"http://bad.example/", b"\xf0\x9f\x98"]
    offsets = np.cumsum([0, *map(len, broken)], dtype=np.int32)
    column = pa.StringArray.from_buffers(len(broken), pa.py_buffer(offsets), pa.py_buffer(b"".join(broken)))
    for variant in ("penstock", "fineweb", "dclm"):
        step = UrlFilter(**{**fields, "hosts": ()}, variant=variant)
        assert (
            step.reasons(pa.record_batch({"url": column})).to_pylist()[2] == "url_filter/domain" or variant == "fineweb"
        )


def test_travels_and_is_known_by_what_its_lists_hold(fields: dict[str, Any], tmp_path: Path) -> None:
    step = UrlFilter(**fields)
    again = pickle.loads(pickle.dumps(step))
    assert again == step
    assert len(pickle.dumps(step)) < 2_000
    assert again.fingerprint() == step.fingerprint()
    assert UrlFilter.model_validate_json(step.model_dump_json()) == step
    assert str(tmp_path) not in json.dumps(step.fingerprint())
    packed = tmp_path / "packed.gz"
    packed.write_bytes(gzip.compress(Path(fields["domains"]).read_bytes()))
    assert UrlFilter(**{**fields, "domains": str(packed)}).fingerprint() == step.fingerprint()
    before = step.fingerprint()
    Path(fields["domains"]).write_text("another.example.org")
    assert step.fingerprint() != before
    assert reasons(step, ["http://another.example.org"]) == ["domain"]


def test_examples_in_docstrings(tmp_path: Path) -> None:
    tried = doctest.testmod(urls, extraglobs={"folder": tmp_path})
    assert tried.attempted >= 4
    assert tried.failed == 0


# Lists


def test_ut1_is_read_as_a_folder_and_as_an_archive(tmp_path: Path) -> None:
    for category, domain in (("adult", "a.example"), ("press", "p.example")):
        (tmp_path / "ut1" / category).mkdir(parents=True)
        (tmp_path / "ut1" / category / "domains").write_text(domain + "\n")
    (tmp_path / "ut1" / "adult" / "urls.gz").write_bytes(gzip.compress(b"u.example/x\n"))
    (tmp_path / "ut1" / "adult" / "usage").write_text("black")
    (tmp_path / "plain").write_text("u.example/x")
    with tarfile.open(tmp_path / "ut1.tar.gz", "w:gz") as archive:
        for category in ("adult", "press"):
            archive.add(tmp_path / "ut1" / category / "domains", f"blacklists/{category}/domains")
        archive.add(tmp_path / "plain", "blacklists/adult/urls")
    tried = ["http://x.a.example", "http://p.example", "http://u.example/x"]
    for path in ("ut1", "ut1.tar.gz"):
        assert reasons(made(blocklists=str(tmp_path / path)), tried) == ["domain", "domain", "url"]
        only = made(blocklists=[str(tmp_path / path)], categories=("adult",))
        assert reasons(only, tried) == ["domain", None, "url"]
    with pytest.raises((pydantic.ValidationError, InputError), match="no category 'sports'; it has adult, press"):
        made(blocklists=str(tmp_path / "ut1"), categories=("sports",))
    with pytest.raises((pydantic.ValidationError, InputError), match="neither a folder nor a tar archive"):
        made(blocklists=str(tmp_path / "plain"))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "no list is named"),
        ({"domains": "missing"}, "missing"),
        ({"domains": "broken.gz"}, "cannot be unpacked"),
        ({"urls": "list", "soft_words_threshold": 0}, "soft_words_threshold"),
        ({"urls": "list", "categories": ["adult"]}, "blocklists is empty"),
        ({"hosts": "list", "variant": "fineweb"}, "put the hosts there"),
        ({"urls": "list", "variant": "ut1"}, "variant"),
        ({"urls": "list", "missing": "maybe"}, "missing"),
    ],
)
def test_what_means_nothing_is_refused(tmp_path: Path, given: dict[str, Any], said: str) -> None:
    (tmp_path / "list").write_text("a.example")
    (tmp_path / "broken.gz").write_bytes(b"\x1f\x8bnothing")
    rooted = {
        name: str(tmp_path / value) if isinstance(value, str) and name in UrlFilter.files else value
        for name, value in given.items()
    }
    with pytest.raises((pydantic.ValidationError, InputError), match=said):
        made(**rooted)


def test_sub_words_beyond_all_measure_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "subwords").write_text("casino\njackpot\n")
    monkeypatch.setattr("penstock.transforms.urls.MOST_CELLS", 100)
    with pytest.raises(ValueError, match="up to 169 cells, and 100 are allowed"):
        UrlFilter(subwords=(str(tmp_path / "subwords"),))

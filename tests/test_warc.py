"""WARC files, whole and broken: each response record is one row, and what lies behind damage is still read."""

from __future__ import annotations

import gzip
import io
import json
import random
import zlib
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path

import pytest
import zstandard
from read_rows import Row, errors, rows_of
from warc_files import HTML, PAGES, damage, http, page, record, write

from penstock.transforms import inflate
from penstock.transforms.inflate import decompress
from penstock.transforms.warc import Frame, frames

SHARED = Path(__file__).parents[2] / "shared" / "data"


def cut(data: bytes, packed: bool, largest: int = 1 << 20) -> list[Frame]:
    return list(frames(decompress(io.BytesIO(data), "gzip" if packed else "none"), largest))


def offsets(parts: list[bytes]) -> list[int]:
    return [0, *accumulate(map(len, parts))]


def html_of(rows: list[Row]) -> list[str | None]:
    return [row["html"] for row in rows if row["error"] is None and row["reason"] is None]


@pytest.mark.parametrize("name", ["a.warc", "a.warc.gz"])
def test_each_response_is_one_row(tmp_path: Path, name: str) -> None:
    pack: Callable[[bytes], bytes] = gzip.compress if name.endswith("gz") else bytes
    parts = [
        record(0, b"software: x\r\n", "warcinfo"),
        record(1, http(page(1))),
        record(2, b"GET / HTTP/1.1\r\n\r\n", "request"),
    ]
    parts += [
        record(3, http(b"<h1>No</h1>", status=b"404 Not Found")),
        record(4, http(b"%PDF", b"Content-Type: application/pdf")),
    ]
    parts += [
        record(5, http(b"")),
        record(6, http(b" \n")),
        record(7, http(page(7), b"Content-Type: application/xhtml+xml; x=y")),
    ]
    parts += [
        record(8, http(page(8), b"Server: none")),
        record(9, http(b"\0\1", b"Server: none")),
        record(10, b"x", "resource"),
    ]
    parts += [record(11, b"web.example. 1 IN A 192.0.2.1").replace(b"application/http; msgtype=response", b"text/dns")]
    parts = [pack(part) for part in parts]
    rows = rows_of(write(tmp_path / name, *parts))
    assert [row["url"] for row in rows] == [f"http://web.example/{number}" for number in (1, 3, 4, 5, 6, 7, 8, 9, 11)]
    assert [row["place"] for row in rows] == [offsets(parts)[number] for number in (1, 3, 4, 5, 6, 7, 8, 9, 11)]
    fates = [None, "http_status", "not_html", "empty", "empty", None, None, "not_html", "not_html"]
    assert [row["reason"] for row in rows] == [fate and f"read/{fate}" for fate in fates]
    assert html_of(rows) == [page(number).decode() for number in (1, 7, 8)]
    assert all(row["text"] is None for row in rows)
    assert json.loads(rows[0]["metadata"]) == {
        "charset": "utf-8",
        "content_type": "text/html",
        "date": "2024-02-03T04:05:06Z",
        "record_id": "urn:uuid:1",
        "status": 200,
    }


def test_any_way_of_packing_gives_the_same_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body = b"".join(PAGES)
    blocks = [body[at : at + 700] for at in range(0, len(body), 700)]
    ways = {
        "plain": body,
        "a member a record": b"".join(map(gzip.compress, PAGES)),
        "one member": gzip.compress(body),
        "members that cut records": b"".join(map(gzip.compress, blocks)),
        "zeros between members": b"".join(gzip.compress(one) + bytes(90) for one in PAGES),
        "no blank lines": b"".join(one[:-4] for one in PAGES),
        "more blank lines": b"".join(one + b"\r\n" * 3 for one in PAGES),
    }
    for block in (1 << 18, 911, 64):
        monkeypatch.setattr(inflate, "BLOCK", block)
        for way, data in ways.items():
            found = cut(data, packed=data[:2] == b"\x1f\x8b")
            assert [frame.body for frame in found] == [one[:-4] for one in PAGES], (way, block)
            assert not any(frame.error for frame in found), (way, block)


@pytest.mark.parametrize("packed", [True, False])
def test_damage_to_one_record_harms_no_other(packed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [gzip.compress(one, 6, mtime=0) for one in PAGES] if packed else PAGES
    for seed in range(600):
        rng = random.Random(seed)
        monkeypatch.setattr(inflate, "BLOCK", rng.choice([1 << 18, 1000, 4096]))
        hurt = rng.randrange(len(parts))
        broken = damage(rng, parts[hurt])
        found = cut(b"".join([*parts[:hurt], broken, *parts[hurt + 1 :]]), packed)
        whole = [frame.body for frame in found if frame.error is None]
        others = [one[:-4] for number, one in enumerate(PAGES) if number != hurt]
        assert [body for body in whole if body in others] == others, seed
        assert len(found) in range(len(PAGES), len(PAGES) + 3), seed  # the hurt record is there, whole or set aside
        if packed and len(found) == len(whole):
            assert PAGES[hurt][:-4] in whole, seed  # a checksum lets nothing else through


def test_a_place_is_where_one_range_request_finds_the_record(tmp_path: Path) -> None:
    packed = [gzip.compress(one) for one in PAGES]
    bad = bytearray(packed[4])
    bad[40:50] = bytes(10)
    groups = [*packed[:2], gzip.compress(b"".join(PAGES[2:4])), bytes(bad), b"loose", packed[5], bytes(99), packed[6]]
    at = offsets(groups)
    rows = rows_of(write(tmp_path / "a.warc.gz", *groups))
    assert [row["place"] for row in rows] == [at[0], at[1], at[2], at[2] + 1, at[3], at[5], at[7]]
    assert [row["error"] is not None for row in rows] == [False] * 4 + [True] + [False] * 2
    garbage = b"no record\r\n\r\n"
    rows = rows_of(write(tmp_path / "a.warc", PAGES[0], garbage, PAGES[1]))
    assert [row["place"] for row in rows] == offsets([PAGES[0], garbage])


def test_rows_that_share_a_member_count_on(tmp_path: Path) -> None:
    bare = b"WARC/1.0\r\nWARC-Type: response\r\nContent-Length: 0\r\n\r\n\r\n\r\n"
    first, dense = gzip.compress(PAGES[0]), gzip.compress(bare * 3000)
    assert len(dense) < 3000  # rows that share it count on beyond it
    rows = rows_of(write(tmp_path / "a.warc.gz", first, dense, gzip.compress(PAGES[1])))
    assert [row["place"] for row in rows] == [0, *range(len(first), len(first) + 3001)]


def test_a_member_cut_short_never_swallows_the_last_one() -> None:
    """Its decoder may take the bytes that follow for its own, up to the end of the file."""
    parts = [gzip.compress(one, 6, mtime=0) for one in PAGES]
    for hurt, last in ((11, 4), (7, 2), (3, 0), (0, 0)):
        for size in range(20, len(parts[hurt]) - 12, 5):  # beyond, the record itself is whole
            found = cut(parts[hurt][:size] + parts[last], packed=True)
            assert [frame.body for frame in found if frame.error is None] == [PAGES[last][:-4]], (hurt, last, size)
            assert "the gzip stream is damaged" in [frame.error for frame in found]


def test_a_truncated_gzip_says_so(tmp_path: Path) -> None:
    data = b"".join(map(gzip.compress, PAGES))
    for lost in (1, 9, 200, len(gzip.compress(PAGES[-1])) - 12):
        rows = rows_of(write(tmp_path / "a.warc.gz", data[:-lost]))
        assert len(rows) == 12
        assert errors(rows) == ["the gzip stream ends before its end mark: the file is cut short"]
        assert rows[-1]["error"] is not None
    rows = rows_of(write(tmp_path / "a.warc.gz", gzip.compress(b"".join(PAGES))[:-500]))
    assert len(errors(rows)) == 1
    assert len(html_of(rows)) >= 10


WRONG = {
    "long": (400, "does not lead to its end|cut short"),
    "short": (60, "does not lead to its end"),
    "huge": (10**11, "is larger than 268435456 bytes"),
    "negative": (-5, "does not say its length"),
}


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_length_costs_its_record_alone(tmp_path: Path, wrong: str, packed: bool) -> None:
    length, words = WRONG[wrong]
    parts = [
        PAGES[0],
        record(50, http(page(2)), length=length),
        PAGES[3],
        PAGES[4],
        record(51, http(page(1)), length=length),
    ]
    parts = [gzip.compress(part) for part in parts] if packed else parts
    rows = rows_of(write(tmp_path / "a.warc", *parts))
    assert html_of(rows) == [page(number).decode() for number in (0, 3, 4)]
    assert [row["place"] for row in rows if row["error"]] == [offsets(parts)[1], offsets(parts)[4]]
    for row in rows:
        if row["error"]:
            assert any(word in row["error"] for word in words.split("|"))
            assert row["raw"].startswith(b"WARC/1.0")


def test_garbage_between_records_is_set_aside(tmp_path: Path) -> None:
    for pack in (bytes, gzip.compress):
        parts = [pack(b"not a record\r\n\r\n"), *map(pack, PAGES[:2]), pack(b"<html>" * 9), pack(PAGES[2])]
        rows = rows_of(write(tmp_path / "a.warc", *parts))
        assert [row["error"] for row in rows if row["error"]] == ["bytes between records that belong to none"] * 2
        assert html_of(rows) == [page(number).decode() for number in range(3)]
    rows = rows_of(write(tmp_path / "a.warc.gz", gzip.compress(PAGES[0]), b"loose bytes", gzip.compress(PAGES[1])))
    assert html_of(rows) == [page(0).decode(), page(1).decode()]
    assert [(row["error"], row["raw"]) for row in rows if row["error"]] == [
        ("the gzip stream is damaged", b"loose bytes")
    ]
    (row,) = rows_of(write(tmp_path / "a.warc", b"<html>" * 999))
    assert (row["error"], row["raw"]) == ("bytes between records that belong to none", b"<html>" * 999)


def test_http_that_cannot_be_read_is_set_aside(tmp_path: Path) -> None:
    blocks = [
        b"no http at all",
        b"HTTP/1.1 abc\r\nContent-Type: text/html\r\n\r\n<p>x",
        b"",
        http(b"x", b"X: " + b"y" * (2 << 20)),
    ]
    rows = rows_of(
        write(tmp_path / "a.warc", *(record(number, block) for number, block in enumerate(blocks)), PAGES[1])
    )
    assert len(errors(rows)) == 4
    assert all("HTTP header" in error for error in errors(rows))
    assert [row["url"] for row in rows][:2] == ["http://web.example/0", "http://web.example/1"]
    assert html_of(rows) == [page(1).decode()]
    lenient = record(1, b"HTTP/1.0 200\nContent-Type: TEXT/HTML;charset=latin1\n\ncaf\xe9")
    assert html_of(rows_of(write(tmp_path / "a.warc", lenient))) == ["café"]


@pytest.mark.parametrize("change", [bytes.lower, bytes.upper, bytes.title], ids=["lower", "upper", "title"])
@pytest.mark.parametrize("packed", [False, True])
def test_names_in_a_header_are_read_in_any_case(tmp_path: Path, change: Callable[[bytes], bytes], packed: bool) -> None:
    """ISO 28500 and RFC 9110: names are compared without their case; some writers use small letters throughout."""

    def renamed(part: bytes) -> bytes:
        head, _, block = part.partition(b"\r\n\r\n")
        first, *lines = head.split(b"\r\n")
        named = [change(name) + b":" + value for name, _, value in (line.partition(b":") for line in lines)]
        return b"\r\n".join([first, *named]) + b"\r\n\r\n" + block

    parts = list(map(renamed, PAGES[:4]))
    rows = rows_of(write(tmp_path / "a.warc", *(map(gzip.compress, parts) if packed else parts)))
    usual = rows_of(write(tmp_path / "b.warc", *PAGES[:4]))
    assert html_of(rows) == html_of(usual)
    assert [row["metadata"] for row in rows] == [row["metadata"] for row in usual]


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nX: y\n\n",
        b"HTTP/1.1 200 OK\nContent-Type: text/html\r\nX: y\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: y\nContent-Type: text/html; charset=latin1\r\n\r\n",
    ],
)
def test_lines_of_a_header_may_end_in_two_ways(tmp_path: Path, head: bytes) -> None:
    (row,) = rows_of(write(tmp_path / "a.warc", record(1, head + b"<html>caf&eacute;\r\n\r\nand more")))
    assert row["html"] == "<html>caf&eacute;\r\n\r\nand more"


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ((b"X: y",), bytes),
        ((b"X: y",), lambda body: b"\xef\xbb\xbf" + body),
        ((b"Content-Encoding: gzip",), gzip.compress),
        ((b"Transfer-Encoding: chunked",), lambda body: chunked(body)),
    ],
    ids=["plain", "mark", "gzip", "chunks"],
)
def test_a_page_of_no_named_type_is_told_by_what_it_holds(
    tmp_path: Path, headers: tuple[bytes, ...], code: Callable[[bytes], bytes]
) -> None:
    page_row, other = rows_of(
        write(
            tmp_path / "a.warc",
            record(1, http(code(b"<!doctype html><p>Hello"), *headers)),
            record(2, http(code(b"%PDF-1.7"), *headers)),
        )
    )
    assert page_row["html"] == "<!doctype html><p>Hello"
    assert (other["html"], other["reason"]) == (None, "read/not_html")


def chunked(body: bytes, size: int = 7) -> bytes:
    parts = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x;ext=1\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


def raw_deflate(body: bytes) -> bytes:
    coder = zlib.compressobj(wbits=-15)
    return coder.compress(body) + coder.flush()


BROTLI = bytes.fromhex("1b3600f89d07362ed4fbd9e3350f1c9dad0411632b1fb94a1b0ea322800cf50d")


CODINGS: dict[str, tuple[bytes, Callable[[bytes], bytes]]] = {
    "chunked": (b"Transfer-Encoding: chunked", chunked),
    "gzip": (b"Content-Encoding: gzip", gzip.compress),
    "x-gzip": (b"content-encoding: X-GZIP", gzip.compress),
    "two members": (b"Content-Encoding: gzip", lambda body: gzip.compress(body[:9]) + gzip.compress(body[9:])),
    "deflate": (b"Content-Encoding: deflate", zlib.compress),
    "raw deflate": (b"Content-Encoding: deflate", raw_deflate),
    "zstd": (b"Content-Encoding: zstd", zstandard.ZstdCompressor().compress),
    "both": (b"Content-Encoding: gzip\r\nTransfer-Encoding: chunked", lambda body: chunked(gzip.compress(body))),
    "transfer": (b"Transfer-Encoding: gzip, chunked", lambda body: chunked(gzip.compress(body))),
    "twice": (b"Content-Encoding: deflate, gzip", lambda body: gzip.compress(zlib.compress(body))),
    "identity": (b"Content-Encoding: identity", bytes),
    "stored decoded": (b"Content-Encoding: gzip\r\nTransfer-Encoding: chunked", bytes),
    "brotli stored decoded": (b"Content-Encoding: br", bytes),
}


@pytest.mark.parametrize("coding", CODINGS)
def test_bodies_are_decoded(tmp_path: Path, coding: str) -> None:
    header, encode = CODINGS[coding]
    parts = [record(0, http(encode(page(5)), HTML, header)), PAGES[1]]
    rows = rows_of(write(tmp_path / "a.warc.gz", *map(gzip.compress, parts)))
    assert html_of(rows) == [page(5).decode(), page(1).decode()]


def test_brotli_bodies_are_decoded(tmp_path: Path) -> None:
    rows = rows_of(write(tmp_path / "a.warc", record(0, http(BROTLI, HTML, b"Content-Encoding: br"))))
    assert html_of(rows) == ["<p>brötli " * 5]


def test_bodies_that_cannot_be_decoded_are_set_aside(tmp_path: Path) -> None:
    body = page(5)
    zstd = zstandard.ZstdCompressor().compress(body)
    cases = {
        (b"Content-Encoding: compress", body): "has the content coding 'compress', which is not known",
        (b"Content-Encoding: gzip", gzip.compress(body)[:-40]): "not whole gzip data",
        (b"Content-Encoding: deflate", zlib.compress(body)[:-40]): "not whole deflate data",
        (b"Content-Encoding: zstd", zstd[:-40]): "not whole zstd data",
        (b"Content-Encoding: br", b"\xff\xff\xff\xff"): "not whole br data",
        (b"Transfer-Encoding: chunked", chunked(body)[:-90]): "the chunks of the body break off",
        (b"Transfer-Encoding: chunked", b"5\r\nhello\r\nzz\r\n"): "the chunks of the body break off",
        (
            b"Content-Encoding: gzip",
            gzip.compress(bytes(2_000_000)),
        ): "larger than 1000000 bytes when decoded from gzip",
        (b"Content-Encoding: deflate", zlib.compress(bytes(2_000_000))): "larger than 1000000 bytes",
        (b"Content-Encoding: zstd", zstandard.ZstdCompressor().compress(bytes(2_000_000))): "larger than 1000000 bytes",
    }
    parts = [record(number, http(encoded, HTML, header)) for number, (header, encoded) in enumerate(cases)]
    rows = rows_of(write(tmp_path / "a.warc", *parts, PAGES[1]), largest=1_000_000)
    assert len(errors(rows)) == len(cases)
    for error, words in zip(errors(rows), cases.values(), strict=True):
        assert words in error
    assert html_of(rows) == [page(1).decode()]


def test_a_record_beyond_the_limit_is_set_aside(tmp_path: Path) -> None:
    bomb = record(1, http(bytes(3_000_000)))
    for pack in (bytes, gzip.compress):
        rows = rows_of(write(tmp_path / "a.warc", *map(pack, (PAGES[0], bomb, PAGES[2]))), largest=1_000_000)
        assert errors(rows) == ["the record is larger than 1000000 bytes"]
        assert html_of(rows) == [page(0).decode(), page(2).decode()]
        assert len(rows[1]["raw"]) == 1 << 20


@pytest.mark.skipif(not SHARED.exists(), reason="needs ../shared/data")
def test_a_real_crawl() -> None:
    rows = rows_of(SHARED / "web_small.warc.gz")
    assert len(rows) == 303
    assert sum(row["reason"] == "read/http_status" for row in rows) == 3
    assert len(html_of(rows)) == 300
    assert not errors(rows)
    with (SHARED / "web_small.warc.gz").open("rb") as file:
        for row in rows:
            file.seek(row["place"])
            head = zlib.decompressobj(31).decompress(file.read(1 << 10))
            assert b"\r\nWARC-Type: response\r\n" in head
            assert f"\r\nWARC-Target-URI: {row['url']}\r\n".encode() in head

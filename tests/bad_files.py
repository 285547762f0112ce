"""Files that are broken, each in one way, and what a run must set aside of them."""

from __future__ import annotations

import gzip
import io
import json
import random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

GOOD = 5


def prose(words: int, seed: int = 0) -> str:
    chance = random.Random(seed)
    return " ".join("".join(chance.choices("abcdefghij", k=5)) for _ in range(words))


def line(text: Any) -> bytes:
    return json.dumps({"text": text}).encode() + b"\n"


GOOD_LINES = b"".join(line(prose(40, seed)) for seed in range(GOOD))
ONE = line(prose(40, 50))
TWO = line(prose(40, 51))


def page(body: bytes, number: int = 0, wrong_by: int = 0, coding: str = "") -> bytes:
    """One WARC response record; `wrong_by` is added to its length."""
    head = f"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n{coding}\r\n".encode()
    return (
        b"WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: http://example.org/%d\r\n"
        b"WARC-Date: 2024-01-01T00:00:00Z\r\nContent-Type: application/http; msgtype=response\r\n"
        b"Content-Length: %d\r\n\r\n%s%s\r\n\r\n" % (number, len(head) + len(body) + wrong_by, head, body)
    )


def html(number: int, more: bytes = b"") -> bytes:
    return b"<html><body><main><p>" + prose(60, 100 + number).encode() + more + b"</p></main></body></html>"


def pages(*numbers: int) -> bytes:
    return b"".join(page(html(number), number) for number in numbers)


def no_rows() -> bytes:
    body = io.BytesIO()
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), body)
    return body.getvalue()


CUT = gzip.compress(b"".join(line(prose(40, seed)) for seed in range(60, 90)))
MEMBERS = [gzip.compress(pages(number)) for number in range(4)]
BOMB = gzip.compress(b'{"text":"' + b"a " * (140 << 20) + b'"}\n', 1)
BOMB_ZST = zstandard.compress(b'{"text":"' + b"a " * (140 << 20) + b'"}\n')
BOMB_BODY = gzip.compress(b"<p>" + b"a " * (140 << 20), 1)
RECORD = b"WARC/1.0\r\nWARC-Type: response"

# What lies in the file, and what is set aside: (error, first bytes), in order; and how many of its records are kept.
QUARANTINED: dict[str, tuple[str, bytes, list[tuple[str, bytes]], int | None]] = {
    "truncated gzip of lines": ("a.jsonl.gz", CUT[: len(CUT) // 2], [("cut short", b'{"text"')], None),
    "no gzip at all": ("a.jsonl.gz", b"no gzip", [("the gzip stream is damaged", b"no gzip")], 0),
    "truncated gzip at the end": ("a.warc.gz", b"".join(MEMBERS)[:-90], [("cut short", RECORD)], 3),
    "truncated gzip in the midst": (
        "a.warc.gz",
        MEMBERS[0] + MEMBERS[1][:-60] + MEMBERS[2],
        [("the gzip stream is damaged", b"")],
        2,
    ),
    "a length too large": (
        "a.warc",
        pages(1) + page(html(2), 2, wrong_by=40) + pages(3),
        [("does not lead to its end", RECORD)],
        2,
    ),
    "a length too small": (
        "a.warc",
        pages(1) + page(html(2), 2, wrong_by=-40) + pages(3),
        [("does not lead to its end", RECORD)],
        2,
    ),
    "a length beyond everything": ("a.warc", pages(1) + page(b"x", 2, wrong_by=1 << 40), [("larger than", RECORD)], 1),
    "invalid UTF-8 in a line": (
        "a.jsonl",
        ONE + b'{"text":"\xff\xfe"}\n' + TWO,
        [("not valid UTF-8", b'{"text":"\xff\xfe')],
        2,
    ),
    "invalid UTF-8 in a text file": ("a.txt", b"so far so \xff", [("not valid UTF-8", b"so far so \xff")], 0),
    "invalid UTF-8 in a page": ("a.warc", pages(1) + page(html(2, b" \xff\xfe end"), 2), [], 2),
    "NUL in a page": ("a.warc", page(html(2, b" \0 end"), 2), [], 1),
    "NUL in text": ("a.jsonl", line("\0 " + prose(40, 52)) + ONE, [], 2),
    "NUL instead of lines": ("a.jsonl", ONE + bytes(100) + b"\n" + TWO, [("not valid JSON", bytes(100))], 2),
    "lines of wrong types": (
        "a.jsonl",
        ONE + b'[1]\n"s"\nnull\nno json\n{}\n{"text":3}\n{"text":{}}\n{"text":"\\ud800"}\n' + TWO,
        [
            ("a list, not a JSON object", b"[1]"),
            ("a string, not a JSON object", b'"s"'),
            ("null, not a JSON object", b"null"),
            ("not valid JSON", b"no json"),
            ("no field 'text'", b"{}"),
            ("'text' is a number", b'{"text":3}'),
            ("'text' is an object", b'{"text":{}}'),
            ("lone surrogate", b'{"text":"\\ud800"}'),
        ],
        2,
    ),
    "a page nested too deeply": ("a.warc", page(b"<div>" * 50_000) + pages(2), [("nested too deeply", b"<div>")], 1),
    "a damaged body": (
        "a.warc",
        page(b"\x1f\x8bjunk", 1, coding="Content-Encoding: gzip\r\n") + pages(2),
        [("not whole gzip", RECORD)],
        1,
    ),
    "a bomb among lines": ("a.jsonl.gz", gzip.compress(ONE) + BOMB + gzip.compress(TWO), [("larger than", b'{"te')], 2),
    "a bomb of zstd": (
        "a.jsonl.zst",
        zstandard.compress(ONE) + BOMB_ZST + zstandard.compress(TWO),
        [("larger than", b'{"text":"a a')],
        2,
    ),
    "a bomb in a page's body": (
        "a.warc",
        pages(1) + page(BOMB_BODY, 2, coding="Content-Encoding: gzip\r\n") + pages(3),
        [("larger than", RECORD)],
        2,
    ),
    "no Parquet at all": ("a.parquet", b"PAR1 and no more", [("footer is missing or damaged", b"PAR1 and")], 0),
}

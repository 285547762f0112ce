"""Small WARC files, whole and broken, that tests of the readers share."""

from __future__ import annotations

import random
from pathlib import Path

HTML = b"Content-Type: text/html"


def http(body: bytes, *headers: bytes, status: bytes = b"200 OK") -> bytes:
    return b"\r\n".join([b"HTTP/1.1 " + status, *(headers or (HTML,)), b"", body])


def record(number: int, block: bytes, kind: str = "response", length: int | None = None) -> bytes:
    head = (
        f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Record-ID: <urn:uuid:{number}>\r\nWARC-Date: 2024-02-03T04:05:06Z\r\n"
    )
    head += f"WARC-Target-URI: http://web.example/{number}\r\nContent-Type: application/http; msgtype={kind}\r\n"
    size = len(block) if length is None else length
    return head.encode() + f"Content-Length: {size}\r\n\r\n".encode() + block + b"\r\n\r\n"


def page(number: int) -> bytes:
    words = random.Random(number).choices([b"<p>", b"word", b"\r\n\r\n", b"<b>", b"\n"], k=8 + 6 * number * number)
    return b"<html><body>page %d %s</body></html>" % (number, b" ".join(words))


PAGES = [record(number, http(page(number))) for number in range(12)]


def conversion(number: int, text: bytes, *headers: bytes) -> bytes:
    """A record of a WET file."""
    head = [
        b"WARC/1.0",
        b"WARC-Type: conversion",
        b"WARC-Target-URI: http://web.example/%d" % number,
        b"WARC-Date: 2024-02-03T04:05:06Z",
        b"WARC-Record-ID: <urn:uuid:%d>" % number,
        b"WARC-Refers-To: <urn:uuid:1%d>" % number,
        *(headers or (b"WARC-Identified-Content-Language: eng", b"Content-Type: text/plain")),
        b"Content-Length: %d" % len(text),
        b"",
        text,
    ]
    return b"\r\n".join(head) + b"\r\n\r\n"


def write(path: Path, *parts: bytes) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"".join(parts))
    return path


def damage(rng: random.Random, part: bytes) -> bytes:
    """Hurt one record: a bit turned, an end cut off, bytes put in, taken out, blanked or left behind."""
    at, out = rng.randrange(1, len(part)), bytearray(part)
    kind = rng.choice(["flip", "cut", "insert", "delete", "blank", "append"])
    if kind == "flip":
        out[at] ^= 1 << rng.randrange(8)
    elif kind == "cut":
        del out[at:]
    elif kind == "insert":
        out[at:at] = rng.randbytes(rng.choice([1, 5, 500, 5000]))
    elif kind == "delete":
        del out[at : at + rng.choice([1, 5, 50])]
    elif kind == "blank":
        out[at : at + 20] = bytes(len(out[at : at + 20]))
    else:
        out += b"GARBAGE\xff" * rng.choice([1, 3, 30_000])
    return bytes(out)

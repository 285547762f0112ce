"""Turn an HTTP response record into a page: transfer and content codings undone, charset found, characters decoded."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from fastwarc.warc import WarcRecord
from resiliparse.parse.encoding import detect_encoding, map_encoding_to_html5

from .inflate import inflate_body
from .rows import Rows, metadata_json

_HTML = ("text/html", "application/xhtml+xml")
_META = re.compile(rb"""<meta[^>]{0,200}?charset\s*=\s*["']?\s*([A-Za-z0-9_.:-]+)""", re.IGNORECASE)
_XML = re.compile(rb"""^\s*<\?xml[^>]{0,200}?encoding\s*=\s*["']([A-Za-z0-9_.:-]+)""")
_CHUNK = re.compile(rb"[ \t]*([0-9A-Fa-f]{1,8})[ \t]*(?:;[^\r\n]*)?\r?\n")
_CONTENT_LENGTH, _CONTENT_TYPE = (re.compile(rb"(?i)(\n)content-%s[ \t]*:" % name) for name in (b"length", b"type"))
_LOOKS_HTML = re.compile(
    rb"(?is)(?:\xef\xbb\xbf)?\s*(?:<!--.{0,500}?-->\s*)?<(?:!doctype\s+html|html|head|body|title|meta)"
)
# Where Python's codec of a name is narrower than what the web means by it: NEC's and IBM's characters, Hangul beyond
# KS X 1001, Hong Kong's characters, Thai with Windows' quotes.
_AS_BROWSERS = {
    "shift_jis": "cp932",
    "euc_jp": "euc_jis_2004",
    "euc_kr": "cp949",
    "big5": "big5hkscs",
    "gbk": "gb18030",
    "iso8859-11": "cp874",
}
_BOMS = ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"))


def page_row(rows: Rows, place: int, body: bytes, largest: int) -> None:
    """Add the row of one response record, given as it lies in the file."""
    try:
        record = WarcRecord.from_bytes(named_as_usual(body))
    except OSError as error:
        rows.quarantine(place, f"the record's header cannot be read: {error}", body)
        return
    url = (record.headers.get("WARC-Target-URI") or "").strip("<> ") or None
    if not record.is_http:  # a crawler's look-up of a name, a page over FTP
        rows.add(place, 0, url=url, reason="read/not_html")
        return
    try:
        block = _parse_http(record)
    except ValueError as error:
        rows.quarantine(place, str(error), body, url)
        return
    head, page = record.http_headers, b""
    kind = _said_type(head, record.headers)
    if head.status_code == 200 and (kind is None or kind in _HTML):
        try:
            page = _decode_body(head, block, largest)
        except ValueError as error:
            rows.quarantine(place, str(error), body, url)
            return
        kind = kind or (_HTML[0] if _LOOKS_HTML.match(page) else None)
    about: dict[str, Any] = {
        "content_type": kind,
        "date": record.headers.get("WARC-Date"),
        "record_id": (record.record_id or "").strip("<>") or None,
        "status": head.status_code,
        "truncated": record.headers.get("WARC-Truncated"),
    }
    reason = "read/http_status" if head.status_code != 200 else None if kind in _HTML else "read/not_html"
    html, size = None, 0
    if reason is None:
        html, about["charset"] = decode_page(page, _charset(head.get("Content-Type")))
        size = len(page)
        reason = None if html.strip() else "read/empty"
    metadata = metadata_json({name: value for name, value in about.items() if value is not None})
    rows.add(place, size, url=url, html=html, metadata=metadata, reason=reason)


def named_as_usual(body: bytes) -> bytes:
    """Write two names of the WARC header as fastwarc looks for them; names are written in any case (ISO 28500, 4)."""
    end = body.find(b"\n\r\n")
    head = body[: end + 1 if end >= 0 else 1 << 16]
    if b"\nContent-Length:" in head and (b"\nContent-Type:" in head or not _CONTENT_TYPE.search(head)):
        return body
    named = _CONTENT_TYPE.sub(rb"\1Content-Type:", _CONTENT_LENGTH.sub(rb"\1Content-Length:", head))
    return named + body[len(head) :]


def _parse_http(record: Any) -> bytes:
    """Parse the HTTP header and give the bytes behind it. Lines may end with or without a carriage return."""
    try:
        record.parse_http(max_header_len=1 << 20, quirks_mode=True)
    except OSError as error:
        raise ValueError(f"the HTTP header cannot be read: {error}") from None
    if record.http_headers is None or record.http_headers.status_code is None:
        raise ValueError("the HTTP header has no status")
    return bytes(record.reader.read())


def _said_type(head: Any, warc: Any) -> str | None:
    """The media type: what the server said, else what the crawler found; None where nobody said."""
    said = head.get("Content-Type") or warc.get("WARC-Identified-Payload-Type") or ""
    return said.split(";")[0].strip().lower() or None


def _charset(content_type: str | None) -> str | None:
    found = re.search(r"""charset\s*=\s*["']?\s*([^\s"';,]+)""", content_type or "", re.IGNORECASE)
    return found[1] if found else None


def _decode_body(head: Any, block: bytes, largest: int) -> bytes:
    """Undo chunks and content codings, the last that was applied first."""
    transfer = _codings(head, "Transfer-Encoding")
    if "chunked" in transfer:
        block = unchunk(block)
    for coding in reversed([*_codings(head, "Content-Encoding"), *(c for c in transfer if c != "chunked")]):
        block = inflate_body(block, coding, largest)
    return block


def _codings(head: Any, name: str) -> list[str]:
    return [part.strip().lower() for value in head.get_multiple(name) for part in value.split(",") if part.strip()]


def unchunk(block: bytes) -> bytes:
    """Join the chunks of a body; one that was stored without chunks, as many crawlers do, is given back as it is.

    Raises ValueError where the chunks break off or do not fit.
    """
    out, at = bytearray(), 0
    while head := _CHUNK.match(block, at):
        size = int(head[1], 16)
        if size == 0:
            return bytes(out)
        at = head.end() + size
        out += block[head.end() : at]
        if at > len(block):
            break
        at += 2 if block.startswith(b"\r\n", at) else 1 if block.startswith(b"\n", at) else 0
    if at == 0:
        return block
    raise ValueError("the chunks of the body break off or do not fit")


def decode_page(page: bytes, charset: str | None) -> tuple[str, str]:
    """Decode a page; give its text and the charset that was used.

    In order: byte order mark, the HTTP header's charset, the page's own, UTF-8; the first that decodes every byte wins.
    If none does, the first that decodes most of what is not ASCII, with U+FFFD for the rest: a stray byte takes no page
    its charset. Only a page that fits none of them is asked for one, by detection, which reads up to 128 KiB.
    """
    for mark, name in _BOMS:
        if page.startswith(mark):
            return page[len(mark) :].decode(name, "replace"), name
    codecs = list(dict.fromkeys(codec for codec in map(_codec, _labels(page, charset)) if codec is not None))
    for codec in codecs:
        with suppress(UnicodeDecodeError):
            return page.decode(codec), codec
    for codec in codecs:
        text = page.decode(codec, "replace")
        if _fits(text, page):
            return text, codec
    with suppress(UnicodeDecodeError):
        if (detected := _codec(detect_encoding(page, from_html_meta=False))) is not None:
            return page.decode(detected), detected
    return page.decode(codecs[0], "replace"), codecs[0]


def _labels(page: bytes, charset: str | None) -> Iterator[str | None]:
    """Give the charset labels to try."""
    yield charset
    found = _META.search(page, 0, 4096) or _XML.search(page, 0, 4096)
    own = found[1].decode() if found else None
    # A page that says so in ASCII is not UTF-16 (WHATWG HTML, 13.2.3.2).
    yield "utf-8" if own and own.lower().startswith("utf-16") else own
    yield "utf-8"


def _fits(text: str, page: bytes) -> bool:
    """Whether no more than half of the characters that are not ASCII stand for bytes that could not be decoded."""
    lost = text.count("\ufffd") - page.count(b"\xef\xbf\xbd")
    return 2 * lost <= len(text) - len(text.encode("ascii", "ignore"))


def _codec(label: str | None) -> str | None:
    """The codec that browsers use for a charset label (WHATWG Encoding); None for a label that is not known."""
    mapped = map_encoding_to_html5(label, fallback_utf8=False) if label else None
    name: str | None = _AS_BROWSERS.get(mapped or "", mapped)
    try:
        return name if name and "".encode(name) == b"" else None
    except (LookupError, UnicodeError):
        return None

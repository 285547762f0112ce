"""Turn an HTTP response record into a page: transfer and content codings undone, charset found, characters decoded."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from fastwarc.warc import WarcRecord
from resiliparse.parse.encoding import detect_encoding, map_encoding_to_html5

from .inflate import inflate_body
from .rows import Rows, metadata_json

_HTML = ("text/html", "application/xhtml+xml")
_META = re.compile(rb"""<meta[^>]{0,200}?charset\s*=\s*["']?\s*([A-Za-z0-9_.:-]+)""", re.IGNORECASE)
_XML = re.compile(rb"""^\s*<\?xml[^>]{0,200}?encoding\s*=\s*["']([A-Za-z0-9_.:-]+)""")
_CHUNK = re.compile(rb"[ \t]*([0-9A-Fa-f]{1,8})[ \t]*(?:;[^\r\n]*)?\r?\n")
_LOOKS_HTML = re.compile(rb"(?is)\s*(?:<!--.{0,500}?-->\s*)?<(?:!doctype\s+html|html|head|body|title|meta)")
_BOMS = ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"))


def page_row(rows: Rows, place: int, body: bytes, largest: int) -> None:
    """Add the row of one response record, given as it lies in the file."""
    try:
        record = WarcRecord.from_bytes(body)
    except OSError as error:
        rows.quarantine(place, f"the record's header cannot be read: {error}", body)
        return
    url = (record.headers.get("WARC-Target-URI") or "").strip("<> ") or None
    if not record.is_http:  # a crawler's look-up of a name, a page over FTP
        rows.add(place, 0, url=url, reason="read/not_html")
        return
    try:
        block = _parse_http(record, body)
    except ValueError as error:
        rows.quarantine(place, str(error), body, url)
        return
    head = record.http_headers
    kind = _content_type(head, record.headers, block)
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
        try:
            page = _decode_body(head, block, largest)
        except ValueError as error:
            rows.quarantine(place, str(error), body, url)
            return
        html, about["charset"] = decode_page(page, _charset(head.get("Content-Type")))
        size = len(page)
        reason = None if html.strip() else "read/empty"
    metadata = metadata_json({name: value for name, value in about.items() if value is not None})
    rows.add(place, size, url=url, html=html, metadata=metadata, reason=reason)


def _parse_http(record: Any, body: bytes) -> bytes:
    """Parse the HTTP header and give the bytes behind it."""
    start = body.find(b"\r\n\r\n") + 4
    line_end = body.find(b"\n", start)
    try:
        record.parse_http(max_header_len=1 << 20, quirks_mode=body[line_end - 1 : line_end] != b"\r")
    except OSError as error:
        raise ValueError(f"the HTTP header cannot be read: {error}") from None
    if record.http_headers is None or record.http_headers.status_code is None:
        raise ValueError("the HTTP header has no status")
    return bytes(record.reader.read())


def _content_type(head: Any, warc: Any, block: bytes) -> str | None:
    """The media type: what the server said, else what the crawler found, else HTML where it looks like it."""
    said = (head.get("Content-Type") or warc.get("WARC-Identified-Payload-Type") or "").split(";")[0].strip().lower()
    return said or (_HTML[0] if _LOOKS_HTML.match(block) else None)


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

    In order: byte order mark, the HTTP header's charset, the page's own, UTF-8, detection. The first that decodes every
    byte wins; if none does, the first that is known, with U+FFFD for what it cannot.
    """
    for mark, name in _BOMS:
        if page.startswith(mark):
            return page[len(mark) :].decode(name, "replace"), name
    tried: list[str] = []
    for label in _labels(page, charset):
        codec = _codec(label)
        if codec is None or codec in tried:
            continue
        tried.append(codec)
        try:
            return page.decode(codec), codec
        except UnicodeDecodeError:
            pass
    return page.decode(tried[0], "replace"), tried[0]


def _labels(page: bytes, charset: str | None) -> Iterator[str | None]:
    """Give the charset labels to try; detection comes last, because it reads up to 128 KiB."""
    yield charset
    found = _META.search(page, 0, 4096) or _XML.search(page, 0, 4096)
    own = found[1].decode() if found else None
    # A page that says so in ASCII is not UTF-16 (WHATWG HTML, 13.2.3.2).
    yield "utf-8" if own and own.lower().startswith("utf-16") else own
    yield "utf-8"
    yield detect_encoding(page, from_html_meta=False)


def _codec(label: str | None) -> str | None:
    """The codec that browsers use for a charset label (WHATWG Encoding); None for a label that is not known."""
    name = map_encoding_to_html5(label, fallback_utf8=False) if label else None
    try:
        return name if name and "".encode(name) == b"" else None
    except (LookupError, UnicodeError):
        return None

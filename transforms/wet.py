"""Turn a conversion record of a WET file (a crawl's plain text of a page) into a document: nothing is extracted."""

from __future__ import annotations

import re
from contextlib import suppress

from fastwarc.warc import WarcRecord

from .pages import named_as_usual
from .rows import Rows, metadata_json

_CHARSET = re.compile(r"""charset\s*=\s*["']?\s*([^\s"';,]+)""", re.IGNORECASE)


def text_row(rows: Rows, place: int, body: bytes) -> None:
    """Add the row of one conversion record, given as it lies in the file.

    The text is the record's block as it stands, decoded as UTF-8, else by the charset that its header names, else as
    UTF-8 with U+FFFD for bytes that are none. `language` stays empty: what the crawler found (ISO 639-3 codes, the most
    used first) is kept in `metadata` as `languages`, because `language_id` names languages otherwise.
    """
    try:
        record = WarcRecord.from_bytes(named_as_usual(body))
    except OSError as error:
        rows.quarantine(place, f"the record's header cannot be read: {error}", body)
        return
    headers = record.headers
    url = (headers.get("WARC-Target-URI") or "").strip("<> ") or None
    kind = headers.get("Content-Type") or ""
    block = bytes(record.reader.read())
    text, charset = _decode(block, kind)
    about = {
        "charset": charset,
        "content_type": kind.split(";")[0].strip().lower() or None,
        "date": headers.get("WARC-Date"),
        "languages": headers.get("WARC-Identified-Content-Language"),
        "record_id": (record.record_id or "").strip("<>") or None,
        "refers_to": (headers.get("WARC-Refers-To") or "").strip("<> ") or None,
    }
    metadata = metadata_json({name: value for name, value in about.items() if value is not None})
    reason = None if text.strip() else "read/empty"
    rows.add(place, len(block), url=url, text=text if reason is None else None, metadata=metadata, reason=reason)


def page_among_texts(rows: Rows, place: int, body: bytes) -> None:
    """Add the row of a response record that lies in a file of texts: nothing would extract its page."""
    try:
        url = (WarcRecord.from_bytes(named_as_usual(body)).headers.get("WARC-Target-URI") or "").strip("<> ") or None
    except OSError as error:
        rows.quarantine(place, f"the record's header cannot be read: {error}", body)
        return
    rows.add(place, 0, url=url, reason="read/not_text")


def _decode(block: bytes, kind: str) -> tuple[str, str]:
    """Decode a text; give it and the charset that was used."""
    said = _CHARSET.search(kind)
    for charset in ("utf-8", *((said[1].lower(),) if said else ())):
        with suppress(UnicodeDecodeError, LookupError):
            return block.decode(charset), charset
    return block.decode("utf-8", "replace"), "utf-8"

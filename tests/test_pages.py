"""Pages: the charset that decodes them, and chunks that are joined."""

from __future__ import annotations

import pytest

from penstock.transforms.pages import decode_page, unchunk


@pytest.mark.parametrize(
    ("body", "charset", "text", "used"),
    [
        (b"caf\xc3\xa9", "utf-8", "café", "utf-8"),
        (b"caf\xe9", "ISO-8859-1", "café", "cp1252"),
        (b"\x93x\x94", "latin1", "“x”", "cp1252"),
        (b"<meta charset=windows-1251>\xcf\xf0\xe8", None, "При", "cp1251"),
        (b'<meta http-equiv=a content="text/html; charset=EUC-JP">\xc6\xfc\xcb\xdc', None, "日本", "euc_jp"),
        (b'<?xml version="1.0" encoding="koi8-r"?>\xf0\xf2\xe9', None, "ПРИ", "koi8-r"),
        (b"<meta charset=utf-16>caf\xc3\xa9", None, "café", "utf-8"),
        (b"caf\xc3\xa9", None, "café", "utf-8"),
        (b"caf\xc3\xa9", "no-such-charset", "café", "utf-8"),
        (b"\xef\xbb\xbfcaf\xc3\xa9", "latin1", "café", "utf-8"),
        ("\ufeffé漢".encode("utf-16-le"), "latin1", "é漢", "utf-16-le"),
        (b"\xff\xfe\0", None, "\ufffd", "utf-16-le"),
        (b"a\0b", "utf-8", "a\0b", "utf-8"),
        (b"", None, "", "utf-8"),
    ],
)
def test_charsets(body: bytes, charset: str | None, text: str, used: str) -> None:
    found, codec = decode_page(body, charset)
    assert found.endswith(text)
    assert codec == used


def test_what_no_charset_decodes_is_replaced() -> None:
    broken = b"<p>" + b"\xe6\xbc\xa2\xe5\xad\x97 " * 40 + b"\xff\x81\x8d\x00"
    text, codec = decode_page(broken, "utf-8")
    assert (text, codec) == ("<p>" + "漢字 " * 40 + "\ufffd" * 3 + "\0", "utf-8")


def test_detection_reads_what_names_no_charset() -> None:
    words = "Съешь же ещё этих мягких французских булок, да выпей чаю. " * 20
    assert decode_page(words.encode("cp1251"), None)[0] == words
    assert decode_page(words.encode("koi8-r"), "utf-8")[0] == words


def test_chunks_stored_without_chunks_are_kept() -> None:
    assert unchunk(b"<html>") == b"<html>"
    assert unchunk(b"") == b""
    assert unchunk((b"9;ext=1\r\n" + b"x" * 9 + b"\r\n") * 11 + b"1\r\nx\r\n0\r\n\r\n") == b"x" * 100
    assert unchunk(b"3\nabc\n0\n\n") == b"abc"

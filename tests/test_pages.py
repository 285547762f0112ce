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
        (b'<meta http-equiv=a content="text/html; charset=EUC-JP">\xc6\xfc\xcb\xdc', None, "日本", "euc_jis_2004"),
        ("①番目、㈱会社、髙島屋".encode("cp932"), "Shift_JIS", "①番目、㈱会社、髙島屋", "cp932"),
        ("똠방각하".encode("cp949"), "ks_c_5601-1987", "똠방각하", "cp949"),
        ("這裏是香港".encode("big5hkscs"), "big5", "這裏是香港", "big5hkscs"),
        ("①番目".encode("euc_jis_2004"), "euc-jp", "①番目", "euc_jis_2004"),
        ("简体、𠀀".encode("gb18030"), "gb2312", "简体、𠀀", "gb18030"),
        ("“ไทย” … €".encode("cp874"), "tis-620", "“ไทย” … €", "cp874"),
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


@pytest.mark.parametrize(
    ("text", "label", "codec", "stray"),
    [
        ("También, café, mañana: el niño comió piñón. ", "utf-8", "utf-8", b"\xe9"),
        ("También, café, mañana: el niño comió piñón. ", None, "utf-8", b"\xc3"),
        ("שלום עולם ושוב שלום. ", "windows-1255", "cp1255", b"\xd9"),
        ("Ένα κείμενο στα ελληνικά. ", "iso-8859-7", "iso8859-7", b"\xd2"),
        ("日本語の文章です。", "shift_jis", "cp932", b"\x81"),
    ],
)
def test_a_stray_byte_takes_no_page_its_charset(text: str, label: str | None, codec: str, stray: bytes) -> None:
    body = text.encode(codec)
    for page in (body * 20 + stray + b" " + body * 20, body * 20 + stray):
        found, used = decode_page(page, label)
        assert used == codec
        assert found.startswith(text * 20)
        assert found.count("\ufffd") == 1


def test_detection_reads_what_names_no_charset() -> None:
    words = "Съешь же ещё этих мягких французских булок, да выпей чаю. " * 20
    assert decode_page(words.encode("cp1251"), None)[0] == words
    assert decode_page(words.encode("koi8-r"), "utf-8")[0] == words


def test_chunks_stored_without_chunks_are_kept() -> None:
    assert unchunk(b"<html>") == b"<html>"
    assert unchunk(b"") == b""
    assert unchunk((b"9;ext=1\r\n" + b"x" * 9 + b"\r\n") * 11 + b"1\r\nx\r\n0\r\n\r\n") == b"x" * 100
    assert unchunk(b"3\nabc\n0\n\n") == b"abc"

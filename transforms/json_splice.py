"""Change one field of a JSON object, or add some, and leave every other byte of its line as it stands."""

from __future__ import annotations

import json
from typing import Any

_JSON = json.JSONDecoder(strict=False)
_SPACE = " \t\n\r"


def members(text: str) -> list[tuple[str, int, int]]:
    """List the members of the object that a line holds: name, and where its value begins and ends, in code points.

    The line is valid JSON; a name may stand more than once.
    """
    at, found = text.index("{") + 1, []
    while text[at := _past_space(text, at)] != "}":
        if text[at] == ",":
            at = _past_space(text, at + 1)
        name, at = _JSON.raw_decode(text, at)
        start = _past_space(text, _past_space(text, at) + 1)
        _, at = _JSON.raw_decode(text, start)
        found.append((name, start, at))
    return found


def _past_space(text: str, at: int) -> int:
    while text[at] in _SPACE:
        at += 1
    return at


def replace_value(line: bytes, name: str, value: Any) -> bytes:
    """Put another value in place of a member's; of members of one name the last, which is the one that counts.

    What is put in is ASCII where the line is.
    """
    text = line.decode()
    start, end = next((start, end) for found, start, end in reversed(members(text)) if found == name)
    said = json.dumps(value, ensure_ascii=line.isascii())
    return (text[:start] + said + text[end:]).encode()


def append_members(line: bytes, said: bytes) -> bytes:
    """Put members, `"name": value, …`, in front of the brace that closes the object of a line."""
    end = line.rindex(b"}")
    last = end - 1
    while line[last] in b" \t\n\r":
        last -= 1
    return b"".join((line[:end], b"" if line[last] == 0x7B else b", ", said, line[end:]))

"""Globs over paths with '/': where one begins to vary, and what it matches."""

from __future__ import annotations

import re
from collections.abc import Callable

from .. import InputError

WILD = re.compile(r"[*?\[]")


def split_root(
    path: str, is_folder: Callable[[str], bool] = lambda path: False
) -> tuple[str, re.Pattern[str] | None, int | None]:
    """Cut a pattern before its first part that varies: root folder, what a path below must match, how deep to look.

    A part that is the name of a folder as it stands, `[`, `*` and `?` in it, does not vary.
    """
    cut = 0
    while (wild := WILD.search(path, cut)) is not None:
        end = path.find("/", wild.end())
        if end < 0 or not is_folder(path[:end]):
            cut = path.rfind("/", 0, wild.start()) + 1
            tail = path[cut:]
            return path[:cut], glob_pattern(tail), None if "**" in tail else tail.count("/") + 1
        cut = end + 1
    return path, None, None


def glob_pattern(glob: str) -> re.Pattern[str]:
    """Turn a glob into a regular expression over whole paths: `*`, `?`, `[…]`, and `**`, which spans folders."""
    out, at = [], 0
    while at < len(glob):
        part, size = _part(glob, at)
        out.append(part)
        at += size
    try:
        return re.compile("".join(out) + r"\Z")
    except re.error as error:
        raise InputError(f"the glob {glob!r} has brackets that mean nothing ({error.msg}): [a-z], [!0-9]") from error


def _part(glob: str, at: int) -> tuple[str, int]:
    """Translate what a glob has at a place; how many characters that was."""
    for said, meant in (("**/", "(?:[^/]+/)*"), ("**", ".*"), ("*", "[^/]*"), ("?", "[^/]")):
        if glob.startswith(said, at):
            return meant, len(said)
    negated = glob[at + 1 : at + 2] in ("!", "^")
    end = glob.find("]", at + 2 + negated) if glob[at] == "[" else -1  # the first character may be a bracket itself
    if end < 0:
        return re.escape(glob[at]), 1
    inner = re.sub(r"([\\\[\]&|~])", r"\\\1", glob[at + 1 + negated : end])
    return f"[{'^/' if negated else ''}{inner}]", end + 1 - at

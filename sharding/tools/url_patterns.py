"""What a pattern of URLs means, in `trace --url` and `takedown --url` alike."""

from __future__ import annotations

from typing import Any

from ... import require


def matching(urls: Any, pattern: str) -> Any:
    """Say which URLs contain `pattern`, or match it whole where it holds `*`: an Arrow mask, null where there is none.

    Case counts; `*` stands for anything, and no other character is special, because URLs are full of `?` and `[`.
    urls: an Arrow array of strings.
    """
    compute = require("pyarrow.compute", "curate")
    if "*" not in pattern:
        return compute.match_substring(urls, pattern)
    # By code, because no way of escaping is the same for all of RE2's special characters.
    literal = ["".join(f"\\x{{{ord(letter):x}}}" for letter in part) for part in pattern.split("*")]
    return compute.match_substring_regex(urls, f"(?s)^{'.*'.join(literal)}$")

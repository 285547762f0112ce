"""The equality gate: a fast engine stays only where it gives the ids of the reference.

At load both engines encode a fixed adversarial set (under a second with the slowest reference); afterwards callers give
the first documents of their own. One difference turns the fast engine off. The set aims at what has told tokenizers
apart in practice: contractions, runs of space and newlines, digits, scripts, Unicode versions, literal markers.
"""

from __future__ import annotations

import contextlib
import random
import unicodedata
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from .. import RequestError
from .definition import Definition
from .engines import Engine

#: Texts whose ids enter every fingerprint. To change one is to change every fingerprint there is.
PROBES = (
    "",
    " ",
    "Hello, world!",
    "  two  spaces and\ttab\n\n\nthree newlines \r\n",
    "I'm YOU'RE they'll it'S 'ſ",
    "0 12 345 6789 3.14159 1,000,000 ٣٤٥ Ⅻ ½",
    "def f(x):\n    return x**2  # \t done\n",
    "Größe naïve ﬁnance ①②③ ａｂｃ",
    "中文字符，日本語のテキスト。한국어 텍스트",
    "العربية עברית हिन्दी ไทย ខ្មែរ བོད་",
    "e\u0301 \u00e9 \u0130 \u212a \u1e9e",
    "👩‍👩‍👧‍👦 🇺🇳 ✊🏽 \U0001f9ff",
    "\u00a0\u2003\u3000\u200b\u202f\ufeff|\u0085|\u180e",
    "\x00\x01\x1c\x7f",
    "<|endoftext|></s><s><unk> <0x41> [INST]<bos>",
    "▁ ▁▁ Ġ Ċ",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa--------================",
    "https://example.org/a?b=c&d=%20#e user@example.org",
    "QmFzZTY0IGlzIG5vdCBhIHdvcmQ=",
)
_LITERALS = (
    "<|endoftext|>",
    "</s>",
    "<s>",
    "<unk>",
    "<pad>",
    "<0x0A>",
    "<|im_start|>",
    "<|fim_prefix|>",
    "[INST]",
    "<bos>",
    "<eos>",
    "[MASK]",
)
_ATOMS = (
    *" \n\r\t\x0b\x85\xa0\u180e\u2028\u3000",
    *("  ", "\r\n", "\n\n", "'s", "'S", "'ll", "'RE", "'ſ", "’s", "''", "'"),
    *(
        "a",
        "B",
        "the",
        "Word",
        "XML",
        "ſ",
        "K",
        "ß",
        "ŉ",
        "ǆ",
        "ʰ",
        "ª",
        "é",
        "e\u0301",
        "\u0301",
        "\u0e33",
        "क्",
        "漢",
        "の",
        "ー",
        "한",
        "\u1100\u1161",
        "ا",
        "א",
    ),
    *("1", "23", "456", "7890", "٣", "½", "Ⅻ", "²"),
    *(
        ".",
        ",",
        "!",
        "/",
        "_",
        "-",
        "--",
        "...",
        "(",
        "{}",
        "$",
        "€",
        "`",
        "\\",
        "#",
        "@",
        "▁",
        "Ġ",
        "\u200b",
        "\u200d",
        "\ufeff",
        "👩",
        "🇺",
        "\ue000",
        "\uffff",
        "\U0010ffff",
        "\x00",
    ),
)


@lru_cache(maxsize=1)
def adversarial() -> tuple[str, ...]:
    """Give the fixed set: the probes, 4,000 seeded mixtures of awkward atoms, runs, and a sweep over Unicode."""
    rng = random.Random(20260)
    mixtures = ["".join(rng.choices(_ATOMS, k=rng.randint(1, 16))) for _ in range(4_000)]
    literals = [form.format(literal) for literal in _LITERALS for form in ("{}", " {} ", "x{}x", "{0}{0}\n")]
    runs = [
        atom * count + tail
        for atom in (" ", "\n", "\t", "a", "A", "1", ".", "é", "漢", "👩")
        for count in (2, 3, 4, 7, 64, 1_000)
        for tail in ("", "b", " ")
    ]
    return (*PROBES, *literals, *runs, *mixtures, *_sweep())


def _sweep() -> list[str]:
    """Put code points at class boundaries, and every 31st besides, between letters, digits, marks and spaces."""
    points, before = [], ""
    for point in range(0x20000):
        category = unicodedata.category(chr(point))
        if category != before or point % 31 == 0:
            points.append(point)
        before = category
    kept = [chr(point) for point in (*points, *range(0x20000, 0x110000, 4093)) if not 0xD800 <= point < 0xE000]
    return [" ".join(f"{c}'s 1{c}a" for c in kept[start : start + 32]) for start in range(0, len(kept), 32)]


def about(definition: Definition, reference: Engine) -> list[str]:
    """Give what only this vocabulary makes awkward: its added tokens alone and inside words, a sample of its pieces."""
    names = [*list(definition.control)[:200], *definition.literals[:400]]
    forms = [form.format(name) for name in names for form in ("{}", " {} ", "x{}x", "{0}{0}")]
    pieces = []
    for place in range(0, definition.vocab_size, definition.vocab_size // 2_000 + 1):
        with contextlib.suppress(RequestError):  # an id that stands for nothing
            pieces.append(reference.decode([place]))
    return [*forms, "".join(names), *pieces]


def difference(fast: Engine, reference: Engine, texts: Sequence[str]) -> str | None:
    """Say which text the two engines read differently; `None` where they agree on all."""
    for text, ours, theirs in zip(texts, fast.encode(texts), reference.encode(texts), strict=True):
        if not np.array_equal(ours, theirs):
            at = int(np.argmin(np.append(ours[: len(theirs)] == theirs[: len(ours)], False)))
            counts = f"{len(ours)} and {len(theirs)} tokens"
            return f"{fast.library} and {reference.library} differ from token {at} on in {text[:60]!r} ({counts})"
    return None


def reached(engine: Engine, definition: Definition) -> str | None:
    """Name a control token that its own text becomes; `None` where all of them are out of reach."""
    control = {place: name for name, place in definition.control.items() if place != definition.unknown}
    for name in control.values():
        for found in engine.encode([name, f" {name}", f"x {name} x"]):
            hit = next((control[int(place)] for place in found if int(place) in control), None)
            if hit is not None:
                return hit
    return None

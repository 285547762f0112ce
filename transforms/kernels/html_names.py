"""What the HTML kernels know by name: elements, the words of classes and ids, character references.

The tables are constants of the kernels that use them, which compile in a third of the time that way.
"""

from __future__ import annotations

import html.entities
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Bits of an element's kind.
VOID = 1  # has no content and no end tag
RAW = 2  # its content is no markup
DROP = 4  # its text is never part of a document
BLOCK = 8  # starts and ends a line
APART = 16  # a block with an empty line before and after
CLOSES_P = 32  # its start ends an open paragraph
FURNITURE = 64  # navigation and the like, by its name
SCOPE = 128  # an end tag inside does not close what is open outside
CELL = 256
HEADING = 512

TEXT, OTHER = 0, 1  # numbers of a stretch of text, and of an element that is not listed
_KINDS = {
    VOID: "area base br col embed hr img input link meta param source track wbr",
    RAW: "script style textarea title iframe noembed noframes xmp",
    DROP: "script style textarea title iframe noembed noframes noscript template svg math object audio video canvas "
    "select datalist button head map applet",
    BLOCK: "address article aside blockquote caption center dd details dialog dir div dl dt fieldset figcaption figure "
    "footer form h1 h2 h3 h4 h5 h6 header hgroup hr legend li main menu nav ol optgroup option p pre search section "
    "summary table tbody tfoot thead tr ul",
    APART: "blockquote dl figure h1 h2 h3 h4 h5 h6 hr ol p pre table ul",
    CLOSES_P: "address article aside blockquote center details dialog dir div dl fieldset figcaption figure footer "
    "form h1 h2 h3 h4 h5 h6 header hgroup hr main menu nav ol p pre search section table ul",
    FURNITURE: "nav aside footer menu dialog",
    SCOPE: "table td th caption html button",
    CELL: "td th",
    HEADING: "h1 h2 h3 h4 h5 h6",
}
_OTHERS = "a b br i em strong span code tt kbd samp var sub sup small body html u s q cite abbr font ins del label time"
NAMES = ("", "?", *sorted({name for names in [*_KINDS.values(), _OTHERS] for name in names.split()}))
NUMBER = {name: number for number, name in enumerate(NAMES)}

#: Words in a class, an id or a role: what is furniture by it, anywhere in a word, and what may be, where a word begins.
SURE, LIKELY = 1, 2
WORDS = {
    SURE: "navbar navheader navfooter navigat navlist navbox nav-tabs nav-links docnav topnav subnav bottomnav "
    "sitenav mainnav leftnav spirit-nav breadcrumb footer footnav contentinfo complementary cookie "
    "consent gdpr pagination paginator pager skip-link skipnav headerlink permalink- icon tocset "
    "newsletter subscri share-b sharedaddy sharing social addtoany advert sponsor banner popup pop-up "
    "modal login signup sign-up toolbar legalcopy legal-copy print-only copyright comment disqus respond",
    LIKELY: "menu related recommend teaser promo widget header masthead tags tag-list meta share author bio "
    "search toc rating hidden more-on read-more byline outbrain taboola carousel slider credit kategor "
    "categor recent blogroll trending popular latest prev next-post archive caption read- also follow "
    "feedback donat sidebar side-bar",
}


def packed(name: str) -> int:
    """Pack a name into 64 bits: its first 7 bytes and its length."""
    return int.from_bytes(name.encode()[:7].ljust(7, b"\0"), "little") | len(name) << 56


def reference_hash(name: bytes) -> int:
    """Hash the name of a character reference, as the kernel does."""
    value = 5381
    for byte in name:
        value = (value * 33 + byte) & 0xFFFFFFFF
    return value ^ value >> 13


def _laid_out(names: list[bytes]) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    spans = np.cumsum([0, *map(len, names)]).astype(np.int64)
    return spans, np.frombuffer(b"".join(names), np.uint8).copy()


def _references() -> tuple[NDArray[np.int64], NDArray[Any], NDArray[np.uint8], NDArray[np.int64]]:
    """Give a hash table of the names (numbers, -1 free), their spans and bytes, and one or two code points each."""
    known = {name.encode(): value for name, value in sorted(html.entities.html5.items())}
    slots, codes = np.full(1 << 13, -1, np.int64), np.zeros((len(known), 2), np.int64)
    for number, (name, value) in enumerate(known.items()):
        codes[number, : len(value)] = [ord(char) for char in value]
        slot = reference_hash(name) & (len(slots) - 1)
        while slots[slot] >= 0:
            slot = (slot + 1) & (len(slots) - 1)
        slots[slot] = number
    return slots, *_laid_out(list(known)), codes


_SORTED = sorted((packed(name), number) for name, number in NUMBER.items() if number > OTHER)
KEYS = np.array([key for key, _ in _SORTED], np.uint64)
NUMBERS = np.array([number for _, number in _SORTED], np.int64)
#: The bits of each element, by number.
KINDS = np.zeros(len(NAMES), np.int64)
for _bit, _names in _KINDS.items():
    KINDS[[NUMBER[_name] for _name in _names.split()]] |= _bit
#: Which group an element is of, which groups its start ends when they are open, and past which that is not looked for.
_GROUPS = ("p", "li", "dt dd", "td th", "tr", "tbody thead tfoot", "option", "a", "ul ol menu", "dl", "table")
_ENDS = {"li": "ul", "dt dd": "dl table", "td th": "tr table", "tr": "table", "tbody thead tfoot": "table",
         "option": "table", "a": "td table"}  # fmt: skip
GROUP, ENDS, UNTIL = (np.zeros(len(NAMES), np.int64) for _ in range(3))
for _bit, _group in enumerate(_GROUPS):
    GROUP[[NUMBER[_name] for _name in _group.split()]] = 1 << _bit
for _group, _until in _ENDS.items():
    for _name in _group.split():
        ENDS[NUMBER[_name]] = GROUP[NUMBER[_name]]
        UNTIL[NUMBER[_name]] = sum(GROUP[NUMBER[_stop]] for _stop in _until.split())
PARAGRAPH, CELLS, TABLES, PARTS = (int(GROUP[NUMBER[_name]]) for _name in ("p", "td", "table", "tbody"))
ROWS = int(GROUP[NUMBER["tr"]])
_WORDS = sorted((word.encode(), bit) for bit, line in WORDS.items() for word in line.split())
#: Words that begin with a byte: those from WORD_FIRST[byte] to WORD_FIRST[byte + 1].
WORD_FIRST = np.searchsorted([word[0] for word, _ in _WORDS], np.arange(257)).astype(np.int64)
WORD_SPANS, WORD_BYTES = _laid_out([word for word, _ in _WORDS])
WORD_BITS = np.array([bit for _, bit in _WORDS], np.int64)
REFERENCE_SLOTS, REFERENCE_SPANS, REFERENCE_BYTES, REFERENCE_CODES = _references()
#: What the numeric references 128 to 159 mean.
WINDOWS = np.array([ord(bytes([byte]).decode("cp1252", "replace")) for byte in range(128, 160)], np.int64)

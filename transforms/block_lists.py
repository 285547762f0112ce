"""Block lists of domains, URLs and words: read from files or UT1's folders, and laid out for the kernels.

A million domains take half a second and 73 MB a process, half of it the list's own bytes.
"""

from __future__ import annotations

import gzip
import io
import re
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from hashlib import sha256
from itertools import pairwise
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from .. import InputError, require
from .files import open_input
from .kernels import urls as kernels
from .kernels.strings import Bytes, Strings, build_strings, read_lines, tails_of

PUBLIC_SUFFIXES = Path(__file__).parent / "data" / "public_suffix_list.dat"

#: Most bytes of one kind of list.
LARGEST = 1 << 31
_UT1 = ("domains", "urls")


def read_list(path: str) -> bytes:
    """Read a file whole, unpacked where it is gzip or zstd. InputError: it cannot be read."""
    with open_input(path) as file:
        body = file.read()
    try:
        if body[:2] == b"\x1f\x8b":
            return gzip.decompress(body)
        if body[:4] == b"\x28\xb5\x2f\xfd":
            with require("zstandard", "curate").ZstdDecompressor().stream_reader(body) as reader:
                return bytes(reader.read())
    except Exception as error:  # gzip, zlib and zstandard have classes of their own
        raise InputError(f"the list {path!r} cannot be unpacked: {error}") from error
    return body


def read_ut1(path: str, categories: Sequence[str] | None = None) -> Iterator[tuple[str, str, bytes]]:
    """Read the `domains` and `urls` of UT1's categories: (category, kind, body), sorted.

    A folder is searched below, and so is a tar archive; the category is the name of the folder that holds the lists.
    """
    found = sorted(_members(path))
    known = sorted({category for category, _, _ in found})
    if missing := sorted(set(categories or ()) - set(known)):
        raise InputError(f"{path!r} has no category {missing[0]!r}; it has {', '.join(known) or 'none'}")
    if not found:
        raise InputError(f"{path!r} holds no file named `domains` or `urls`, as UT1's categories do")
    return ((name, kind, body) for name, kind, body in found if categories is None or name in categories)


def _members(path: str) -> Iterator[tuple[str, str, bytes]]:
    folder = Path(path)
    if folder.is_dir():
        for file in folder.rglob("*"):
            if (kind := file.name.removesuffix(".gz")) in _UT1 and file.is_file():
                yield file.parent.name, kind, read_list(str(file))
        return
    try:
        with tarfile.open(fileobj=io.BytesIO(read_list(path))) as archive:
            for member in archive:
                place = PurePosixPath(member.name)
                if place.name in _UT1 and (file_ := archive.extractfile(member)) is not None:
                    yield place.parent.name, place.name, file_.read()
    except tarfile.TarError as error:
        raise InputError(f"{path!r} is neither a folder nor a tar archive of UT1's lists: {error}") from error


def digest(bodies: Iterable[bytes]) -> str:
    """Hash lists as they were read; the order in which they are named matters, as the first entry found is shown."""
    total = sha256()
    for body in bodies:
        total.update(sha256(body).digest())
    return total.hexdigest()


def entries(bodies: Sequence[bytes], lower: bool, hosts: bool = False) -> tuple[NDArray[np.uint32], Bytes]:
    """Take the lines of lists: (n + 1,) starts and bytes. Empty lines and those that begin with `#` are left out."""
    body = b"\n".join(bodies)
    if len(body) >= LARGEST:
        raise InputError(f"lists of one kind have {len(body)} bytes, and at most {LARGEST - 1} fit: leave some out")
    return read_lines(np.frombuffer(body, np.uint8), lower, hosts)


def domain_set(bodies: Sequence[bytes], exact: bool) -> Strings:
    """Lay out domains: as they are written, or in lower case, without dots at their ends, and names in punycode."""
    if not exact:
        bodies = [body if body.isascii() else _in_ascii(body) for body in bodies]
    return build_strings(*entries(bodies, lower=not exact, hosts=not exact))


def _in_ascii(body: bytes) -> bytes:
    return "\n".join(punycode(line.strip(" \t\r.*")) for line in body.decode("utf-8", "replace").split("\n")).encode()


def punycode(host: str) -> str:
    """Write a host in ASCII (IDNA 2003, as Python has it); what is no valid name stays, in lower case."""
    if host.isascii():
        return host
    try:
        return host.encode("idna").decode("ascii").lower()
    except UnicodeError:
        return host.lower()


def url_set(bodies: Sequence[bytes], exact: bool) -> kernels.Urls:
    """Lay out URLs: as they are written, or as their keys."""
    starts, marks = entries(bodies, lower=False)
    strings = build_strings(starts, marks) if exact else build_strings(*kernels.url_keys(starts, marks))
    return strings, tails_of(strings)


def words_of(bodies: Sequence[bytes], dropped: str) -> list[str]:
    """Take words, in lower case and without the characters that are no part of one; each once, in order."""
    starts, marks = entries(bodies, lower=True)
    lines = [bytes(marks[a:b]).decode("utf-8", "replace") for a, b in pairwise(starts.tolist())]
    return list(dict.fromkeys(word for line in lines if (word := re.sub(dropped, "", line))))


def string_set(values: Iterable[str]) -> Strings:
    """Lay out strings."""
    bodies = [value.encode() for value in values]
    starts = np.cumsum([0, *map(len, bodies)], dtype=np.uint32)
    return build_strings(starts, np.frombuffer(b"".join(bodies), np.uint8))


def word_set(hard: Sequence[str], soft: Sequence[str]) -> kernels.Words:
    """Lay out hard and soft words in one set."""
    bits: dict[str, int] = dict.fromkeys(hard, kernels.HARD)
    for word in soft:
        bits[word] = bits.get(word, 0) | kernels.SOFT
    return string_set(bits), np.array(list(bits.values()), np.uint8)


@lru_cache(4)
def public_suffixes(path: Path = PUBLIC_SUFFIXES) -> kernels.Suffixes:
    """Lay out the public suffixes of registries (Mozilla's list, its ICANN part), in Unicode and in punycode."""
    bits: dict[str, int] = {}
    for line in path.read_text("utf-8").partition("===END ICANN DOMAINS===")[0].splitlines():
        rule = line.strip()
        if not rule or rule.startswith("//"):
            continue
        for name in {rule, ".".join(punycode(label) for label in rule.split("."))}:
            _add_suffix(bits, name)
    return string_set(bits), np.array(list(bits.values()), np.uint8)


def _add_suffix(bits: dict[str, int], rule: str) -> None:
    name, bit = rule, kernels.SUFFIX | kernels.NODE
    if rule.startswith("!"):
        name, bit = rule[1:], kernels.EXCEPTION
    elif rule.startswith("*."):
        name, bit = rule[2:], kernels.WILD | kernels.NODE
    bits[name] = bits.get(name, 0) | bit
    above = name.partition(".")[2]
    while above:
        bits[above] = bits.get(above, 0) | kernels.NODE
        above = above.partition(".")[2]

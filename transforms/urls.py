"""Drop documents by their URL, before a page is parsed: block lists of domains and URLs, and words in the URL.

RefinedWeb's rules (Penedo et al. 2023, arXiv:2306.01116, Appendix G.1), which FineWeb took over. All lists are the
user's; UT1's (https://dsi.ut-capitole.fr/blacklists/) are read as they are distributed. 300,000 URLs a second on a busy
core, where datatrove does 13,600.

Three ways to read a URL:

    penstock    a listed domain bans its sub-domains, so no list of public suffixes is needed; URLs are compared without
                scheme, `www.`, user, default port, fragment, last slash and case; words in lower case, `%20` ends one
    fineweb     decides as datatrove v0.10.0 does (`pipeline/filters/url_filter.py`), with its ways: the registered
                domain or the whole host is listed; an IP address never is; hosts, words and URLs are told by case, so
                that `/PORN/` passes; a URL is listed with its scheme or does not match
    dclm        as DCLM-baseline's `url_substring_filter`: the host alone is listed, `www.` aside (there the letters
                are removed and the dot is left, so that no such host ever matches); `_` is a letter of a word;
                sub-words are sought in the URL without `-` and `.` alone
"""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field, model_validator

from .. import InputError
from . import block_lists as lists
from .held import Held, stamp
from .kernels.aho_corasick import Automaton, build_automaton
from .kernels.splice import splice
from .kernels.strings import Bytes, Strings, entry_text
from .kernels.urls import EXACT, PARENTS, REGISTERED, RULES, Suffixes, Urls, Words, foreign_hosts, url_counts
from .step import Filter, Outcome, Scores, first_reason, utf8_buffers, with_columns

Paths = Annotated[tuple[str, ...], BeforeValidator(lambda value: (value,) if isinstance(value, str) else value)]
MOST_CELLS = 1 << 28  # of the table that finds sub-words: 2 GiB while it is built
_ALNUM = string.ascii_letters + string.digits


class UrlFilter(Filter):
    """Drop documents whose URL is on a list, or holds words that are. Stands before extraction: pages need no text.

    Each list is a file or several: an entry a line, those that begin with `#` left out, gzip and zstd unpacked.
    `blocklists` are folders or tar archives in UT1's layout, whose `domains` and `urls` are added, of the `categories`
    named or of all. `hosts` ban a host and not what lies below it. Words lose what is neither letter nor digit.

    Scores, one a rule: how many entries the URL matches (`domain`: the host and its parents; words and sub-words:
    different ones), and `missing`. The column `url_filter.match` names the entry behind the reason.

    >>> _ = (folder / "domains").write_text("casino.example")
    >>> batch = pa.record_batch({"url": ["https://WWW.Casino.example:443/", "https://example.org/", None]})
    >>> outcome = UrlFilter(domains=str(folder / "domains")).apply(batch)
    >>> outcome.reasons.to_pylist(), outcome.batch["url_filter.match"].to_pylist()
    (['url_filter/domain', None, None], ['casino.example', None, None])
    """

    files = ("blocklists", "domains", "hosts", "urls", "hard_words", "soft_words", "subwords")
    kind: Literal["url_filter"] = "url_filter"
    variant: Literal["penstock", "fineweb", "dclm"] = "penstock"
    blocklists: Paths = ()
    categories: tuple[str, ...] | None = None
    domains: Paths = ()
    hosts: Paths = ()
    urls: Paths = ()
    hard_words: Paths = ()
    soft_words: Paths = ()
    subwords: Paths = ()
    soft_words_threshold: Annotated[int, Field(ge=1)] = 2  # RefinedWeb, G.1.2; datatrove's soft_word_threshold
    missing: Literal["keep", "drop"] = "keep"

    @model_validator(mode="after")
    def _check(self) -> UrlFilter:
        """Refuse lists that cannot be read, or none at all, before anything runs."""
        if not any(getattr(self, name) for name in self.files):
            raise ValueError(f"no list is named, so nothing would be dropped: give one of {', '.join(self.files)}")
        if self.categories is not None and not self.blocklists:
            raise ValueError(f"categories is {list(self.categories)} and blocklists is empty: name UT1's folder there")
        if self.hosts and self.variant == "fineweb":
            raise ValueError("variant 'fineweb' looks for hosts among the domains: put the hosts there")
        self._loaded(fresh=True)
        return self

    def measure(self, batch: pa.RecordBatch) -> Scores:
        """Count the entries that each URL matches, int64 a rule."""
        return self._measured(batch)[0]

    def decide(self, scores: Scores) -> pa.StringArray:
        """Say why each row is dropped, the first rule in datatrove's order and by its names; null where it is kept."""
        return first_reason(self._fired(scores))

    def apply(self, batch: pa.RecordBatch) -> Outcome:
        """Add the scores and `url_filter.match`, and give the reasons."""
        scores, entries = self._measured(batch)
        fired = self._fired(scores)
        columns = {f"{self.kind}.{name}": pa.array(values) for name, values in scores.items()}
        columns[f"{self.kind}.match"] = self._matches(np.column_stack(list(fired.values())), entries)
        return Outcome(with_columns(batch, columns), first_reason(fired))

    def fingerprint(self) -> dict[str, Any]:
        """Name what decides: the fields, with the digests of the lists in place of their paths."""
        return {**super().fingerprint(), **self._loaded(fresh=True).digests}

    def _fired(self, scores: Scores) -> dict[str, NDArray[np.bool_]]:
        rules = {
            "missing": (scores["missing"] > 0) & (self.missing == "drop"),
            "domain": scores["domain"] > 0,
            "subdomain": scores["subdomain"] > 0,
            "url": scores["url"] > 0,
            "hard_blacklisted": scores["hard_words"] > 0,
            "soft_blacklisted": scores["soft_words"] >= self.soft_words_threshold,
            "blacklisted_subword": scores["subwords"] > 0,
        }
        return {f"{self.kind}/{rule}": fired for rule, fired in rules.items()}

    def _measured(self, batch: pa.RecordBatch) -> tuple[dict[str, NDArray[Any]], NDArray[np.int64]]:
        loaded, column = self._loaded(), batch.column("url")
        offsets, data = utf8_buffers(column if self.variant == "fineweb" else in_ascii(column))
        counts, entries = url_counts(offsets, data, *loaded.tables)
        scores: dict[str, NDArray[Any]] = {"missing": (np.diff(offsets) == 0).astype(np.int64)}
        scores |= {rule: np.ascontiguousarray(counts[:, number]) for number, rule in enumerate(RULES)}
        return scores, entries

    def _matches(self, fired: NDArray[np.bool_], entries: NDArray[np.int64]) -> pa.Array:
        """Name the entries behind each row's reason; fired: (n, 1 + RULES)."""
        names: list[str | None] = [None] * len(fired)
        rows = np.flatnonzero(fired.any(axis=1))
        sets = self._loaded().sets()
        for row, first, found in zip(
            rows.tolist(), fired[rows].argmax(axis=1).tolist(), entries[rows].tolist(), strict=True
        ):
            if first == 0:  # the missing URL has no entry
                continue
            numbers = found[len(RULES) :] if RULES[first - 1] == "soft_words" else found[first - 1 : first]
            names[row] = ", ".join(entry_text(sets[first - 1], number) for number in numbers if number >= 0)
        return pa.array(names, pa.string())

    def _loaded(self, fresh: bool = False) -> _Loaded:
        """Give the lists as this process holds them; `fresh` reads them again if a file has changed."""
        named = tuple((name, path) for name in self.files for path in getattr(self, name))
        key = (named, self.categories, self.variant)
        return _HELD.get(key, lambda: _stamps(named), lambda: _load(*key), fresh)


def in_ascii(urls: pa.Array) -> pa.Array:
    """Write hosts in punycode where they are not ASCII; everything else as it is."""
    offsets, data = utf8_buffers(urls)
    if len(urls) == 0 or not (data[offsets[0] : offsets[-1]] >= 128).any():
        return urls
    found = foreign_hosts(offsets, data)
    if not len(found):
        return urls
    hosts = [bytes(data[first:end]).decode("utf-8", "replace") for _, first, end in found.tolist()]
    written = pa.array(map(lists.punycode, hosts), pa.large_string())
    starts, body = splice(offsets, data, found[:, 0].copy(), found[:, 1:].copy(), *utf8_buffers(written))
    return pa.LargeStringArray.from_buffers(len(urls), pa.py_buffer(starts), pa.py_buffer(body))


@dataclass(frozen=True)
class _Loaded:
    """Lists as a process holds them."""

    digests: Mapping[str, str]
    tables: tuple[Strings, Strings, Urls, Suffixes, Words, Automaton, int, tuple[Bytes, Bytes], bool]
    subwords: Strings

    def sets(self) -> tuple[Strings, ...]:
        """Give the set that holds the entries of each rule, in the order of RULES."""
        domains, hosts, (urls, _), _, (words, _) = self.tables[:5]
        return domains, domains if self.tables[6] == REGISTERED else hosts, urls, words, words, self.subwords


_HELD: Held[_Loaded] = Held()


def _stamps(named: Sequence[tuple[str, str]]) -> tuple[int, ...]:
    """Tell whether lists may have changed: times and sizes of what lies at local paths."""
    places = [Path(path) for _, path in named]
    found = [file for place in places for file in (sorted(place.rglob("*")) if place.is_dir() else [place])]
    return tuple(number for file in found if file.is_file() for number in stamp(file))


def _load(named: Sequence[tuple[str, str]], categories: tuple[str, ...] | None, variant: str) -> _Loaded:
    """Read lists and lay them out."""
    bodies: dict[str, list[bytes]] = {name: [] for name in UrlFilter.files}
    ut1: list[bytes] = []
    for name, path in named:
        if name != "blocklists":
            bodies[name].append(lists.read_list(path))
            continue
        for _, kind, body in lists.read_ut1(path, categories):
            bodies[kind].append(body)
            ut1 += [kind.encode(), body]
    digests = {name: lists.digest(bodies[name]) for name in UrlFilter.files}
    digests["blocklists"] = lists.digest(ut1)
    return _Loaded(digests, *_tables(bodies, variant))


def _tables(bodies: Mapping[str, list[bytes]], variant: str) -> tuple[Any, Strings]:
    """Lay lists out for the kernel."""
    exact, dclm = variant == "fineweb", variant == "dclm"
    dropped = r"\s" if dclm else r"[^a-z0-9]+"
    hard, soft = (lists.words_of(bodies[name], dropped) for name in ("hard_words", "soft_words"))
    subwords = lists.words_of(bodies["subwords"], dropped)
    hidden = lists.string_set(subwords)
    cells = len(hidden[2]) * (len(np.unique(hidden[2])) + 3)
    if cells > MOST_CELLS:
        raise InputError(
            f"the sub-words need a table of up to {cells} cells, and {MOST_CELLS} are allowed: leave some out"
        )
    automaton = build_automaton(*hidden[1:])
    how = REGISTERED if exact else EXACT if dclm else PARENTS
    suffixes = lists.public_suffixes() if exact else (lists.string_set(()), np.zeros(0, np.uint8))
    domains, hosts = (lists.domain_set(bodies[name], exact) for name in ("domains", "hosts"))
    urls = lists.url_set(bodies["urls"], exact)
    maps = _reads(variant)
    words = lists.word_set(hard, soft)
    return (domains, hosts, urls, suffixes, words, automaton, how, maps, variant == "penstock"), hidden


def _reads(variant: str) -> tuple[Bytes, Bytes]:
    """Say what each byte is read as in words and in sub-words; 0 ends a word, and is passed over in a sub-word."""
    words, subwords = np.zeros(256, np.uint8), np.zeros(256, np.uint8)
    for letter in _ALNUM:
        subwords[ord(letter)] = ord(letter.lower())
        words[ord(letter)] = ord(letter) if variant == "fineweb" else ord(letter.lower())
    if variant == "dclm":
        high = np.arange(128, 256)
        words[ord("_")], words[high] = ord("_"), high
        subwords[:] = np.arange(256)
        subwords[65:91] += 32
        subwords[[ord("-"), ord(".")]] = 0
    return words, subwords

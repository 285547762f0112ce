"""FineWeb-2's rules by language: what its 1,929 published configs set, as fields of penstock's steps.

From https://github.com/huggingface/fineweb-2 (Apache-2.0; Penedo et al. 2025, arXiv:2506.20920), `configs/*.yml` at
commit d0defb2, put into `data/fineweb2.tsv` by `tests/data/make_fineweb2_table.py`. The steps and their order are those
of its `fineweb-2-pipeline.py`: minimum score of the language, Gopher repetition without the rules on paragraphs and on
characters of lines, FineWeb's own rules without short lines, Gopher quality. Languages are named as GlotLID names them
(`fra_Latn`), or by the label of lid.176 that means them (`fr`). English has no config: it is FineWeb's.

The table is 350 kB, and 10 ms to read.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import Any

TABLE = Path(__file__).parent / "data" / "fineweb2.tsv"
Fields = MappingProxyType[str, Any]


@lru_cache(1)
def languages() -> MappingProxyType[str, str]:
    """Give every label that the table knows, of GlotLID and of lid.176, and its language's name in the table."""
    names = {language: language for language in _rows()}
    return MappingProxyType(names | {row["lid176"]: name for name, row in _rows().items() if row["lid176"]})


@lru_cache(1)
def digest() -> str:
    """Hash the table."""
    return sha256(TABLE.read_bytes()).hexdigest()


def fields(label: str) -> dict[str, dict[str, Any]]:
    """Give the fields of each kind of step for a language, in the order in which the steps stand.

    What datatrove reads as "off" is None here: 0 as a threshold on lines or on the length of words, a line_punct_thr
    below 0, a share above 1. (0 as a threshold on n-grams is one there too.)

    >>> fields("fr")["fineweb_quality"]
    {'variant': 'fineweb2', 'line_punct_thr': 0.1, 'new_line_ratio': 0.185}
    """
    if label not in languages():
        raise ValueError(
            f"FineWeb-2 has no config for {label!r}: it has {len(_rows())}, such as fra_Latn (or fr), and none for "
            "English, which is FineWeb's"
        )
    row = _rows()[languages()[label]]
    of = {name: float(value) for name, value in row.items() if name not in ("lid176", "stopwords")}
    return {
        "language_score": {"minimum": of["language_score"]},
        "gopher_repetition": {
            **dict.fromkeys(("dup_para_frac", "dup_para_char_frac", "dup_line_char_frac")),
            "dup_line_frac": _share(of["dup_line_frac"] or None),
            **{f"top_{size}_gram": of[f"top_{size}"] for size in (2, 3, 4)},
            **{f"duplicated_{size}_n_grams": _share(of[f"dup_{size}"]) for size in (5, 6, 7, 8, 9, 10)},
        },
        "fineweb_quality": {
            "variant": "fineweb2",
            "line_punct_thr": None if of["line_punct_thr"] < 0 else of["line_punct_thr"],
            "new_line_ratio": of["new_line_ratio"],
        },
        "gopher_quality": {
            "min_avg_word_length": of["min_avg_word_length"] or None,
            "max_avg_word_length": of["max_avg_word_length"] or None,
            "min_alpha_words_ratio": of["max_non_alpha_words_ratio"] or None,
            "min_stop_words": 2,
            "stop_words": row["stopwords"].split(" "),
        },
    }


def _share(threshold: float | None) -> float | None:
    return None if threshold is None or threshold > 1 else threshold


@lru_cache(1)
def _rows() -> dict[str, dict[str, str]]:
    head, *lines = (line.split("\t") for line in TABLE.read_text(encoding="utf-8").splitlines())
    return {name: dict(zip(head[1:], rest, strict=True)) for name, *rest in lines}

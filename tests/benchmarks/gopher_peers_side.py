"""DCLM's, dolma's and datatrove's own code as functions from a text to the first rule that drops it, or None."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

_BESIDE_SPACE = re.compile(r"(?<=[!-~])(?= )|(?<= )(?=[!-~])")
Decide = Callable[[str], "str | None"]
#: dolma's thresholds: configs/dolma-v1_6/mixing/cc-head.yaml, in its order as far as a rule on quality or repetition
#: goes; in each: the attribute, and below or above what it is excluded.
DOLMA_QUALITY = (
    ("word_count", "<", 50),
    ("word_count", ">", 100_000),
    ("median_word_length", "<", 3),
    ("median_word_length", ">", 10),
    ("symbol_to_word_ratio", ">", 0.1),
    ("fraction_of_words_with_alpha_character", "<", 0.8),
    ("required_word_count", "<", 2),
    ("fraction_of_lines_starting_with_bullet_point", ">", 0.9),
    ("fraction_of_lines_ending_with_ellipsis", ">", 0.3),
)
DOLMA_REPETITION = (
    ("fraction_of_duplicate_lines", ">", 0.3),
    ("fraction_of_characters_in_duplicate_lines", ">", 0.3),
    *((f"fraction_of_characters_in_most_common_{n}grams", ">", most) for n, most in ((2, 0.2), (3, 0.18), (4, 0.16))),
    *((f"fraction_of_characters_in_duplicate_{n}grams", ">", (20 - n) / 100) for n in range(5, 11)),
)


@cache
def segments(text: str) -> list[str]:
    """Cut a text at Unicode's bounds of words."""
    return [segment for piece in _BESIDE_SPACE.split(text) for segment in piece_segments(piece)]


@cache
def piece_segments(piece: str) -> list[str]:
    """Cut what stands between spaces, once for all texts: uniseg is slow, and no rule reaches over a space to ASCII."""
    from uniseg.wordbreak import words

    return list(words(piece))


def stand_in(name: str, **members: Any) -> ModuleType:
    """Put a module of this name where imports find it."""
    module = ModuleType(name)
    module.__path__ = []
    vars(module).update(members)
    sys.modules[name] = module
    return module


def load(name: str, path: Path) -> Any:
    """Import one file of a package that is not there as a whole."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def dclm(folder: Path) -> dict[str, Decide]:
    """Give DCLM's filters, called as `dclm_baseline_refinedweb.yaml` calls them."""
    stand_in("transformers", AutoTokenizer=None)
    stand_in("unidecode", unidecode=None)
    stand_in("core")
    stand_in("core.factory_utils", factory_function=lambda function: function)
    stand_in("core.constants", CONTENT="text")
    for name in ("baselines", "baselines.mappers"):
        stand_in(name)
    mappers = folder / "baselines" / "mappers"
    load("baselines.mappers.core_utils", mappers / "core_utils.py").words = segments
    filters = load("content_filters", mappers / "filters" / "content_filters.py")
    rules = (
        ("page_length", filters.page_length_filter,
         {"length_type": "word", "min_length": 50, "max_length": 100_000, "ignore_punctuation": True}),
        ("word_length", filters.word_length_filter, {"min_length": 3, "max_length": 10}),
        ("symbol_ratio", filters.symbol_ratio_filter, {"max_symbol_to_word_ratio": 0.1}),
        ("bullet_count", filters.bullet_count_filter, {"max_bullet_start_ratio": 0.9}),
        ("ellipsis_count", filters.ellipsis_count_filter, {"max_ellipsis_end_ratio": 0.3}),
        ("alphabetic_word_ratio", filters.alphabetic_word_ratio_filter, {"max_ratio": 0.2}),
        ("stop_word", filters.stop_word_filter, {"count_unique": False, "min_stop_word": 2}),
    )  # fmt: skip

    def quality(text: str) -> str | None:
        page = {"text": text}
        return next((name for name, rule, fields in rules if not rule(page, **fields)), None)

    last: list[Any] = []
    inner = filters.repetition_filter

    def watched(page: Any, granularity: Any, *given: Any, **fields: Any) -> Any:
        last[:] = [granularity, fields.get("count_characters", True)]
        return inner(page, granularity, *given, **fields)

    filters.repetition_filter = watched

    def repetition(text: str) -> str | None:
        if filters.massive_web_repetition_filters({"text": text}):
            return None
        if not text.strip():
            return "no_lines"
        granularity, characters = last
        if isinstance(granularity, str):
            return f"{granularity}_characters" if characters else f"{granularity}_count"
        return f"most_common_{granularity}_gram" if granularity < 5 else f"all_repeated_{granularity}_grams"

    return {"dclm.quality": quality, "dclm.repetition": repetition}


def departure(rule: str | None, text: str) -> str:
    """Say by which of penstock's departures, told in GopherRepetition, a rule of dolma's may not fire there."""
    words = text.split()
    if found := re.fullmatch(r"fraction_of_characters_in_most_common_(\d)grams", rule or ""):
        grams = list(zip(*(words[step:] for step in range(int(found[1]))), strict=False))
        return " of n-grams that stand once" if len(set(grams)) == len(grams) else ""
    blank = sum(not line.strip() for line in re.split(r"\n+", text))
    return " with blank lines at both ends or of space" if rule == "fraction_of_duplicate_lines" and blank > 1 else ""


def dolma(folder: Path) -> dict[str, Decide]:
    """Give dolma's taggers, with the thresholds of the mix."""
    for name in ("dolma", "dolma.core", "dolma.taggers"):
        stand_in(name)
    span = lambda start, end, type, score=1.0: (type, score)  # noqa: E731
    stand_in("dolma.core.data_types", DocResult=None, Document=None, Span=span)
    registry = type("TaggerRegistry", (), {"add": staticmethod(lambda name: lambda tagger: tagger)})
    stand_in("dolma.core.registry", TaggerRegistry=registry)
    stand_in("dolma.core.taggers", BaseTagger=object)
    tagger = load("dolma.taggers.gopher", folder / "dolma" / "taggers" / "gopher.py")

    def decider(rules: Any, runs: bool) -> Decide:
        def decide(text: str) -> str | None:
            spans = dict(tagger.get_attributes(text, ignore_empty_lines=runs).as_spans())
            for name, side, bound in rules:
                value = spans.get(name)  # too few words for an n-gram: no span
                if value is not None and (value < bound if side == "<" else value > bound):
                    return str(name)
            return None

        return decide

    return {
        f"{name}.{kind}": decider(rules, name == "dolma")
        for name in ("dolma", "dolma_v1")
        for kind, rules in (("quality", DOLMA_QUALITY), ("repetition", DOLMA_REPETITION))
    }


def unicode_words(text: str) -> list[str]:
    """Give the segments that hold a letter or a digit."""
    return [segment for segment in segments(text) if any(char.isalnum() for char in segment)]


def pairs(text: str) -> list[str]:
    """Give each word, and every other one together with the next: words with a space in them."""
    words = text.split()
    return [" ".join(words[at : at + 1 + at % 2]) for at in range(len(words))]


def datatrove(name: str, split: Callable[[str], list[str]]) -> dict[str, Decide]:
    """Give datatrove's filters with these words for those of its tokenizer."""
    from datatrove.data import Document
    from datatrove.pipeline.filters import gopher_quality_filter, gopher_repetition_filter

    def decider(module: Any, one: Any) -> Decide:
        def decide(text: str) -> str | None:
            module.split_into_words = lambda text, language: split(text)
            try:
                result = one.filter(Document(text=text, id="0"))
            except ZeroDivisionError:
                return "division by zero"
            return str(result[1]) if isinstance(result, tuple) else None

        return decide

    return {
        f"{name}.quality": decider(gopher_quality_filter, gopher_quality_filter.GopherQualityFilter()),
        f"{name}.repetition": decider(gopher_repetition_filter, gopher_repetition_filter.GopherRepetitionFilter()),
    }


def deciders(dclm_folder: Path, dolma_folder: Path) -> dict[str, Decide]:
    """Give every peer's two deciders."""
    given = {**datatrove("fineweb_unicode", unicode_words), **datatrove("fineweb_pairs", pairs)}
    return {**dclm(dclm_folder), **dolma(dolma_folder), **given}

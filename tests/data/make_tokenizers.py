"""Make the small vocabularies in tests/data/tokenizers from the text below, which was written for this purpose.

    python tests/data/make_tokenizers.py tests/data/tokenizers

Run it again only on purpose: tests/test_tokenizer.py pins the ids and fingerprints of these files.
"""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from penstock.tokenizer.train import train_sentencepiece

TEXT = """\
A penstock is the pipe that brings water under pressure to a turbine. The pipe is built of steel, and the water in it
comes from a reservoir behind the dam. When the gate opens, the water falls through the penstock, the turbine turns, and
the generator that stands above the turbine turns with it. In 1895 there were 10 turbines; in 1925 there were 250.
def pressure(height, density=1000.0, gravity=9.81):
    # the pressure at the foot of the pipe, in pascals
    return height * density * gravity
for (height, name) in [(12.5, "upper"), (480.0, "lower")]:
    print(name, pressure(height))
It isn't the water's speed that they're after, it's its weight. We'll measure it, I've said; you'd better not wait.
Das Wasser fällt durch das Rohr, die Turbine dreht sich, und über der Turbine dreht sich der Generator. Das Rohr heißt
Druckrohr, weil das Wasser darin unter Druck steht. Größe und Höhe entscheiden über die Leistung.
L'eau tombe dans la conduite forcée, la turbine tourne, et la génératrice tourne avec elle. Où est l'eau ? Derrière.
Вода падает по трубе, турбина вращается, и вместе с ней вращается генератор. Вода приходит из водохранилища.
水通过压力管道落下，水轮机转动，发电机也随之转动。水来自大坝后面的水库。水，水，水。
水は管を通って落ち、水車が回り、発電機も一緒に回る。
الماء يسقط في الأنبوب فتدور العنفة ويدور معها المولد.
"""
PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
SPECIAL = ["<|endoftext|>", "<|startoftext|>"]


def byte_level() -> Tokenizer:
    """Train a byte-level BPE with special tokens, an unflagged marker and an added word."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=600, initial_alphabet=alphabet, special_tokens=SPECIAL, show_progress=False
    )
    tokenizer.train_from_iterator(TEXT.split("\n"), trainer)
    tokenizer.add_tokens(["<|fim|>", AddedToken("|||PHONE|||", normalized=False)])
    return tokenizer


def unigram() -> Tokenizer:
    """Build a unigram `tokenizer.json` whose vocabulary holds `</s>` as a piece like any other."""
    words = [
        "▁",
        "▁the",
        "▁water",
        "▁pipe",
        "▁turns",
        "the",
        "wat",
        "er",
        "s",
        "</",
        ">",
        "▁<",
        *"abcdefghijklmnopqrstuvwxyz/<",
    ]
    pieces = [
        ("<unk>", 0.0),
        ("</s>", 0.0),
        *((word, -2.0 - place / 7) for place, word in enumerate(dict.fromkeys(words))),
    ]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=0, byte_fallback=False))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens(["</s>", "<unk>"])
    return tokenizer


def rank_lines(tokenizer: Tokenizer) -> bytes:
    """Write the byte-level vocabulary as ranks, in the order of its ids."""
    letters = sorted(set(range(33, 127)) | set(range(161, 173)) | set(range(174, 256)))
    others = [byte for byte in range(256) if byte not in letters]
    byte_of = {chr(byte): byte for byte in letters} | {chr(256 + place): byte for place, byte in enumerate(others)}
    vocab = json.loads(tokenizer.to_str())["model"]["vocab"]
    ordered = sorted((token for token in vocab if token not in SPECIAL), key=lambda token: vocab[token])
    rows = (base64.b64encode(bytes(byte_of[char] for char in token)) for token in ordered)
    return b"".join(token + b" %d\n" % rank for rank, token in enumerate(rows))


def main(folder: Path) -> None:
    """Write all five vocabularies."""
    folder.mkdir(parents=True, exist_ok=True)
    for kind in ("bpe", "unigram"):
        (folder / f"{kind}.model").write_bytes(
            train_sentencepiece([TEXT], 480 if kind == "bpe" else 460, model_type=kind)
        )
    trained = byte_level()
    (folder / "byte_level.json").write_text(trained.to_str(pretty=True), encoding="utf-8")
    (folder / "unigram.json").write_text(unigram().to_str(pretty=True), encoding="utf-8")
    ranks = rank_lines(trained)
    (folder / "small.tiktoken").write_bytes(ranks)
    special = {name: len(ranks.splitlines()) + place for place, name in enumerate(SPECIAL)}
    side = {"pattern": PATTERN, "special_tokens": special}
    (folder / "small.json").write_text(json.dumps(side, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

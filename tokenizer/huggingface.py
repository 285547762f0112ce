"""`tokenizer.json` of Hugging Face tokenizers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from .. import CorruptDataError, InputError, RequestError
from .definition import BOS_NAMES, EOS_NAMES, Definition, Source, digest, is_control, named, pick, read_json


def read_huggingface(source: Source, eos: str | None, bos: str | None) -> Definition:
    """Read a `tokenizer.json`.

    Added tokens that are flagged special or shaped like a marker stay out of reach of text; the others are vocabulary.
    """
    file = read_json(source.body, source.name)
    model = file.get("model")
    if not isinstance(model, dict) or "vocab" not in model:
        raise InputError(f"{source.name} is JSON and no Hugging Face tokenizer: it has no model with a vocab")
    try:
        added = {str(token["content"]): dict(token) for token in file.get("added_tokens") or []}
        vocab = _vocabulary(model["vocab"])
        places = {name: int(token["id"]) for name, token in added.items()}
        size = max([*vocab.values(), *places.values()]) + 1
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise CorruptDataError(f"{source.name} is damaged: its vocabulary does not parse ({error!r})") from error
    for name in (eos, bos):
        if name in vocab and name not in places:
            raise RequestError(
                f"{name!r} is an ordinary piece of {source.name}, which text becomes: take an added token instead"
            )
    structure = {name: places[name] for name, token in added.items() if is_control(name, bool(token.get("special")))}
    eos, bos = _ends(source, eos, bos, places, structure)
    control = structure | {name: places[name] for name in (eos, bos) if name is not None}
    unknown = _unknown(model, vocab)
    _keep_to_text(file, model, added, {place: name for name, place in control.items() if place != unknown})
    return Definition(
        format="huggingface",
        model=str(model.get("type") or ("unigram" if isinstance(model["vocab"], list) else "bpe")).lower(),
        name=source.name,
        body=json.dumps(file, ensure_ascii=False).encode(),
        vocab_size=size,
        control=control,
        eos=eos,
        bos=bos,
        unknown=unknown,
        behaviour=digest(_behaviour(file, model, added)),
        literals=tuple(name for name in added if name not in control),
    )


def _ends(
    source: Source, eos: str | None, bos: str | None, places: Mapping[str, int], structure: Mapping[str, int]
) -> tuple[str | None, str | None]:
    """Choose EOS and BOS: asked for, named by the `tokenizer_config.json` beside the file, or of a usual name."""
    config = read_json(source.side, source.side_name) if source.side else {}
    said_eos, said_bos = named(config.get("eos_token")), named(config.get("bos_token"))
    asked = (eos, bos, said_eos, said_bos)
    candidates = {**structure, **{name: places[name] for name in asked if name is not None and name in places}}
    return (
        pick(eos, said_eos, EOS_NAMES, candidates, "eos", source.name),
        pick(bos, said_bos, BOS_NAMES, candidates, "bos", source.name),
    )


def _keep_to_text(
    file: dict[str, Any], model: dict[str, Any], added: Mapping[str, dict[str, Any]], control: Mapping[int, str]
) -> None:
    """Edit the file: control tokens out of reach of text, and nothing that is added around a text, cuts or pads it."""
    names = set(control.values())
    for name, token in added.items():
        token["special"] = bool(token.get("special")) or name in names
    file.update(truncation=None, padding=None, post_processor=None, added_tokens=list(added.values()))
    model.pop("dropout", None)  # for training: it makes ids a matter of chance
    if isinstance(model["vocab"], list):  # unigram: a control token is a piece like any other, which text would become
        model["vocab"] = [
            [f" {place} ", score] if control.get(place) == piece else [piece, score]
            for place, (piece, score) in enumerate(model["vocab"])
        ]


def _vocabulary(vocab: Any) -> dict[str, int]:
    if isinstance(vocab, list):
        return {str(piece): place for place, (piece, _) in enumerate(vocab)}
    return {str(token): int(place) for token, place in vocab.items()}


def _unknown(model: Mapping[str, Any], vocab: Mapping[str, int]) -> int | None:
    if model.get("unk_id") is not None:
        return int(model["unk_id"])
    return vocab.get(model["unk_token"]) if model.get("unk_token") is not None else None


def _behaviour(
    file: Mapping[str, Any], model: Mapping[str, Any], added: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Collect what decides ids: absent and null, and absent and false in the model, mean the same."""
    merges = [pair.split(" ", 1) if isinstance(pair, str) else list(pair) for pair in model.get("merges") or []]
    vocab = (
        model["vocab"]
        if isinstance(model["vocab"], list)
        else sorted(model["vocab"].items(), key=lambda item: (item[1], item[0]))
    )
    flags = ("special", "single_word", "lstrip", "rstrip", "normalized")
    return {
        "format": "huggingface",
        "normalizer": _without_null(file.get("normalizer")),
        "pre_tokenizer": _without_null(file.get("pre_tokenizer")),
        "model": {
            key: value
            for key, value in model.items()
            if key not in ("vocab", "merges") and value not in (None, False, "")
        },
        "vocab": vocab,
        "merges": merges,
        "added": sorted(
            [token["id"], name, *(bool(token.get(flag)) for flag in flags)] for name, token in added.items()
        ),
    }


def _without_null(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_null(inner) for key, inner in value.items() if inner is not None}
    return [_without_null(inner) for inner in value] if isinstance(value, list) else value

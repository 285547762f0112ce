"""SentencePiece `.model` files: the few protobuf fields that decide ids, read without a protobuf library.

Field numbers: sentencepiece/src/sentencepiece_model.proto (ModelProto: 1 pieces, 2 trainer_spec, 3 normalizer_spec).
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

from .. import CorruptDataError, RequestError
from .definition import BOS_NAMES, EOS_NAMES, Definition, Source, digest, is_control, pick
from .segments import starters

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED = 1, 2, 3, 4, 5
_TEXT = (NORMAL, USER_DEFINED, UNUSED)
_MODELS = {1: "unigram", 2: "bpe", 3: "word", 4: "char"}
_PIECES, _TRAINER, _NORMALIZER = 1, 2, 3
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class Piece(NamedTuple):
    """One entry of the vocabulary; `score` as its four bytes, so that equal means equal."""

    text: str
    score: bytes
    kind: int


def read_sentencepiece(source: Source, eos: str | None, bos: str | None) -> Definition:
    """Read a SentencePiece model.

    Its control symbols, and user-defined ones shaped like markers, stay out of reach of text.
    """
    try:
        pieces, trainer, normalizer = _parse(source.body)
    except (ValueError, IndexError, struct.error, UnicodeDecodeError) as error:
        raise CorruptDataError(
            f"{source.name} is damaged: it begins like a SentencePiece model and does not parse ({error})"
        ) from error
    if not trainer or not normalizer:
        raise CorruptDataError(
            f"{source.name} is cut short: {len(pieces)} pieces and no trainer or normalizer specification after them"
        )
    ids = {piece.text: place for place, piece in enumerate(pieces)}
    control = {
        p.text: ids[p.text]
        for p in pieces
        if p.kind == CONTROL or (p.kind == USER_DEFINED and is_control(p.text, False))
    }
    candidates = control | {name: ids[name] for name in (eos, bos) if name is not None and name in ids}
    eos = pick(eos, _text(trainer, 47, "</s>"), EOS_NAMES, candidates, "eos", source.name)
    bos = pick(bos, _text(trainer, 46, "<s>"), BOS_NAMES, candidates, "bos", source.name)
    control |= {name: ids[name] for name in (eos, bos) if name is not None}
    for name, place in control.items():
        if pieces[place].kind not in (CONTROL, USER_DEFINED):
            raise RequestError(
                f"{name!r} is an ordinary piece of {source.name}, which text becomes: take a control symbol instead"
            )
    held = set(control.values())
    pieces = [piece._replace(kind=CONTROL) if place in held else piece for place, piece in enumerate(pieces)]
    return Definition(
        format="sentencepiece",
        model=_MODELS.get(int(trainer.get(3, 1)), "unknown"),
        name=source.name,
        body=_with_kinds(source.body, pieces),
        vocab_size=len(pieces),
        control=control,
        eos=eos,
        bos=bos,
        unknown=next((place for place, piece in enumerate(pieces) if piece.kind == UNKNOWN), None),
        behaviour=digest(_behaviour(pieces, trainer, normalizer)),
        literals=tuple(piece.text for piece in pieces if piece.kind == USER_DEFINED),
        starters=starters(p.text for p in pieces if p.kind in _TEXT) if _leaves_text(trainer, normalizer) else b"",
        dummy_prefix=bool(normalizer.get(3, 1)),
    )


def looks_like_model(body: bytes) -> bool:
    """Tell a SentencePiece model by its first field: a piece with a text."""
    try:
        number, value, _, _ = next(_fields(body))
        return number == _PIECES and isinstance(value, bytes) and 1 in _message(value)
    except (ValueError, IndexError, StopIteration):
        return False


def _parse(body: bytes) -> tuple[list[Piece], dict[int, Any], dict[int, Any]]:
    pieces, trainer, normalizer = [], {}, {}
    for number, value, _, _ in _fields(body):
        if number == _PIECES:
            one = _message(value)
            pieces.append(Piece(one.get(1, b"").decode(), one.get(2, b"\0\0\0\0"), one.get(3, NORMAL)))
        elif number == _TRAINER:
            trainer = _message(value)
        elif number == _NORMALIZER:
            normalizer = _message(value)
    return pieces, trainer, normalizer


def _leaves_text(trainer: dict[int, Any], normalizer: dict[int, Any]) -> bool:
    """Tell whether the model is BPE over the text as it is: no charsmap, no space removed, no unknowns joined."""
    as_it_is = not normalizer.get(2) and not normalizer.get(4, 1) and normalizer.get(5, 1)
    return bool(trainer.get(3, 1) == 2 and trainer.get(35) and not trainer.get(24) and as_it_is)


def _behaviour(pieces: list[Piece], trainer: dict[int, Any], normalizer: dict[int, Any]) -> dict[str, Any]:
    return {
        "format": "sentencepiece",
        "model": trainer.get(3, 1),
        "suffix": trainer.get(24, 0),
        "byte_fallback": trainer.get(35, 0),
        "pieces": [[piece.text, piece.score.hex(), piece.kind] for piece in pieces],
        "charsmap": hashlib.sha256(normalizer.get(2, b"")).hexdigest(),
        "dummy_prefix": normalizer.get(3, 1),
        "remove_whitespaces": normalizer.get(4, 1),
        "escape_whitespaces": normalizer.get(5, 1),
    }


def _with_kinds(body: bytes, pieces: list[Piece]) -> bytes:
    """Write the model again with the given kinds; the same bytes where no kind changed."""
    out, place, copied = [], 0, 0
    for number, value, start, end in _fields(body):
        if number == _PIECES:
            if _message(value).get(3, NORMAL) != pieces[place].kind:
                inner = value + b"\x18" + bytes([pieces[place].kind])  # field 3 again: the last one counts
                out += [body[copied:start], b"\x0a", _varint(len(inner)), inner]
                copied = end
            place += 1
    return b"".join([*out, body[copied:]])


def _text(message: dict[int, Any], number: int, default: str) -> str:
    value = message.get(number)
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else default


def _message(data: bytes) -> dict[int, Any]:
    return {number: value for number, value, _, _ in _fields(data)}


def _fields(data: bytes) -> Iterator[tuple[int, Any, int, int]]:
    """Walk over a message's fields: number, value (int or bytes), and where the field starts and ends."""
    at, size = 0, len(data)
    while at < size:
        start = at
        key, at = _read_varint(data, at)
        wire = key & 7
        value: Any
        if wire == _VARINT:
            value, at = _read_varint(data, at)
        elif wire in (_FIXED32, _FIXED64):
            width = 4 if wire == _FIXED32 else 8
            value, at = data[at : at + width], at + width
        elif wire == _BYTES:
            length, at = _read_varint(data, at)
            value, at = data[at : at + length], at + length
        else:
            raise ValueError(f"wire type {wire} at byte {start}")
        if at > size or key < 8:
            raise ValueError(f"field {key >> 3} at byte {start} runs past the end")
        yield key >> 3, value, start, at


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError(f"a number at byte {at} never ends")


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])

"""JSON as the token files hold it: one form, a magic, a version that readers check first."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from .. import CorruptDataError, InputError

MAGIC = "penstock-tokens"
SHARD_MAGIC = "penstock-shard"
#: Major and minor version of the format: see `format`.
VERSION = (1, 0)


def canonical(values: Mapping[str, Any]) -> bytes:
    """JSON in one form: keys sorted, no spaces, ASCII, a newline at the end."""
    return json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False).encode() + b"\n"


def sealed(values: Mapping[str, Any]) -> bytes:
    """The same with `seal`, the SHA-256 of the JSON without it: for what no other object vouches for."""
    return canonical({**values, "seal": _seal(values)})


def parse_sealed(body: bytes, magic: str, place: str) -> dict[str, Any]:
    """Read what `sealed` gave; every changed byte that would change a value is found."""
    values = parse(body, magic, place)
    seal = values.pop("seal", None)
    if seal != (found := _seal(values)):
        raise CorruptDataError(
            f"{place} is damaged: its seal is {seal}, its content gives {found}; restore it from a copy"
        )
    return values


def _seal(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical(values)).hexdigest()


def parse(body: bytes, magic: str, place: str) -> dict[str, Any]:
    """Read a JSON object of ours; refuses other magic and newer majors, in words."""
    try:
        values = json.loads(body)
    except ValueError as error:
        raise CorruptDataError(f"{place} is damaged: it is not JSON ({error}); restore it from a copy") from error
    if not isinstance(values, dict) or values.get("magic") != magic:
        raise CorruptDataError(f"{place} is damaged, or no file of penstock: its magic is not {magic!r}")
    version = values.get("version")
    if not isinstance(version, list) or len(version) != 2 or not all(isinstance(part, int) for part in version):
        raise CorruptDataError(f"{place} is damaged: its version is {version!r}")
    if version[0] > VERSION[0]:
        raise InputError(
            f"{place} has format {version[0]}.{version[1]}, this penstock reads {VERSION[0]}.x: "
            "pip install --upgrade penstock"
        )
    return values

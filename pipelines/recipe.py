"""A recipe: what the user writes, in YAML or Python alike, checked field by field before anything is read."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from .. import InputError, RecipeError
from ..tokenizer.vocab import vocabulary_digests
from ..transforms.named import StepField, files_named, step_fingerprint, step_kind
from ..transforms.readers import Fields
from .duplicates import Dedup, Frozen

MiB = 1 << 20
MOST_PIECES = 1_000_000  # of a vocabulary that is trained


class Input(Frozen):
    """Where documents come from.

    The path is a file, a folder, a glob or an fsspec URL, relative to the recipe's folder.
    """

    path: str = Field(min_length=1)
    format: Literal["auto", "warc", "wet", "jsonl", "parquet", "text"] = "auto"
    fields: Fields = Fields()


class TextOutput(Frozen):
    """The survivors as a corpus."""

    format: Literal["parquet", "jsonl"] = "parquet"


class TrainTokenizer(Frozen):
    """A SentencePiece vocabulary trained on a keyed sample of the kept text."""

    vocab_size: int = Field(8_000, ge=300, le=MOST_PIECES)
    sample_bytes: int = Field(64 * MiB, ge=1)
    model_type: Literal["bpe", "unigram"] = "bpe"


class TokenizerChoice(Frozen):
    """A tokenizer file (`.model`, `tokenizer.json`, `.tiktoken`), or one to train."""

    path: str | None = None
    train: TrainTokenizer | None = None
    eos: str | None = None  # the end-of-document token by its text, where the file does not say

    @model_validator(mode="after")
    def _one_of(self) -> TokenizerChoice:
        if (self.path is None) == (self.train is None):
            raise ValueError("name either `path` or `train`, and only one of them")
        if self.train is not None and self.eos is not None:
            raise ValueError("`eos` names a token of the file at `path`; a trained vocabulary has its own, </s>")
        return self


class PackChoice(Frozen):
    """Rows of `length` tokens over the same token files."""

    length: int = Field(ge=2, le=1 << 24)
    policy: Literal["concat", "best_fit"] = "best_fit"


class Bucket(Frozen):
    """A column of numbers parted by literal cuts: a value equal to a cut belongs to the bucket above it."""

    column: str
    cuts: tuple[float, ...] = Field(min_length=1)

    @field_validator("cuts")
    @classmethod
    def _rising(cls, cuts: tuple[float, ...]) -> tuple[float, ...]:
        if list(cuts) != sorted(set(cuts)) or any(cut != cut for cut in cuts):
            raise ValueError("cuts are numbers that rise, and none stands twice")
        return cuts


class Tokens(Frozen):
    """The token files: streams, validation split, packs."""

    streams: tuple[str | Bucket, ...] = ()  # columns whose values part the data: [source, {column: …, cuts: […]}]
    validation: float = Field(0.0, ge=0.0, lt=1.0)  # share of documents, by keyed hash of the id
    packs: tuple[PackChoice, ...] = Field((PackChoice(length=2048),), min_length=1)
    shard_bytes: int = Field(512 * MiB, ge=1)  # of text
    bos: bool = False  # a BOS token before each document as well as EOS after it


class Recipe(Frozen):
    """Everything that decides a run's output."""

    name: str = Field("run", pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]*$")
    seed: int = Field(0, ge=0, lt=1 << 63)
    inputs: dict[str, Input] = Field(min_length=1)
    task_bytes: int = Field(64 * MiB, ge=256)  # of input a task
    steps: tuple[StepField, ...] = ()
    score_rejected: bool = False  # let later steps score what earlier ones dropped
    rejected_text: Literal["sample", "all", "none"] = "sample"  # 1 rejected text in 64 is kept in the ledger
    quarantine: tuple[str, ...] = ()  # records to set aside unread, `source/path#place`
    dedup: Dedup | None = None
    final: tuple[StepField, ...] = ()  # steps that only edit, applied to the survivors
    text: TextOutput | None = None
    tokenizer: TokenizerChoice | None = None
    tokens: Tokens | None = None

    @model_validator(mode="after")
    def _whole(self) -> Recipe:
        if self.tokens and not self.tokenizer:
            raise ValueError("`tokens` needs a `tokenizer`: name its `path`, or `train` one")
        if not (self.tokens or self.text):
            raise ValueError("the recipe writes nothing: ask for `text`, `tokens` or both")
        if self.score_rejected:
            for number, step in enumerate(self.steps):
                if getattr(step, "score_rejected", True) is False:
                    raise ValueError(
                        f"score_rejected is true, and false in steps.{number}.{step_kind(step)}: set it there too"
                    )
        if self.dedup and (wrong := self.dedup.unknown_input(self.inputs)):
            raise ValueError(wrong)
        packs = [(pack.policy, pack.length) for pack in self.tokens.packs] if self.tokens else []
        if len(set(packs)) < len(packs):
            raise ValueError("tokens.packs names the same pack twice")
        return self

    @classmethod
    def from_yaml(cls, path: str | Path, overrides: Sequence[str] = (), inputs: Sequence[str] = ()) -> Recipe:
        """Read a recipe file; `overrides` are `path.to.field=value`, `inputs` replace the recipe's inputs."""
        import yaml

        try:
            value = yaml.load(Path(path).read_text(encoding="utf-8"), Loader=strict_loader())
        except OSError as error:
            raise InputError(f"the recipe {path} cannot be read: {error.strerror}") from error
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            raise RecipeError(f"the recipe {path} is not YAML: {' '.join(str(error).split())}") from error
        if not isinstance(value, dict):
            raise RecipeError(f"the recipe {path} is not a mapping of fields")
        folder = Path(path).resolve().parent
        # Behind what is installed: a file of the user's must not stand in for a package.
        sys.path += [name for name in (str(folder),) if name not in sys.path]
        for override in overrides:
            set_field(value, override)
        root_paths(value, folder)
        if inputs:
            value["inputs"] = replace_inputs(value.get("inputs"), inputs)
        return cls.from_value(value, str(path))

    @classmethod
    def from_value(cls, value: Mapping[str, Any], where: str = "the recipe") -> Recipe:
        """Check a mapping; every fault is named by the path of its field, its value and what is allowed."""
        try:
            return cls.model_validate(value)
        except ValidationError as error:
            raise RecipeError(f"{where}: " + "; ".join(map(fault, causes(error.errors())))) from error

    def fingerprint(self) -> str:
        """Hash what decides the output.

        Every field but the places of the inputs, every step with its version and models, a tokenizer by its bytes.
        """
        value = self.model_dump(
            mode="json", exclude={"inputs": True, "steps": True, "final": True, "tokenizer": {"path"}}
        )
        if self.tokenizer is not None and self.tokenizer.path is not None:
            value["tokenizer"]["files"] = vocabulary_digests(self.tokenizer.path)
        if self.dedup is not None:
            value["dedup"] = self.dedup.fingerprint()
        value["inputs"] = {name: item.model_dump(mode="json", exclude={"path"}) for name, item in self.inputs.items()}
        value["steps"] = [step_fingerprint(step) for step in self.steps]
        value["final"] = [step_fingerprint(step) for step in self.final]
        return digest(value)


def strict_loader() -> Any:
    """Give YAML's safe loader, but for a field named twice: there the second would win without a word."""
    import yaml

    class Strict(yaml.SafeLoader):
        """Refuses a mapping that names a field twice."""

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            """Build a mapping, every field of it once."""
            names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
            if twice := [name for name in names if names.count(name) > 1]:
                raise yaml.constructor.ConstructorError(None, None, f"{twice[0]!r} stands twice", node.start_mark)
            return super().construct_mapping(node, deep)

    return Strict


def digest(value: Any) -> str:
    """Hash a JSON value: sha256 of its canonical form, 32 hex digits."""
    return hashlib.sha256(
        json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    ).hexdigest()[:32]


def causes(errors: Sequence[Any]) -> list[Any]:
    """Leave out what only follows from another fault: a list is short because an item of it was refused."""
    places = [error["loc"] for error in errors]
    return [
        error
        for error in errors
        if error["type"] != "too_short"
        or not any(place[: len(error["loc"])] == error["loc"] and place != error["loc"] for place in places)
    ]


def fault(error: Any) -> str:
    """Say one of pydantic's faults in words: field, value, what is allowed."""
    place = ".".join(str(part) for part in error["loc"]) or "recipe"
    message = (
        error["msg"].removeprefix("Value error, ").replace("Extra inputs are not permitted", "there is no such field")
    )
    value = error.get("input")
    shown = (
        ""
        if isinstance(value, (dict, list, Recipe)) or message.startswith(("a step", "there is no step"))
        else f" (is {value!r})"
    )
    return f"{place}: {message}{shown}"


def set_field(value: dict[str, Any], override: str) -> None:
    """Apply `path.to.field=value` (the value in YAML) to a recipe's mapping; list places are numbers."""
    import yaml

    path, sign, text = override.partition("=")
    if not sign or not path:
        raise RecipeError(f"--set {override!r} is not of the form path.to.field=value")
    at: Any = value
    *parents, last = path.split(".")
    try:
        for part in parents:
            at = at[int(part)] if isinstance(at, list) else at.setdefault(part, {})
        at[int(last) if isinstance(at, list) else last] = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise RecipeError(f"--set {override!r}: the value is not YAML: {' '.join(str(error).split())}") from error
    except (ValueError, IndexError, TypeError, AttributeError) as error:
        raise RecipeError(f"--set {override!r}: the recipe has no field {path}") from error


def replace_inputs(named: Any, globs: Sequence[str]) -> dict[str, Any]:
    """Put the command line's globs in the place of the recipe's inputs, keeping format and fields of the first one."""
    name, like = next(iter(named.items())) if isinstance(named, dict) and named else ("input", {})
    like = like if isinstance(like, dict) else {}
    made: dict[str, Any] = {}
    for number, glob in enumerate(globs):
        label, sign, path = glob.partition("=")
        if not sign or "/" in label or ":" in label or os.path.exists(glob):
            label, path = name if number == 0 else f"{name}{number + 1}", glob
        if label in made:
            raise RecipeError(f"--input names {label!r} twice: give each its own name, as in --input NAME={path}")
        made[label] = {**like, "path": path}
    return made


def root_paths(value: dict[str, Any], folder: Path) -> None:
    """Read relative paths, of inputs, of tokenizers and of files that steps name, from the recipe's folder."""

    def rooted(path: Any) -> Any:
        if isinstance(path, list):
            return [rooted(item) for item in path]
        if isinstance(path, dict):
            return {name: rooted(item) for name, item in path.items()}
        local = isinstance(path, str) and path and "://" not in path and not Path(path).is_absolute()
        return str(folder / path) if local else path

    inputs = value.get("inputs")
    holders = [*(inputs.values() if isinstance(inputs, dict) else ()), value.get("tokenizer")]
    places: list[tuple[Any, tuple[str, ...]]] = [(holder, ("path",)) for holder in holders]
    if isinstance(dedup := value.get("dedup"), dict):
        places.append((dedup.get("substrings"), ("tokenizer",)))
    for steps in (value.get("steps"), value.get("final")):
        places += files_named(steps)
    for holder, names in places:
        for name in names if isinstance(holder, dict) else ():
            if name in holder:
                holder[name] = rooted(holder[name])

"""What counts as a duplicate, and which of a cluster stays: the values of a recipe's `dedup` and of `penstock dedup`.

Kinds run one after the other, each over what the one before left: one document a URL, whole documents (exact and
MinHash in one graph), lines or paragraphs, substrings.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from ..tokenizer.vocab import vocabulary_digests
from ..transforms.minhash import MinHash
from ..transforms.repeated_lines import Lines
from ..transforms.repeated_spans import Substrings


class Frozen(BaseModel):
    """A value: equal by content, unknown fields refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, arbitrary_types_allowed=True)


_POLICY = re.compile(r"smallest_id|longest|newest(:.+)?|highest:.+|priority:.+")


def named_inputs(policy: str) -> list[str]:
    """Give the inputs that a `priority` names, in order; none of another policy."""
    kind, _, rest = policy.partition(":")
    return [name.strip() for name in rest.split(",")] if kind == "priority" else []


def _policies(value: Any) -> Any:
    policies = (value,) if isinstance(value, str) else tuple(value or ())
    for policy in policies:
        if not (isinstance(policy, str) and _POLICY.fullmatch(policy)):
            raise ValueError(
                f"{policy!r} is no policy: smallest_id, longest, newest[:COLUMN], highest:COLUMN and "
                "priority:INPUT,INPUT are"
            )
        names = named_inputs(policy)
        if not all(names) or len(set(names)) < len(names):
            raise ValueError(f"{policy!r} names an input twice, or none between two commas: name each once")
    if not policies:
        raise ValueError("no policy: name one, such as longest")
    if "smallest_id" in policies[:-1]:
        behind = policies[policies.index("smallest_id") + 1]
        raise ValueError(
            f"smallest_id tells any two documents apart, so {behind!r} behind it is never asked: swap them"
        )
    return policies


#: Who stays, by the first policy that tells two documents apart; see `pipelines/keep.py`.
Keep = Annotated[tuple[str, ...], BeforeValidator(_policies)]


class Url(Frozen):
    """One document a URL. Documents without one stay."""

    keep: Keep = ("newest",)


class Guard(Frozen):
    """Clusters that are suspiciously large: reported, and by choice split by edges of true Jaccard similarity."""

    size: int = Field(default=1_000, ge=2)  # documents
    share: float = Field(default=0.05, gt=0.0, le=1.0)  # of all documents, where a cluster has a hundred or more
    split: bool = False
    similarity: float = Field(default=0.7, gt=0.0, le=1.0)  # of an edge that holds


def repeats_value(settings: Lines | Substrings) -> dict[str, Any]:
    """Give what decides which repeats are cut as JSON values: every field, a vocabulary by its bytes."""
    value = settings.model_dump(mode="json", exclude={"tokenizer"})
    if isinstance(settings, Substrings) and settings.tokenizer is not None:
        value["files"] = vocabulary_digests(settings.tokenizer)
    return value


class Dedup(Frozen):
    """Which documents are the same, and which of them stays.

    Exact copies share a 128-bit content hash; near-duplicates share one of `bands` digests of `rows` MinHash values
    (FineWeb: 14 × 8 over word 5-grams, Penedo et al. 2024, arXiv:2406.17557).
    """

    url: Url | None = None
    exact: bool = True
    normalisation: Literal["none", "fineweb", "slimpajama"] = "none"  # of contents that are compared whole
    minhash: MinHash | None = MinHash()
    keep: Keep = ("smallest_id",)
    verify: float | None = Field(default=None, gt=0.0, le=1.0)  # an edge holds at this true Jaccard similarity
    guard: Guard = Guard()
    lines: Lines | None = None
    substrings: Substrings | None = None

    @property
    def documents(self) -> bool:
        """Whether whole documents are compared."""
        return self.exact or self.minhash is not None

    def fingerprint(self) -> dict[str, Any]:
        """Give what decides the result as JSON values: every field, a vocabulary by its bytes."""
        value = self.model_dump(mode="json")
        return value | ({"substrings": repeats_value(self.substrings)} if self.substrings is not None else {})

    def unknown_input(self, inputs: Iterable[str]) -> str | None:
        """Say which input a `priority` names that is none of these; None where all is well."""
        known = list(inputs)
        for policy in (*self.keep, *(self.url.keep if self.url else ())):
            for name in named_inputs(policy):
                if name not in known:
                    return f"{policy!r} names the input {name!r}: the inputs are {', '.join(map(repr, known))}"
        return None

    @property
    def further(self) -> list[str]:
        """Name what is asked for beyond comparing whole documents."""
        asked = {"url": self.url, "verify": self.verify, "lines": self.lines, "substrings": self.substrings}
        split = ["guard.split"] if self.guard.split else []
        return [*(name for name, value in asked.items() if value is not None), *split]

    @model_validator(mode="after")
    def _some_kind(self) -> Dedup:
        if not (self.documents or self.url or self.lines or self.substrings):
            raise ValueError(
                "exact is false and minhash is null, so nothing would be matched: set one, or leave `dedup` out"
            )
        if self.minhash is None and self.verify is not None:
            raise ValueError("verify is the true similarity of MinHash's n-grams, and minhash is null: leave it out")
        return self

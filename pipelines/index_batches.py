"""An index of earlier batches: what deduplication knows of documents that came before, in a folder that is shared.

    generations/N.json        parameters and batches; put by create-if-absent, the highest N is current
    batches/KEY/digests-….bin  all first digests of a block, by band, as a part's in `exchange`
    batches/KEY/repeats-….bin  digests that stand a second time in the block, so that a document can be taken out
                               without its copies
    batches/KEY/documents-….parquet   a row a document: the low half of the addresses

A batch is what one run added, in blocks of about a million documents. Whoever changes the index writes new objects,
then the next generation; who loses that race reads again and does it again. Objects are deleted only when documents
were taken out. With 14 bands and whole contents a document takes 360 bytes of digests and about 40 of its row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from .. import CorruptDataError, RequestError, StoreError
from ..sharding.canonical import canonical, parse
from ..sharding.store import Store
from .duplicates import Dedup, Frozen
from .recipe import digest

MAGIC = "penstock-dedup-index"
VERSION = [1, 0]
#: Files of the index, as an input's pattern may meet them.
WRITTEN = ("batches/0/documents-0.parquet", "generations/0.json")


class Entries(Frozen):
    """Packed entries: an object, and where each band begins and ends in it, in bytes."""

    object: str
    bands: dict[str, tuple[int, int]]


class Block(Frozen):
    """Up to about a million documents of a batch, known to one stage: by URL, or by what they say."""

    stage: str  # urls | duplicates
    documents: int
    kept: int  # of them, by the run that added them
    bytes: int
    digests: Entries
    repeats: Entries
    table: str

    @property
    def objects(self) -> tuple[str, str, str]:
        """Name what it consists of."""
        return self.digests.object, self.repeats.object, self.table


class Batch(Frozen):
    """What one run added."""

    name: str
    content: str  # hash of what the run read and compared
    against: tuple[str, ...]  # keys of the batches that it was matched against
    removed: int = 0  # documents that were taken out
    blocks: tuple[Block, ...]

    @property
    def key(self) -> str:
        """Name it by name and content: next month's `part-0` is not last month's."""
        return digest([self.name, self.content])

    def count(self, what: str) -> dict[str, int]:
        """Sum a field of the blocks by stage."""
        sums: dict[str, int] = {}
        for block in self.blocks:
            sums[block.stage] = sums.get(block.stage, 0) + getattr(block, what)
        return sums


class Generation(Frozen):
    """A state of the index."""

    number: int
    parameters: dict[str, Any]
    batches: tuple[Batch, ...]

    @property
    def objects(self) -> set[str]:
        """Name all that it consists of."""
        return {name for batch in self.batches for block in batch.blocks for name in block.objects}


Change = Callable[[Generation], Generation | None]


@dataclass(frozen=True)
class Index:
    """The folder of an index."""

    store: Store

    @classmethod
    def of(cls, place: Store | str | Path) -> Index:
        """Open it, or one that will be there; a store that cannot create exclusively is refused."""
        store = place if isinstance(place, Store) else Store(place)
        try:
            store.require_exclusive()
            folder = store.local("")
            if folder is None and not store.list("generations/"):
                store.probe()
        except StoreError as error:
            raise RequestError(str(error)) from error
        if folder is not None and folder.exists() and not folder.is_dir():
            raise RequestError(f"the index {store.url} cannot be a folder: it is a file")
        return cls(store)

    def numbers(self) -> list[int]:
        """Give the numbers of its generations, rising."""
        names = [name.removeprefix("generations/").removesuffix(".json") for name in self.store.list("generations/")]
        return sorted(int(name) for name in names if name.isdecimal())

    def generation(self, number: int) -> Generation:
        """Read one generation."""
        place = f"generations/{number}.json"
        values = parse(self.store.read(place), MAGIC, f"{self.store.url}/{place}")
        try:
            return Generation.model_validate({name: values[name] for name in Generation.model_fields})
        except (KeyError, ValidationError) as error:
            raise CorruptDataError(f"{self.store.url}/{place} is damaged: {error}; restore it from a copy") from error

    def current(self) -> Generation:
        """Read the current generation: number 0, without batches, where nothing was ever added."""
        numbers = self.numbers()
        return self.generation(numbers[-1]) if numbers else Generation(number=0, parameters={}, batches=())

    def commit(self, change: Change) -> Generation:
        """Make the next generation of the current one, however many others do the same; give what is current then.

        `change` gives the next one, its number aside; None where nothing is left to do.
        """
        while True:
            current = self.current()
            changed = change(current)
            if changed is None:
                return current
            following = changed.model_copy(update={"number": current.number + 1})
            body = canonical({"magic": MAGIC, "version": VERSION, **following.model_dump(mode="json")})
            if self.store.create(f"generations/{following.number}.json", body):
                return following

    def sweep(self) -> int:
        """Delete what earlier generations named and the current one does not; give how many objects went.

        Objects that no generation names yet belong to runs under way, and stay.
        """
        numbers = self.numbers()
        if not numbers:
            return 0
        named = set().union(*(self.generation(number).objects for number in numbers[:-1]))
        retired = sorted((named - self.generation(numbers[-1]).objects) & set(self.store.list("batches/")))
        for name in retired:
            self.store.remove(name)
        return len(retired)


def parameters_of(dedup: Dedup) -> dict[str, Any]:
    """Give what must be equal for digests to mean the same."""
    return {
        **dedup.model_dump(mode="json", include={"exact", "normalisation", "minhash"}),
        "url": dedup.url is not None,
    }


def require_equal(index: Index, held: dict[str, Any], asked: dict[str, Any]) -> None:
    """Refuse to match against digests that were made otherwise, naming each difference."""
    other = [
        f"{name} is {there!r} in the index and {here!r} in this run" for name, there, here in _differences(held, asked)
    ]
    if other:
        raise RequestError(
            f"the index {index.store.url} holds digests of another kind: {'; '.join(other)}: "
            "use equal values, or another --index"
        )


def _differences(held: Any, asked: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Walk both values; give the path and both sides of what differs."""
    if isinstance(held, dict) and isinstance(asked, dict):
        for name in sorted(held.keys() | asked.keys()):
            yield from _differences(held.get(name), asked.get(name), f"{path}.{name}" if path else name)
    elif held != asked:
        yield path, held, asked

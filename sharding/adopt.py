"""A shard of another data set put under this one's root as a shard of a stream here: linked where it can be.

Payload, ends, sums, documents and marks are the same objects with another name; the header says stream and number, so
it is written anew, and NAME with it. A link takes about 1 ms and reads nothing; what is copied is verified on the way.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from .. import CorruptDataError
from .entry import ShardEntry, Vocabulary
from .pack import Pack, PackCount
from .shard import ShardReader, pack_shard, shard_header, shard_name
from .store import Store, sha256

_CHUNK = 8 << 20


@dataclass(frozen=True)
class Adopter:
    """Puts shards under `store`. packs: the packs a shard must have here, and their rows a group."""

    store: Store
    vocabulary: Vocabulary
    packs: Mapping[Pack, int]

    def adopt(self, reader: ShardReader, stream: str, number: int) -> ShardEntry:
        """Put a shard here as so-and-so-many-th of a stream; give its entry. The same again writes nothing twice."""
        old = reader.entry
        tables = {f".{name}.npy" for name in old.packs}
        members = {suffix: digest for suffix, digest in old.members.items() if suffix not in {".json", *tables}}
        header = shard_header(stream, number, members, {**reader.header, "vocabulary": self.vocabulary.to_json()})
        held = {**members, ".json": sha256(header)}
        entry = ShardEntry(
            shard_name(stream, number, held), stream, number, old.tokens, old.documents, old.sha256, held, {}
        )
        for suffix, digest in members.items():
            take(reader.store, old.path(suffix), self.store, entry.path(suffix), digest)
        self.store.put_named(header, entry.path(".json"))
        counts = {pack.name: self._pack(reader, pack, rows, entry, held) for pack, rows in self.packs.items()}
        return replace(entry, members=held, packs=counts)

    def _pack(self, reader: ShardReader, pack: Pack, rows: int, entry: ShardEntry, held: dict[str, str]) -> PackCount:
        """Take a pack's table over, or lay it out where the shard has none; a table follows from the ends alone."""
        old = reader.entry
        known = old.packs.get(pack.name)
        if known is not None and known.group_rows == rows:
            if pack.suffix in old.members:
                held[pack.suffix] = old.members[pack.suffix]
                take(reader.store, old.path(pack.suffix), self.store, entry.path(pack.suffix), held[pack.suffix])
            return known
        count, bodies = pack_shard(reader.ends, pack, rows)
        for suffix, body in bodies.items():
            self.store.put_named(body, entry.path(suffix))
            held[suffix] = sha256(body)
        return count


def take(source: Store, name: str, target: Store, new: str, digest: str) -> bool:
    """Link or copy an object to another root, under a name that holds a hash of it; say whether it was linked.

    What is copied must match its SHA-256, CorruptDataError; what is linked is verified when it is read.
    """
    path = source.local(name)
    if path is not None and path.is_file() and target.link_named(path, new):
        return True
    with tempfile.TemporaryDirectory(prefix="penstock-") as folder:
        copy = Path(folder) / "copy"
        found = hashlib.sha256()
        with source.open(name) as file, copy.open("wb") as written:
            while body := file.read(_CHUNK):
                found.update(body)
                written.write(body)
        if found.hexdigest() != digest:
            raise CorruptDataError(f"{source.url}/{name} does not match its SHA-256; restore it from a copy")
        target.put_named(copy, new)
    return False

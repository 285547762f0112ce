"""The sides of `loader_start.py`: files of N rows that take no room, the first batch, and the batch after a state.

A peer is a class: made from its files as its documentation says, `batches()` gives (B, L + 1) or more, `state(row)` is
what it would have saved after so many rows, `stand(state)` goes back there. Where only iterating would tell the state,
counters of one saved after two batches are set.
"""

from __future__ import annotations

import json
import os
import pickle
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from loader_peers_side import endless, megatron_dataset, tree_cost

LENGTH, BATCH, SHARD_ROWS = 2048, 64, 1 << 15
SHARE = 0.8


def linked(first: Path, places: list[Path]) -> None:
    """Give one file more names."""
    for place in places:
        place.hardlink_to(first)


class Penstock:
    """Shards of 32,768 rows: the members of one, linked under the names of the others."""

    def __init__(self, folder: Path, rows: int) -> None:
        from penstock.sharding.torch import TorchLoader

        self.loader = TorchLoader(folder, BATCH)

    @staticmethod
    def write(folder: Path, rows: int) -> None:
        """Write one shard of zeros, documents of 64 rows, and a generation that lists it under many names."""
        from dataclasses import replace

        import numpy as np

        from penstock.sharding.dataset import write_generation
        from penstock.sharding.format import Generation, Vocabulary
        from penstock.sharding.pack import Pack
        from penstock.sharding.shard import write_shard
        from penstock.sharding.store import Store

        vocabulary = Vocabulary("uint16", 50_000, "0" * 64, eos_id=0, bos_id=None, name="zeros")
        ends = np.arange(1, SHARD_ROWS // 64 + 1, dtype=np.uint64) * np.uint64(64 * LENGTH)
        store, packs, spool = Store(folder), [Pack(LENGTH, "concat")], folder / "spool"
        with spool.open("wb") as file:
            file.truncate(2 * LENGTH * SHARD_ROWS)
        named: dict[str, Any] = {
            "stream": "train",
            "payload": spool,
            "ends": ends,
            "vocabulary": vocabulary,
            "packs": packs,
        }
        one = write_shard(store, number=0, documents=b"none", **named)
        spool.unlink()
        shards = [one, *(replace(one, name=f"{one.name}-{at}", number=at) for at in range(1, rows // SHARD_ROWS))]
        for suffix in one.members:
            linked(folder / one.path(suffix), [folder / shard.path(suffix) for shard in shards[1:]])
        write_generation(store, Generation.of(0, vocabulary, packs, shards))

    def batches(self) -> Iterator[Any]:
        return (one.tokens for one in self.loader)

    def state(self, row: int) -> Any:
        self.loader.seek(row // BATCH)
        return self.loader.state_dict()

    def stand(self, state: Any) -> None:
        self.loader.load_state_dict(state)


class Memmap:
    """One sparse file of raw tokens, and torch's or grain's dataset over it."""

    def __init__(self, folder: Path, rows: int) -> None:
        from loader_peers_side import map_style

        self.dataset = map_style(folder, LENGTH)
        self.begin()

    @staticmethod
    def write(folder: Path, rows: int) -> None:
        """Write a file of zeros that has no blocks."""
        with (folder / "tokens.bin").open("wb") as file:
            file.truncate(2 * (rows * LENGTH + 1))

    def begin(self) -> None:
        """Make the loader."""
        from torchdata.stateful_dataloader import StatefulDataLoader

        self.loader = StatefulDataLoader(self.dataset, batch_size=BATCH, shuffle=True, drop_last=True)

    def batches(self) -> Iterator[Any]:
        return iter(self.loader)

    def state(self, row: int) -> Any:
        batches = iter(self.loader)
        next(batches)
        state = self.loader.state_dict()
        state["_sampler_iter_yielded"] = state["_num_yielded"] = row // BATCH
        state["_sampler_iter_state"]["samples_yielded"] = row // BATCH * BATCH
        state["_sampler_iter_state"]["sampler_iter_state"]["yielded"] = row // BATCH * BATCH
        return state

    def stand(self, state: Any) -> None:
        self.loader.load_state_dict(state)


class Grain(Memmap):
    """Its MapDataset, shuffled whole, over the same file."""

    def begin(self) -> None:
        import grain
        from absl import flags

        flags.FLAGS.mark_as_parsed()
        reading = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
        shuffled = grain.MapDataset.source(self.dataset).seed(0).shuffle().batch(BATCH, batch_fn=list)
        self.iterator = iter(shuffled.to_iter_dataset(reading))

    def batches(self) -> Iterator[Any]:
        import torch

        return (torch.stack(rows) for rows in self.iterator)

    def state(self, row: int) -> Any:
        return {**self.iterator.get_state(), "next_index": row // BATCH}

    def stand(self, state: Any) -> None:
        self.iterator.set_state(state)


class LitData:
    """Chunks of 32,768 rows, one linked under many names."""

    def __init__(self, folder: Path, rows: int) -> None:
        from litdata import StreamingDataLoader, StreamingDataset, TokensLoader

        loader = TokensLoader(LENGTH + 1)
        self.dataset = StreamingDataset(str(folder), item_loader=loader, shuffle=True, drop_last=True)
        self.loader = StreamingDataLoader(self.dataset, batch_size=BATCH, num_workers=0)

    @staticmethod
    def write(folder: Path, rows: int) -> None:
        """Write a chunk and an index of many, as its `optimize` leaves them."""
        tokens = SHARD_ROWS * (LENGTH + 1)
        with (folder / "chunk-0-0.bin").open("wb") as file:
            file.write(b"".join(number.to_bytes(4, "little") for number in (1, 12, 12 + 2 * tokens)))
            file.truncate(12 + 2 * tokens)
        names = [f"chunk-0-{at}.bin" for at in range(max(1, rows // SHARD_ROWS))]
        linked(folder / names[0], [folder / name for name in names[1:]])
        chunk = {"chunk_bytes": 12 + 2 * tokens, "chunk_size": 1, "dim": tokens}
        config = {
            "chunk_bytes": None, "chunk_size": tokens, "compression": None, "encryption": None,
            "data_format": ["no_header_tensor:20"], "item_loader": "TokensLoader",
            "data_spec": '[1, {"type": null, "context": null, "children_spec": []}]',
        }  # fmt: skip
        index = {"chunks": [{**chunk, "filename": name} for name in names], "config": config, "updated_at": "0"}
        (folder / "index.json").write_text(json.dumps(index))

    def batches(self) -> Iterator[Any]:
        return iter(self.loader)

    def state(self, row: int) -> Any:
        batches = iter(self.loader)
        next(batches)
        state = self.loader.state_dict()
        state["num_samples_yielded"] = row
        state["dataset"] |= {"num_samples_yielded": row, "sample_in_epoch": row}
        return state

    def stand(self, state: Any) -> None:
        self.loader.load_state_dict(state)


class Mosaic:
    """MDS shards of 32,768 rows, one linked under many names; its default shuffle."""

    def __init__(self, folder: Path, rows: int) -> None:
        from streaming import StreamingDataset
        from streaming.base.util import clean_stale_shared_memory
        from torch.utils.data import DataLoader

        clean_stale_shared_memory()
        self.dataset = StreamingDataset(local=str(folder), shuffle=True, batch_size=BATCH)
        self.loader = DataLoader(self.dataset, batch_size=BATCH, num_workers=0)

    @staticmethod
    def write(folder: Path, rows: int) -> None:
        """Let its writer write one shard, and list it under many names."""
        import numpy as np
        from streaming import MDSWriter

        row = np.zeros(LENGTH + 1, np.uint16)
        columns = {"tokens": f"ndarray:uint16:{LENGTH + 1}"}
        with MDSWriter(out=str(folder), columns=columns, size_limit=1 << 30) as writer:
            for _ in range(SHARD_ROWS):
                writer.write({"tokens": row})
        index = json.loads((folder / "index.json").read_text())
        (shard,), shards = index["shards"], max(1, rows // SHARD_ROWS)
        names = [shard["raw_data"]["basename"], *(f"shard.{at:05d}.mds" for at in range(1, shards))]
        linked(folder / names[0], [folder / name for name in names[1:]])
        index["shards"] = [{**shard, "raw_data": {**shard["raw_data"], "basename": name}} for name in names]
        (folder / "index.json").write_text(json.dumps(index))

    def batches(self) -> Iterator[Any]:
        return (one["tokens"] for one in self.loader)

    def state(self, row: int) -> Any:
        return self.dataset.state_dict(row, from_beginning=True)

    def stand(self, state: Any) -> None:
        self.dataset.load_state_dict({**state, "epoch": 0})


class Megatron:
    """A sparse .bin and an .idx of documents of one row; its indices are cached when they are first built."""

    def __init__(self, folder: Path, rows: int) -> None:
        self.dataset, self.row = megatron_dataset(folder, LENGTH, rows - 1, folder / "cache"), 0

    @staticmethod
    def write(folder: Path, rows: int) -> None:
        """Write what its builder would."""
        import numpy as np

        with (folder / "data.bin").open("wb") as file:
            file.truncate(2 * rows * LENGTH)
        with (folder / "data.idx").open("wb") as file:
            file.write(b"MMIDIDX\x00\x00" + (1).to_bytes(8, "little") + (8).to_bytes(1, "little"))
            file.write(rows.to_bytes(8, "little") + (rows + 1).to_bytes(8, "little"))
            np.full(rows, LENGTH, np.int32).tofile(file)
            (np.arange(rows, dtype=np.int64) * (2 * LENGTH)).tofile(file)
            np.arange(rows + 1, dtype=np.int64).tofile(file)

    def batches(self) -> Iterator[Any]:
        from torch.utils.data import DataLoader

        order = range(self.row, len(self.dataset))
        return (one["tokens"] for one in DataLoader(self.dataset, batch_size=BATCH, sampler=order, drop_last=True))

    def state(self, row: int) -> Any:
        return {"consumed_samples": row}

    def stand(self, state: Any) -> None:
        self.row = state["consumed_samples"]


class Datasets:
    """Arrow files of 32,768 rows, one linked under many names; shuffled by its indices mapping, then skipped."""

    def __init__(self, folder: Path, rows: int) -> None:
        from datasets import Dataset, concatenate_datasets

        parts = [Dataset.from_file(str(file)) for file in sorted(folder.glob("*.arrow"))]
        self.dataset = concatenate_datasets(parts).with_format("torch").shuffle(seed=0)

    @staticmethod
    def write(folder: Path, rows: int) -> None:
        """Let its writer write one file."""
        import numpy as np
        from datasets import Features, List, Value
        from datasets.arrow_writer import ArrowWriter

        features = Features({"input_ids": List(Value("uint16"))})
        part = list(np.zeros((1024, LENGTH + 1), np.uint16))
        with ArrowWriter(path=str(folder / "00000.arrow"), features=features) as writer:
            for _ in range(0, SHARD_ROWS, 1024):
                writer.write_batch({"input_ids": part})
            writer.finalize()
        linked(folder / "00000.arrow", [folder / f"{at:05d}.arrow" for at in range(1, rows // SHARD_ROWS)])

    def batches(self) -> Iterator[Any]:
        return (one["input_ids"] for one in endless(lambda: self.dataset.iter(BATCH)))

    def state(self, row: int) -> Any:
        return {"row": row}

    def stand(self, state: Any) -> None:
        self.dataset = self.dataset.skip(state["row"])


PEERS: dict[str, Any] = {
    "penstock": Penstock, "stateful": Memmap, "grain": Grain, "litdata": LitData, "mosaic": Mosaic,
    "megatron": Megatron, "datasets": Datasets,
}  # fmt: skip


def main(name: str, folder: Path, rows: int, way: str, path: Path) -> None:
    """Write files, or give a batch and say what it took; print a line of JSON."""
    if way == "write":
        folder.mkdir()
        PEERS[name].write(folder, rows)
        print("{}", flush=True)
        os._exit(0)
    import torch

    torch.set_num_threads(1)
    one = PEERS[name](folder, rows)
    if way == "resume":
        one.stand(pickle.loads(path.read_bytes()))
    tokens = next(one.batches())
    assert tokens.shape[0] == BATCH, tokens.shape
    cpu, held = tree_cost(os.getpid())
    ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
    wall = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks
    if way == "first":
        path.write_bytes(pickle.dumps(PEERS[name](folder, rows).state(int(rows * SHARE))))
    print(json.dumps({"wall_s": round(wall, 2), "cpu_s": round(cpu, 2), "own_mb": round(held)}), flush=True)
    os._exit(0)  # some peers' threads would hold the process up

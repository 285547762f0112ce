"""The peers of `loader_peers.py`: the same tokens in each one's own format, read back shuffled as torch tensors.

Each peer has `write` (tokens to its files), `settings` (what its documentation offers and is worth a try) and `read`
(batches of (tokens, labels), (B, L) int64 in the host's memory). Nothing here knows penstock but its own entry.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CHUNK_ROWS = 1 << 24  # tokens in a chunk or shard of the peers that have them: 32 MiB of 16-bit ids
WORKERS: tuple[dict[str, Any], ...] = ({"workers": 0}, {"workers": 1}, {"workers": 2})


def corpus(work: Path) -> Any:
    """Map all tokens: raw uint16, one document after another, each ended by id 0."""
    import numpy as np

    return np.memmap(work / "tokens.bin", np.uint16, "r")


def rows_of(work: Path, length: int) -> Any:
    """Rows (n, L + 1) of the tokens, each beginning with the label of the row before: a view."""
    import numpy as np

    tokens = np.asarray(corpus(work))
    count = (len(tokens) - 1) // length
    return np.lib.stride_tricks.as_strided(tokens, (count, length + 1), (2 * length, 2), writeable=False)


def workers_of(workers: int) -> dict[str, Any]:
    """Arguments of a torch DataLoader for so many worker processes."""
    return {"num_workers": workers, **({"prefetch_factor": 4, "persistent_workers": True} if workers else {})}


def endless(make: Callable[[], Any]) -> Iterator[Any]:
    """Begin anew where an epoch ends."""
    while True:
        yield from make()


def halves(batches: Iterator[Any]) -> Iterator[Any]:
    """Tokens and labels as views of rows of L + 1 ids."""
    for rows in batches:
        yield rows[:, :-1], rows[:, 1:]


def penstock_read(work: Path, length: int, batch: int, policy: str = "concat", **arguments: Any) -> Iterator[Any]:
    """Penstock's loader for torch."""
    from penstock.sharding.torch import TorchLoader

    for one in TorchLoader(work / "penstock", batch, pack=f"{policy}-{length}", **arguments):
        yield one.tokens, one.labels


def map_style(work: Path, length: int) -> Any:
    """A dataset over a memmap as torch's users write it; a list of rows gives a batch at once."""
    import torch

    rows = rows_of(work, length)

    class Rows(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return len(rows)

        def __getitem__(self, row: Any) -> Any:
            return torch.from_numpy(rows[row].astype("int64"))

    return Rows()


def by_batches(dataset: Any, batch: int) -> dict[str, Any]:
    """Arguments of a DataLoader that asks its dataset for whole batches ("loading from memmap ... in batches")."""
    from torch.utils.data import BatchSampler, RandomSampler

    return {"batch_size": None, "sampler": BatchSampler(RandomSampler(dataset), batch, drop_last=True)}


def torch_read(work: Path, length: int, batch: int, workers: int, batched: bool = False) -> Iterator[Any]:
    """Torch's DataLoader over a memmap."""
    from torch.utils.data import DataLoader

    dataset = map_style(work, length)
    how = by_batches(dataset, batch) if batched else {"batch_size": batch, "shuffle": True, "drop_last": True}
    loader = DataLoader(dataset, **how, **workers_of(workers))
    return halves(endless(lambda: loader))


def stateful_read(work: Path, length: int, batch: int, workers: int, batched: bool = False) -> Iterator[Any]:
    """Torchdata's StatefulDataLoader over a memmap; the snapshot of its state is taken as rarely as it may be."""
    from torchdata.stateful_dataloader import StatefulDataLoader

    dataset = map_style(work, length)
    how = by_batches(dataset, batch) if batched else {"batch_size": batch, "shuffle": True, "drop_last": True}
    loader = StatefulDataLoader(dataset, **how, **workers_of(workers), snapshot_every_n_steps=1000)
    return halves(endless(lambda: loader))


def token_chunk(place: tuple[str, int, int]) -> Iterator[Any]:
    """One chunk of tokens, for litData's `optimize`."""
    import numpy as np
    import torch

    path, first, last = place
    yield torch.from_numpy(np.fromfile(path, np.uint16, last - first, offset=2 * first))


def litdata_write(work: Path, folder: Path, length: int) -> None:
    """Chunks of tokens for its TokensLoader, whole rows in each."""
    from litdata import TokensLoader, optimize

    total, size = len(corpus(work)), CHUNK_ROWS // (length + 1) * (length + 1)
    places = [(str(work / "tokens.bin"), first, first + size) for first in range(0, total - size + 1, size)]
    optimize(token_chunk, places, str(folder), chunk_size=size, num_workers=1, item_loader=TokensLoader(length + 1))


def litdata_read(work: Path, length: int, batch: int, workers: int) -> Iterator[Any]:
    """Its StreamingDataset and StreamingDataLoader."""
    import torch
    from litdata import StreamingDataLoader, StreamingDataset, TokensLoader

    where = str(work / f"litdata-{length}")
    dataset = StreamingDataset(where, item_loader=TokensLoader(length + 1), shuffle=True, drop_last=True)
    loader = StreamingDataLoader(dataset, batch_size=batch, **workers_of(workers))
    return halves(rows.to(torch.int64) for rows in endless(lambda: loader))


def grain_read(work: Path, length: int, batch: int, threads: int, buffer: int = 16, workers: int = 0) -> Iterator[Any]:
    """Grain's MapDataset, shuffled whole; threads read, or worker processes make batches."""
    import grain
    import torch
    from absl import flags

    flags.FLAGS.mark_as_parsed()
    rows = rows_of(work, length)

    class Source:
        def __len__(self) -> int:
            return len(rows)

        def __getitem__(self, row: Any) -> Any:
            return rows[row].astype("int64")

    dataset = grain.MapDataset.source(Source()).seed(0).shuffle().repeat().batch(batch, drop_remainder=True)
    reading = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=buffer if threads else 0)
    batches = dataset.to_iter_dataset(reading)
    if workers:
        batches = batches.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers))
    return halves(torch.from_numpy(one) for one in batches)


def mosaic_write(work: Path, folder: Path, length: int) -> None:
    """MDS shards of 64 MiB, rows as arrays of 16-bit ids."""
    from streaming import MDSWriter

    with MDSWriter(out=str(folder), columns={"tokens": f"ndarray:uint16:{length + 1}"}) as writer:
        for row in rows_of(work, length):
            writer.write({"tokens": row})


def mosaic_read(work: Path, length: int, batch: int, workers: int) -> Iterator[Any]:
    """Its StreamingDataset with its default shuffle."""
    import torch
    from streaming import StreamingDataset
    from streaming.base.util import clean_stale_shared_memory
    from torch.utils.data import DataLoader

    clean_stale_shared_memory()  # of an earlier process that was ended
    dataset = StreamingDataset(local=str(work / f"mosaic-{length}"), shuffle=True, batch_size=batch)
    loader = DataLoader(dataset, batch_size=batch, drop_last=True, **workers_of(workers))
    return halves(one["tokens"].to(torch.int64) for one in endless(lambda: loader))


def megatron_write(work: Path, folder: Path, length: int) -> None:
    """A .bin and .idx of whole documents."""
    import numpy as np
    import torch
    from megatron.core.datasets.indexed_dataset import IndexedDatasetBuilder

    folder.mkdir()
    tokens = np.asarray(corpus(work))
    builder = IndexedDatasetBuilder(str(folder / "data.bin"), dtype=np.uint16)
    for document in np.split(tokens, np.flatnonzero(tokens == 0) + 1)[:-1]:
        builder.add_document(torch.from_numpy(document.copy()), [len(document)])
    builder.finalize(str(folder / "data.idx"))


class Ids:
    """What GPTDataset asks of a tokenizer."""

    vocab_size, eod, unique_identifiers = 50_000, 0, {"class": "Ids"}


def megatron_dataset(folder: Path, length: int, samples: int, cache: Path | None = None) -> Any:
    """A GPTDataset over one .bin, its indices built, or taken from `cache`; masks are shared by all samples."""
    import numpy as np
    import torch
    from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig
    from megatron.core.datasets.indexed_dataset import IndexedDataset
    from megatron.core.datasets.utils import Split

    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    config = GPTDatasetConfig(
        random_seed=0, sequence_length=length, blend=([str(folder / "data")], None), split="1,0,0", tokenizer=Ids(),
        reset_position_ids=False, reset_attention_mask=False, eod_mask_loss=False, create_attention_mask=False,
        path_to_cache=None if cache is None else str(cache),
    )  # fmt: skip
    indexed = IndexedDataset(str(folder / "data"), mmap=True)
    documents = np.arange(len(indexed.document_indices) - 1, dtype=np.int32)
    return GPTDataset(indexed, str(folder / "data"), documents, samples, Split.train, config)


def megatron_read(work: Path, length: int, batch: int, workers: int) -> Iterator[Any]:
    """Its GPTDataset, which is in random order already, read in order by torch's DataLoader as its trainer does."""
    from torch.utils.data import DataLoader

    dataset = megatron_dataset(work / f"megatron-{length}", length, 4 * len(rows_of(work, length)))
    loader = DataLoader(dataset, batch_size=batch, drop_last=True, **workers_of(workers))
    for one in endless(lambda: loader):
        yield one["tokens"], one["labels"]


def datasets_write(work: Path, folder: Path, length: int) -> None:
    """An Arrow file of rows as lists of 16-bit ids."""
    from datasets import Features, List, Value
    from datasets.arrow_writer import ArrowWriter

    folder.mkdir()
    rows = rows_of(work, length)
    features = Features({"input_ids": List(Value("uint16"), length=length + 1)})
    with ArrowWriter(path=str(folder / "data.arrow"), features=features) as writer:
        for first in range(0, len(rows), 1000):
            writer.write_batch({"input_ids": list(rows[first : first + 1000])})
        writer.finalize()


def datasets_read(work: Path, length: int, batch: int, workers: int = 0, way: str = "loader") -> Iterator[Any]:
    """HF's Dataset in torch format: by DataLoader row by row or in batches, or by its own shuffle and iter."""
    from datasets import Dataset
    from torch.utils.data import DataLoader

    dataset = Dataset.from_file(str(work / f"datasets-{length}" / "data.arrow")).with_format("torch")
    if way == "iter":
        shuffled = dataset.shuffle(seed=0)
        batches = endless(lambda: shuffled.iter(batch, drop_last_batch=True))
    else:
        how = {"batch_size": batch, "shuffle": True, "drop_last": True}
        how = by_batches(dataset, batch) if way == "batched" else how
        loader = DataLoader(dataset, **how, **workers_of(workers))
        batches = endless(lambda: loader)
    return halves(one["input_ids"] for one in batches)


@dataclass(frozen=True)
class Peer:
    """One loader: how it writes, what to try, how it reads. `write` is None where it reads the raw tokens."""

    read: Callable[..., Iterator[Any]]
    settings: tuple[dict[str, Any], ...] = WORKERS
    write: Callable[[Path, Path, int], None] | None = None


BATCHED = tuple({**setting, "batched": True} for setting in WORKERS)
PEERS: dict[str, Peer] = {
    "penstock": Peer(penstock_read, ({"prefetch": 0}, {"prefetch": 2})),
    "penstock_best_fit": Peer(penstock_read, tuple({"policy": "best_fit", "prefetch": one} for one in (0, 2))),
    "stateful": Peer(stateful_read),
    "stateful_batched": Peer(stateful_read, BATCHED),
    "torch": Peer(torch_read),
    "torch_batched": Peer(torch_read, BATCHED),
    "litdata": Peer(litdata_read, WORKERS, litdata_write),
    "grain": Peer(grain_read, ({"threads": 0}, {"threads": 1}, {"threads": 16}, {"threads": 0, "workers": 1})),
    "mosaic": Peer(mosaic_read, WORKERS, mosaic_write),
    "megatron": Peer(megatron_read, WORKERS, megatron_write),
    "datasets": Peer(
        datasets_read, (*WORKERS[:2], {"way": "iter"}, {"way": "batched"}, {"way": "batched", "workers": 1}),
        datasets_write,
    ),
}  # fmt: skip


def tree_cost(root: int) -> tuple[float, float]:
    """CPU seconds of a process and all below it so far, and the memory in MB that is theirs, not a mapped file's."""
    from process_tree import below

    ticks, held = 0, 0
    for pid in [root, *below(root)]:
        with suppress(OSError, ValueError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += sum(map(int, fields[11:15]))
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
            held += sum(int(rollup.partition(f"\n{kind}:")[2].split()[0]) for kind in ("Pss_Anon", "Pss_Shmem"))
    return ticks / os.sysconf("SC_CLK_TCK"), held / 1024


def check(work: Path, tokens: Any, labels: Any, shape: tuple[int, int]) -> None:
    """Refuse what is not rows of the corpus as torch takes them."""
    import numpy as np
    import torch

    assert tokens.shape == labels.shape == shape, tokens.shape
    assert tokens.dtype == labels.dtype == torch.int64, tokens.dtype
    assert bool((tokens[:, 1:] == labels[:, :-1]).all()), "labels are not one token ahead"
    head, held = tokens[0, :8].numpy(), np.asarray(corpus(work))
    found = np.flatnonzero(held[: len(held) - 7] == head[0])
    assert any((held[at : at + 8] == head).all() for at in found), "a row that is not in the corpus"


def measure(work: Path, name: str, length: int, batch: int, setting: dict[str, Any], seconds: float) -> dict[str, Any]:
    """Read an epoch (or for three times as long), then for so many seconds; every process of the tree counts."""
    import torch

    torch.set_num_threads(1)
    batches = PEERS[name].read(work, length, batch, **setting)
    tokens, labels = next(batches)
    check(work, tokens, labels, (batch, length))
    epoch = len(rows_of(work, length)) // batch
    *first, _ = rates(batches, batch * length, 3 * seconds, epoch)
    cpu, wall, held = rates(batches, batch * length, seconds, None)
    return {"mtok_per_cpu_s": cpu, "mtok_per_s": wall, "own_mb": held, "first_epoch_mtok_per_cpu_s": first[0]}


def rates(batches: Iterator[Any], tokens: int, seconds: float, most: int | None) -> tuple[float, float, float]:
    """Mtok a CPU-second and a second over so many seconds or batches; MB held at the end."""
    count, before, start = 0, tree_cost(os.getpid())[0], time.perf_counter()
    while (wall := time.perf_counter() - start) < seconds and count != most:
        next(batches)
        count += 1
    after, held = tree_cost(os.getpid())
    return round(count * tokens / 1e6 / (after - before), 1), round(count * tokens / 1e6 / wall, 1), round(held, 1)


def main(work: Path, name: str, lengths: list[int], batch: int, settings: str, seconds: float) -> None:
    """Write a peer's files (seconds 0), or measure it with each of its settings; print a line of JSON."""
    if not seconds:
        for length in lengths:
            folder, write = work / f"{name}-{length}", PEERS[name].write
            if write and not folder.exists():
                write(work, folder, length)
        print("{}", flush=True)
    else:
        found = [measure(work, name, lengths[0], batch, setting, seconds) for setting in json.loads(settings)]
        print(json.dumps(found), flush=True)
    os._exit(0)  # some peers' threads and workers would hold the process up

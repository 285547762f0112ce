"""The peers of `token_readers.py`: their own readers and writers of token files, asked by lines of JSON.

    megatron    megatron.core.datasets.indexed_dataset: IndexedDataset, IndexedDatasetBuilder
    datatrove   TokenizedFile writes; DatatroveFolderDataset reads windows of 2,049 tokens
    parquet     HF datasets: Dataset.from_dict(...).to_parquet, load_dataset("parquet")
    npy         OLMo-core: NumpyFSLDataset reads rows of 2,048 tokens, iter_document_indices their documents

Each line asks for {"do": "read" | "write", "format": …, "folder": …, …}; each answer has CPU-seconds of the work alone.
Documents are told by SHA-256 over (length, tokens) of each, windows by SHA-256 over their tokens.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

WINDOW = 2049


def digest_of(documents: Iterable[Any]) -> str:
    """SHA-256 over each document's length and tokens, as uint64 and uint32."""
    import numpy as np

    digest = hashlib.sha256()
    for document in documents:
        tokens = np.asarray(document).astype("<u4")
        digest.update(len(tokens).to_bytes(8, "little") + tokens.tobytes())
    return digest.hexdigest()


def read_megatron(folder: Path, names: list[str], width: int) -> tuple[float, str]:
    """Read every sequence of every prefix."""
    from megatron.core.datasets.indexed_dataset import IndexedDataset

    start, documents = time.process_time(), []
    # All are kept: what one gives are views of a map that goes with it, and reading on is a crash of the process.
    sets = [IndexedDataset(str(folder / name.removesuffix(".idx"))) for name in names]
    for held in sets:
        assert held.document_indices.tolist() == list(range(len(held) + 1))
        documents += [held[number] for number in range(len(held))]
    return time.process_time() - start, digest_of(documents)


def write_megatron(folder: Path, documents: list[Any], width: int) -> float:
    """Build one prefix, a sequence a document."""
    import numpy as np
    import torch
    from megatron.core.datasets.indexed_dataset import IndexedDatasetBuilder

    tensors = [torch.from_numpy(document.astype(np.int32)) for document in documents]
    start = time.process_time()
    builder = IndexedDatasetBuilder(str(folder / "text.bin"), dtype=np.uint16 if width == 2 else np.int32)
    for tensor in tensors:
        builder.add_item(tensor)
        builder.end_document()
    builder.finalize(str(folder / "text.idx"))
    return time.process_time() - start


def read_datatrove(folder: Path, names: list[str], width: int) -> tuple[float, str]:
    """Read every window of the folder, and its positions, which come from the index."""
    import torch
    from datatrove.utils.dataset import DatatroveFolderDataset

    start = time.process_time()
    held = DatatroveFolderDataset(str(folder), WINDOW - 1, filename_pattern="*.ds", token_size=width)
    rows = [held[number]["input_ids"] for number in range(len(held))]
    seconds = time.process_time() - start
    assert [Path(file.file_path).name for file in held.files] == sorted(names)
    placed = DatatroveFolderDataset(
        str(folder), WINDOW - 1, filename_pattern="*.ds", token_size=width, return_positions=True
    )
    zeros = sum(int((placed[number]["positions"] == 0).sum()) for number in range(len(placed)))
    return seconds, json.dumps([hashlib.sha256(torch.cat(rows).numpy().astype("<u4").tobytes()).hexdigest(), zeros])


def write_datatrove(folder: Path, documents: list[Any], width: int) -> float:
    """Write one file, a document a call, as the tokenizing step does."""
    from datatrove.pipeline.tokens.tokenizer import TokenizedFile

    lists = [document.tolist() for document in documents]
    start = time.process_time()
    file = TokenizedFile(str(folder), "text.ds", save_final_metadata=True, tokenizer_name_or_path="x", token_size=width)
    for one in lists:
        file.write(one, None)
    file.close()
    return time.process_time() - start


def read_parquet(folder: Path, names: list[str], width: int) -> tuple[float, str]:
    """Load the files as a data set of HF and read every row."""
    from datasets import load_dataset

    start = time.process_time()
    files = [str(folder / name) for name in names]
    held = load_dataset("parquet", data_files={"train": files}, split="train", cache_dir=str(folder / ".cache"))
    rows = list(held.with_format("numpy")["input_ids"])
    return time.process_time() - start, digest_of(rows)


def write_parquet(folder: Path, documents: list[Any], width: int) -> float:
    """Write a data set of HF."""
    from datasets import Dataset

    start = time.process_time()
    Dataset.from_dict({"input_ids": documents}).to_parquet(str(folder / "text.parquet"))
    return time.process_time() - start


def read_npy(folder: Path, names: list[str], width: int) -> tuple[float, str]:
    """Read every row of each array, and where its documents lie."""
    import numpy as np
    import torch
    from olmo_core.data import NumpyFSLDataset
    from olmo_core.data.utils import iter_document_indices

    kind: Any = np.uint16 if width == 2 else np.uint32
    start = time.process_time()
    paths: Any = [str(folder / name) for name in names]
    held = NumpyFSLDataset(
        *paths, sequence_length=WINDOW - 1, pad_token_id=0, eos_token_id=0, vocab_size=1 << 31, dtype=kind
    )
    rows = [held[number]["input_ids"] for number in range(len(held))]
    seconds = time.process_time() - start
    places = [list(iter_document_indices(path)) for path in paths]
    body = torch.cat(rows).numpy().astype("<u4").tobytes()
    return seconds, json.dumps([hashlib.sha256(body).hexdigest(), places])


def write_npy(folder: Path, documents: list[Any], width: int) -> float:
    """Write a raw array, which is all that OLMo-core's guide asks for."""
    import numpy as np

    start = time.process_time()
    flat: Any = np.memmap(folder / "text.npy", f"<u{width}", "w+", shape=(sum(map(len, documents)),))
    at = 0
    for document in documents:
        flat[at : at + len(document)] = document
        at += len(document)
    flat.flush()
    return time.process_time() - start


READ: dict[str, Callable[[Path, list[str], int], tuple[float, str]]] = {
    "megatron": read_megatron, "datatrove": read_datatrove, "parquet": read_parquet, "npy": read_npy,
}  # fmt: skip
WRITE: dict[str, Callable[[Path, list[Any], int], float]] = {
    "megatron": write_megatron, "datatrove": write_datatrove, "parquet": write_parquet, "npy": write_npy,
}  # fmt: skip


def answer(asked: dict[str, Any]) -> dict[str, Any]:
    """Do what a line asks for."""
    import numpy as np

    folder, width = Path(asked["folder"]), asked["width"]
    if asked["do"] == "read":
        seconds, digest = READ[asked["format"]](folder, asked["names"], width)
        return {"seconds": seconds, "digest": digest}
    tokens, ends = np.load(asked["tokens"], mmap_mode="r"), np.load(asked["ends"])
    documents = [np.array(part) for part in np.split(tokens, ends[:-1])]
    folder.mkdir(parents=True)
    return {"seconds": WRITE[asked["format"]](folder, documents, width)}


def main() -> None:
    """Answer lines of JSON until there are no more."""
    warnings.filterwarnings("ignore")
    out, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        try:
            told = answer(json.loads(line))
        except Exception as error:  # said to who asked
            told = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(told), file=out, flush=True)


if __name__ == "__main__":
    main()

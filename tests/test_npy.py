"""`.npy` objects: the bytes that NumPy writes, pinned; read by arithmetic, refused in words."""

from __future__ import annotations

import io
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from token_files import GOLDEN, PACKS

from penstock.sharding.best_fit import PIECE
from penstock.sharding.npy import npy_array, npy_bytes, npy_start

WORD = np.dtype("<u8")
KINDS = [WORD, np.dtype("<i4"), np.dtype("u1"), PIECE]
# Who changes this changes format 1: it may not be.
PINNED = b"\x93NUMPY\x01\x00v\x00{'descr': '<u8', 'fortran_order': False, 'shape': (2,), }".ljust(127) + b"\n"


def saved(array: np.ndarray) -> bytes:
    body = io.BytesIO()
    np.save(body, array)
    return body.getvalue()


def test_the_bytes_are_pinned() -> None:
    assert npy_bytes(np.array([1, 2**40], WORD)) == PINNED + (1).to_bytes(8, "little") + (2**40).to_bytes(8, "little")


@given(st.sampled_from(KINDS), st.lists(st.integers(0, 400), min_size=1, max_size=3), st.booleans())
def test_numpy_reads_and_writes_the_same(kind: np.dtype[Any], shape: list[int], turned: bool) -> None:
    shape = [min(length, 400 // 20**at) for at, length in enumerate(shape)]
    array = (np.arange(np.prod(shape) * kind.itemsize) % 251).astype(np.uint8).view(kind).reshape(shape)
    array = array.T if turned and array.ndim > 1 else array
    body = npy_bytes(array)
    assert np.array_equal(np.load(io.BytesIO(body)), array)
    assert body == saved(np.ascontiguousarray(array))
    back = npy_array(memoryview(body), kind)
    assert np.array_equal(back, array)
    assert back.dtype == kind
    assert np.frombuffer(body[npy_start(body[:10]) :], np.uint8).tobytes() == array.tobytes()


def test_headers_of_every_length_are_numpys() -> None:
    """The padding turns over at 64 bytes; views of one value make long axes of no memory."""
    for digits in range(1, 19):
        shape = (0, 10 ** (digits - 1))
        assert npy_bytes(np.zeros(shape, WORD)) == saved(np.zeros(shape, WORD))
    for names in range(1, 12):
        kind = np.dtype([("n" * names, "<u8"), ("row", "<u4")])
        assert npy_bytes(np.zeros(3, kind)) == saved(np.zeros(3, kind))


GOOD = npy_bytes(np.arange(5, dtype=WORD))


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "does not begin"),
        (b"\x93NUMPY\x01\x00", "does not begin"),
        (b"\x93NUMPY\x02" + GOOD[7:], "does not begin"),
        (GOOD[:40], "rows first"),
        (GOOD.replace(b"False", b"True "), "rows first"),
        (GOOD.replace(b"(5,)", b"(-5)"), "rows first"),
        (GOOD.replace(b"<u8", b">u8"), "it holds '>u8', not '<u8'"),
        (npy_bytes(np.zeros(5, PIECE)), r"it holds \[\('start'.*, not '<u8'"),
        (GOOD[:-3], "37 bytes of data"),
        (GOOD + b"more", "44 bytes of data"),
        (GOOD.replace(b"(5,)", b"(6,)"), "40 bytes of data"),
    ],
)
def test_what_is_no_such_array_is_refused(body: bytes, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        npy_array(body, WORD)


EVALUATES_NOTHING = """
import ast, sys
from penstock.sharding import StreamingLoader
loader = StreamingLoader(sys.argv[1], 2, pack=sys.argv[2], epochs=1, prefetch=0)
ast.parse = lambda *given, **named: sys.exit(f"source was evaluated: {given}")
for batch in loader:
    batch.tokens, batch.labels, batch.cu_seqlens, batch.position_ids, batch.loss_mask, batch.document_ids
print("read", loader.position)
"""


@pytest.mark.parametrize("pack", [pack.name for pack in PACKS])
def test_reading_evaluates_no_source(pack: str) -> None:
    """CPython 3.11 fails with SystemError where two threads parse source at once, and blocks are read by threads."""
    words = [sys.executable, "-c", EVALUATES_NOTHING, str(GOLDEN / "uint16"), pack]
    read = subprocess.run(words, capture_output=True, text=True, check=False)
    assert read.stdout.startswith("read "), read.stderr

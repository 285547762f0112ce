"""Arrays as `.npy` objects: version 1.0 of NumPy's format, in the one form that penstock writes.

Not `np.save` and `np.load`: how NumPy pads its header is its own affair and has changed between releases, and equal
arrays have equal bytes here. Its reader evaluates the header as Python source, which CPython 3.11 cannot do in two
threads at once ("AST constructor recursion depth mismatch"), and blocks are read by threads.
"""

from __future__ import annotations

import re
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MAGIC = b"\x93NUMPY\x01\x00"
# Magic, two bytes of the header's length, the header: data begins at a multiple of this.
_ALIGNMENT = 64
# What NumPy keeps free behind a header, so that the first axis may grow to so many digits.
_GROWTH_DIGITS = 21
_HEADER = re.compile(
    rb"\{'descr': (?P<kind>'[^']*'|\[[^\]]*\]), 'fortran_order': False, 'shape': \((?P<shape>[\d, ]*)\), \} *\n"
)
# A field of records: name, type (bytes or little-endian whole numbers), and how many of them.
_FIELD = re.compile(r"\('(?P<name>[^'\\]+)', '(?P<kind>[|<][Su]\d+)'(?:, \((?P<count>\d+),\))?\)")


def npy_bytes(array: NDArray[Any]) -> bytes:
    """Give an array, rows first, as the bytes of an `.npy` file; equal arrays give equal bytes under any NumPy."""
    text = b"{'descr': %s, 'fortran_order': False, 'shape': %s, }" % (_kind(array.dtype), repr(array.shape).encode())
    text += b" " * (_GROWTH_DIGITS - len(repr(array.shape[0])))
    text += b" " * (_ALIGNMENT - (len(_MAGIC) + 2 + len(text) + 1) % _ALIGNMENT) + b"\n"
    return b"".join([_MAGIC, len(text).to_bytes(2, "little"), text, np.ascontiguousarray(array).tobytes()])


def npy_start(head: bytes | memoryview) -> int:
    """Say at which byte the data begins, from the first 10 bytes or more. ValueError where it is no `.npy`."""
    if len(head) < 10 or bytes(head[:8]) != _MAGIC:
        raise ValueError("it does not begin as an .npy of version 1.0 does")
    return 10 + int.from_bytes(head[8:10], "little")


def npy_array(body: bytes | memoryview, kind: np.dtype[Any]) -> NDArray[Any]:
    """View the array in the bytes of an `.npy` file, read-only. ValueError where it is none, or not of this kind."""
    start, found, shape = _header(body)
    if found != _kind(kind):
        raise ValueError(f"it holds {found.decode()}, not {_kind(kind).decode()}")
    return _view(body, start, kind, shape)


def npy_records(body: bytes | memoryview) -> NDArray[Any]:
    """View records of any fields in the bytes of an `.npy` file, (n,), read-only. ValueError where it holds none."""
    start, found, shape = _header(body)
    fields = [(field["name"], field["kind"], field["count"]) for field in _FIELD.finditer(found.decode("latin-1"))]
    names = [name for name, _, _ in fields]
    kind = np.dtype([(name, code, (int(count),)) if count else (name, code) for name, code, count in fields])
    if not fields or len(set(names)) < len(names) or found != _kind(kind) or len(shape) != 1:
        raise ValueError(f"it holds {shape} of {found.decode('latin-1')}, not records")
    return _view(body, start, kind, shape)


def _header(body: bytes | memoryview) -> tuple[int, bytes, tuple[int, ...]]:
    """Where the data begins, what its type is called, its shape."""
    start = npy_start(body)
    header = _HEADER.fullmatch(bytes(body[10:start]))
    if header is None:
        raise ValueError("its header is not that of an array, rows first")
    return start, header["kind"], tuple(int(length) for length in header["shape"].split(b",") if length.strip())


def _view(body: bytes | memoryview, start: int, kind: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    if len(body) - start != prod(shape) * kind.itemsize:
        raise ValueError(f"it has {len(body) - start} bytes of data, {shape} of {kind.itemsize} bytes do not fit them")
    return np.frombuffer(body, kind, offset=start).reshape(shape)


def _kind(kind: np.dtype[Any]) -> bytes:
    """What a type is called in a header."""
    return repr(kind.descr if kind.names else kind.str).encode()

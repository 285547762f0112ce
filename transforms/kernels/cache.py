"""Compiled kernels on disk: a file for each kernel and each types of arguments, named after all that decides it.

numba's own cache numbers those files and lists them in an index. Two processes that compile a kernel for different
types at one moment can both take the first number: then the index leads one of them to the other's machine code, for
good. Here there is no index, and a name is never taken twice. Nor does numba see that a kernel which calls another is
stale when only the other's file changed: here the sources of a kernel's module and of all that it imports decide.
"""

from __future__ import annotations

import ast
import hashlib
import os
import pickle
import uuid
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numba
from numba.core.caching import FunctionCache
from numba.core.serialize import dumps

_CACHES: list[KernelCache] = []
_DIGEST = 32  # bytes of SHA-256 in front of what it is of


class KernelCache(FunctionCache):  # type: ignore[misc]
    """Where numba looks for a kernel before it compiles, and keeps it after. RuntimeError: no folder can be written."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        source = Path(function.__code__.co_filename)
        self._cache_file = self.files = KernelFiles(Path(self.cache_path), self._impl.filename_base, source)
        _CACHES.append(self)


class KernelFiles:
    """The files of one kernel. numba calls `save` and `load`."""

    def __init__(self, folder: Path, kernel: str, source: Path) -> None:
        self.folder = folder
        self.stem = f"{kernel}.{sources(source)}"
        self._kernel = kernel

    def _path(self, key: Any) -> Path:
        return self.folder / f"{self.stem}-{hashlib.sha256(repr(key).encode()).hexdigest()[:16]}.nbc"

    def save(self, key: Any, data: Any) -> None:
        """Keep machine code whole or not at all, and drop what other sources gave."""
        path = self._path(key)
        part = path.with_name(f"{path.name}.{uuid.uuid4().hex}.tmp")
        try:
            body = dumps((key, data))
            part.write_bytes(hashlib.sha256(body).digest() + body)
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)
        for old in self.folder.glob(f"{self._kernel}.*.nbc"):
            if not old.name.startswith(self.stem):
                with suppress(OSError):  # another process was first
                    old.unlink()

    def load(self, key: Any) -> Any:
        """Give the machine code for these types on this machine; None where there is none, or it is damaged."""
        try:
            file = self._path(key).read_bytes()
        except FileNotFoundError:
            return None
        body = file[_DIGEST:]
        if hashlib.sha256(body).digest() != file[:_DIGEST]:  # a power cut: what is compiled now takes its place
            return None
        kept, data = pickle.loads(body)
        return data if kept == key else None

    def flush(self) -> None:
        """Forget what is kept."""
        for path in self.folder.glob(f"{self._kernel}.*.nbc"):
            path.unlink(missing_ok=True)


@cache
def sources(path: Path) -> str:
    """Hash what the kernels of a file are compiled from: it, the siblings that it imports, and numba's release."""
    digest = hashlib.sha256(numba.__version__.encode())
    for source in sorted(reached(path)):
        digest.update(source.name.encode() + b"\0" + source.read_bytes())
    return digest.hexdigest()[:16]


def reached(path: Path) -> set[Path]:
    """Give a file and the siblings that it imports, and those that they do."""
    found, open_ = {path}, [path]
    while open_:
        for sibling in siblings(open_.pop()) - found:
            found.add(sibling)
            open_.append(sibling)
    return found


@cache
def siblings(path: Path) -> frozenset[Path]:
    """Give the files beside one that it imports by `from .name import`; `__init__.py` decides how all are compiled."""
    names = [
        node.module
        for node in ast.walk(ast.parse(path.read_bytes()))
        if isinstance(node, ast.ImportFrom) and node.level == 1 and node.module
    ]
    files = [path.with_name("__init__.py"), *(path.with_name(f"{name}.py") for name in names)]
    return frozenset(file for file in files if file.exists())


def cold() -> bool:
    """Whether kernels could be kept, and hardly any of those imported here is: reading a recipe may compile a few."""
    kept = {
        file.name.rpartition("-")[0]
        for folder in {each.files.folder for each in _CACHES}
        for file in folder.glob("*.nbc")
    }
    return 10 * sum(each.files.stem in kept for each in _CACHES) < len(_CACHES)

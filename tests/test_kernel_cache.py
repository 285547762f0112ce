"""Compiled kernels are kept on disk under names that no two of them share, and are compiled by several processes."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest

from penstock.pipelines import compiling
from penstock.pipelines.compiling import compile_apart, compile_kernels, load_kernels
from penstock.pipelines.runners_preflight import cores
from penstock.transforms import ExtractHtml, GopherQuality
from penstock.transforms.kernels import cache, kernel, text
from penstock.transforms.kernels.cache import KernelFiles, cold, reached, sources
from penstock.transforms.kernels.text import load64

WORDS = np.arange(64, dtype=np.uint8)
SOURCE = Path(text.__file__)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where kernels are kept for a test, of which there are none yet."""
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(cache, "_CACHES", [])
    return tmp_path


def loaded(*kinds: str) -> tuple[list[int], int]:
    """Call a kernel, as a new process would, on arrays of these types; give the values, and how many were on disk."""
    fresh: Any = kernel(load64.py_func)  # type: ignore[attr-defined]
    values = [int(fresh(WORDS.astype(kind), 3)) for kind in kinds]
    return values, sum(fresh.stats.cache_hits.values())


def test_kernels_for_other_types_lie_beside_each_other(folder: Path) -> None:
    kernel(load64.py_func)  # type: ignore[attr-defined]
    assert cold()
    expected = [loaded("u1")[0][0], loaded("i8")[0][0]]
    assert not cold()
    files = sorted(folder.rglob("*load64*"))
    assert len(files) == 2
    assert loaded("u1", "i8") == (expected, 2)
    files[0].write_bytes(files[1].read_bytes())  # another type's code is told by what it says of itself
    assert loaded("u1", "i8") == (expected, 1)


def test_what_other_sources_gave_is_not_taken_and_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = KernelFiles(tmp_path, "text.words-1.py311", SOURCE)
    files.save("int64", "code")
    assert (files.load("int64"), files.load("int32")) == ("code", None)
    monkeypatch.setattr(cache, "sources", lambda path: "changed")
    changed = KernelFiles(tmp_path, "text.words-1.py311", SOURCE)
    assert changed.load("int64") is None
    changed.save("int64", "new code")
    assert len(list(tmp_path.iterdir())) == 1
    assert (files.load("int64"), changed.load("int64")) == (None, "new code")
    changed.flush()
    assert not list(tmp_path.iterdir())


def test_a_kernel_hangs_on_its_file_and_on_those_it_imports(tmp_path: Path) -> None:
    for name, body in {"__init__": "", "a": "from .b import x", "b": "from .c import y", "c": "", "d": ""}.items():
        (tmp_path / f"{name}.py").write_text(body)
    assert {path.stem for path in reached(tmp_path / "a.py")} == {"__init__", "a", "b", "c"}

    def hashed() -> list[str]:
        for held in (sources, cache.siblings):
            held.cache_clear()
        return [sources(tmp_path / f"{name}.py") for name in "abd"]

    before = hashed()
    (tmp_path / "c.py").write_text("# changed")
    after = hashed()
    assert [one == other for one, other in zip(before, after, strict=True)] == [False, False, True]
    (tmp_path / "__init__.py").write_text("# changed")
    assert not set(hashed()) & set(after)


@pytest.mark.parametrize("damage", [lambda body: b"", lambda body: body[:-1], lambda body: body[:-1] + b"?"])
def test_damaged_code_is_compiled_anew(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    files = KernelFiles(tmp_path, "text.words-1.py311", SOURCE)
    files.save("int64", "code")
    (path,) = tmp_path.iterdir()
    path.write_bytes(damage(path.read_bytes()))
    assert files.load("int64") is None
    files.save("int64", "code")
    assert files.load("int64") == "code"


def test_a_part_that_cannot_be_written_is_not_left(tmp_path: Path) -> None:
    files = KernelFiles(tmp_path, "text.words-1.py311", SOURCE)
    (tmp_path / files._path("int64").name).mkdir()
    with pytest.raises(OSError, match="Is a directory"):
        files.save("int64", "code")
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.long
@pytest.mark.usefixtures("folder")
def test_two_processes_compile_what_a_third_loads() -> None:
    code = "import numpy; from penstock.transforms.kernels.text import load64; load64(numpy.arange(9, dtype='{}'), 0)"
    compile_apart([partial(exec, code.format(kind)) for kind in ("u1", "i8", "u4")], 2)
    assert loaded("u1", "i8", "u4")[1] == 3


def test_a_part_that_fails_is_told_by_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    compile_apart([partial(json.loads, "{")], 2)
    monkeypatch.setattr(compiling, "cold", lambda: True)
    asked: list[int] = []
    monkeypatch.setattr(compiling, "compile_apart", lambda calls, processes: asked.append(len(calls)))
    compile_kernels([ExtractHtml(), GopherQuality()], None)
    assert asked == ([2] if cores() > 1 else [])


def test_these_kernels_are_kept() -> None:
    load_kernels([GopherQuality()], None)
    assert not cold()

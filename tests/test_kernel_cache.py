"""Compiled kernels are kept on disk under names that no two of them share, and are compiled by several processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from penstock.pipelines import compiling
from penstock.pipelines.compiling import compile_apart, compile_kernels, load_kernels
from penstock.pipelines.runners_preflight import cores
from penstock.transforms import ExtractHtml, GopherQuality
from penstock.transforms.kernels import cache
from penstock.transforms.kernels.cache import KernelFiles, cold

LOAD = """
import json, sys
import numpy as np
from penstock.transforms.kernels import cache, text
was_cold = cache.cold()
values = [text.load64(np.arange(40, dtype=np.dtype(kind)), 3) for kind in sys.argv[1:]]
hits = sum(text.load64.stats.cache_hits.values())
print(json.dumps([was_cold, [int(value) for value in values], hits]))
"""


def load(folder: Path, *kinds: str) -> list[Any]:
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(folder)}
    done = subprocess.run([sys.executable, "-c", LOAD, *kinds], env=environment, capture_output=True, check=True)
    return list(json.loads(done.stdout))


def test_kernels_for_other_types_lie_beside_each_other(tmp_path: Path) -> None:
    assert load(tmp_path, "u1")[::2] == [True, 0]
    assert load(tmp_path, "i8")[::2] == [False, 0]
    files = sorted(tmp_path.rglob("*load64*"))
    assert len(files) == 2
    was_cold, values, hits = load(tmp_path, "u1", "i8")
    assert (was_cold, hits) == (False, 2)
    assert values == load(tmp_path / "new", "u1", "i8")[1]
    files[0].write_bytes(files[1].read_bytes())  # another kernel's code is told by what it says of itself
    assert load(tmp_path, "u1", "i8")[1:] == [values, 1]


def test_what_other_sources_gave_is_not_taken_and_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = KernelFiles(tmp_path, "text.words-1.py311")
    files.save("int64", "code")
    assert (files.load("int64"), files.load("int32")) == ("code", None)
    monkeypatch.setattr(cache, "sources", lambda: "changed")
    changed = KernelFiles(tmp_path, "text.words-1.py311")
    assert changed.load("int64") is None
    changed.save("int64", "new code")
    assert len(list(tmp_path.iterdir())) == 1
    assert (files.load("int64"), changed.load("int64")) == (None, "new code")
    changed.flush()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("damage", [lambda body: b"", lambda body: body[:-1], lambda body: body[:-1] + b"?"])
def test_damaged_code_is_compiled_anew(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    files = KernelFiles(tmp_path, "text.words-1.py311")
    files.save("int64", "code")
    (path,) = tmp_path.iterdir()
    path.write_bytes(damage(path.read_bytes()))
    assert files.load("int64") is None
    files.save("int64", "code")
    assert files.load("int64") == "code"


def test_a_part_that_cannot_be_written_is_not_left(tmp_path: Path) -> None:
    files = KernelFiles(tmp_path, "text.words-1.py311")
    (tmp_path / files._path("int64").name).mkdir()
    with pytest.raises(OSError, match="Is a directory"):
        files.save("int64", "code")
    assert len(list(tmp_path.iterdir())) == 1


def test_two_processes_compile_what_a_third_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    code = "import numpy; from penstock.transforms.kernels.text import load64; load64(numpy.arange(9, dtype='{}'), 0)"
    compile_apart([partial(exec, code.format(kind)) for kind in ("u1", "i8", "u4")], 2)
    assert load(tmp_path, "u1", "i8", "u4")[::2] == [False, 3]


def test_a_part_that_fails_is_told_by_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    compile_apart([partial(json.loads, "{")], 2)
    monkeypatch.setattr(compiling, "cold", lambda: True)
    asked: list[int] = []
    monkeypatch.setattr(compiling, "compile_apart", lambda calls, processes: asked.append(len(calls)))
    compile_kernels([ExtractHtml(), GopherQuality()], None)
    assert asked == ([1] if cores() > 1 else [])


def test_these_kernels_are_kept() -> None:
    load_kernels([GopherQuality()], None)
    assert not cold()

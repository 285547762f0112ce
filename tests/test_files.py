"""Inputs are found, completely or not at all, in folders and stores; files that fail are never taken for empty ones."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import pytest
from read_rows import jsonl, rows_of

from penstock import InputError
from penstock.transforms.files import reads_from
from penstock.transforms.globs import glob_pattern
from penstock.transforms.readers import detect_format, list_files


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    names = ["a.jsonl", "b.txt", "sub/c.jsonl.gz", "sub/deep/d.parquet", "sub/e.warc.gz", "sub/image.png", "README.md"]
    names += [".hidden.jsonl", "x.jsonl.tmp", "_temporary/0/f.jsonl", ".git/g.jsonl", "_SUCCESS", "h.jsonl~"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    return tmp_path


@pytest.mark.parametrize(
    ("pattern", "paths"),
    [
        ("", ["a.jsonl", "b.txt", "sub/c.jsonl.gz", "sub/deep/d.parquet", "sub/e.warc.gz"]),
        ("/", ["a.jsonl", "b.txt", "sub/c.jsonl.gz", "sub/deep/d.parquet", "sub/e.warc.gz"]),
        ("/a.jsonl", ["a.jsonl"]),
        ("/sub/e.warc.gz", ["e.warc.gz"]),
        ("/*", ["README.md", "a.jsonl", "b.txt"]),
        (
            "/**",
            ["README.md", "a.jsonl", "b.txt", "sub/c.jsonl.gz", "sub/deep/d.parquet", "sub/e.warc.gz", "sub/image.png"],
        ),
        ("/**/*.jsonl*", ["a.jsonl", "sub/c.jsonl.gz"]),
        ("/sub/**/*.parquet", ["deep/d.parquet"]),
        ("/*/*.gz", ["sub/c.jsonl.gz", "sub/e.warc.gz"]),
        ("/[ab].*", ["a.jsonl", "b.txt"]),
        ("/[!a].txt", ["b.txt"]),
        ("/?.txt", ["b.txt"]),
        ("/.hidden.jsonl", [".hidden.jsonl"]),
    ],
)
def test_a_pattern_lists_its_files_below_its_root(tree: Path, pattern: str, paths: list[str]) -> None:
    entries = list_files(f"{tree}{pattern}")
    assert [entry.path for entry in entries] == paths
    assert all(Path(entry.url).is_file() and entry.size == 1 and entry.etag for entry in entries)
    assert [entry.path for entry in list_files(f"file://{tree}{pattern}")] == paths


def test_a_name_with_wildcard_letters_is_a_name_where_the_file_exists(tmp_path: Path) -> None:
    (tmp_path / "a[1].jsonl").write_bytes(b"x")
    assert [entry.path for entry in list_files(f"{tmp_path}/a[1].jsonl")] == ["a[1].jsonl"]


def test_a_folder_with_wildcard_letters_is_a_folder_where_it_exists(tmp_path: Path) -> None:
    folder = tmp_path / "a[1] *?"
    (folder / "in").mkdir(parents=True)
    for name in ("x.jsonl", "y.jsonl"):
        (folder / "in" / name).write_bytes(b"x")
    assert [entry.path for entry in list_files(f"{folder}/in/*.jsonl")] == ["x.jsonl", "y.jsonl"]
    assert [entry.path for entry in list_files(f"{folder}/**/x*")] == ["in/x.jsonl"]
    found = [entry.path for entry in list_files(f"{tmp_path}/a*/in/*.jsonl")]
    assert found == [f"{folder.name}/in/x.jsonl", f"{folder.name}/in/y.jsonl"]


@pytest.mark.parametrize(
    ("glob", "matches", "others"),
    [
        ("a[!b]c", ["adc"], ["abc", "a/c"]),
        ("a[]x]c", ["a]c", "axc"], ["abc"]),
        ("a[!]]c", ["abc"], ["a]c"]),
        ("a[a-c&&b|~]c", ["aac", "a&c", "a|c", "a~c"], ["adc"]),
        ("a[[b]c", ["a[c", "abc"], ["acc"]),
        ("a[b", ["a[b"], ["ab"]),
        ("[", ["["], ["a"]),
        ("a[\\d]c", ["a\\c", "adc"], ["a1c"]),
    ],
)
@pytest.mark.filterwarnings("error")
def test_brackets_mean_what_a_shell_means(glob: str, matches: list[str], others: list[str]) -> None:
    pattern = glob_pattern(glob)
    assert all(pattern.match(name) for name in matches)
    assert not any(pattern.match(name) for name in others)


def test_brackets_that_mean_nothing_are_a_sentence(tree: Path) -> None:
    with pytest.raises(InputError, match="brackets that mean nothing"):
        list_files(f"{tree}/x[z-a].jsonl")


WRITTEN = ["text/0/data/0.jsonl", "documents/0/data/0.parquet"]


@pytest.mark.parametrize(
    ("pattern", "output", "reads"),
    [
        ("d", "d/run", True),
        ("d", "d", True),
        ("file://d", "d/run", True),
        ("d/**/*.jsonl", "d/run", True),
        ("d/*.jsonl", "d/run", False),
        ("d/i*/**", "d/in/out", True),
        ("d/i*/**", "d/out", False),
        ("d", "d/.hidden", False),
        ("d", "elsewhere", False),
        ("out/text/0/data", "out", True),
        ("out/text/*/data/*.jsonl", "out", True),
        ("out/raw", "out", False),
        ("s3://b/data", "s3://b/data/run", True),
        ("s3://b/data/*.jsonl", "s3://b/data/run", False),
        ("s3://b/data", "s3://b/data-run", False),
        ("s3://b/data", "d", False),
    ],
)
def test_what_a_run_writes_is_not_its_input(tmp_path: Path, pattern: str, output: str, reads: bool) -> None:
    def placed(path: str) -> str:
        if path.startswith("s3://"):
            return path
        return f"file://{tmp_path}/{path[7:]}" if path.startswith("file://") else f"{tmp_path}/{path}"

    (tmp_path / "d" / "in").mkdir(parents=True)
    assert reads_from(placed(pattern), placed(output), WRITTEN) is reads


def test_links_are_followed_but_not_in_a_circle(tree: Path) -> None:
    (tree / "sub" / "again").symlink_to(tree)
    (tree / "other").symlink_to(tree / "sub" / "deep")
    paths = [entry.path for entry in list_files(str(tree))]
    assert "other/d.parquet" in paths
    assert len(paths) == 6


def test_a_listing_is_fresh(tree: Path) -> None:
    before = {entry.path: entry.etag for entry in list_files(str(tree))}
    os.utime(tree / "a.jsonl", ns=(1, 1))
    (tree / "new.txt").write_bytes(b"x")
    after = {entry.path: entry.etag for entry in list_files(str(tree))}
    assert after.keys() - before.keys() == {"new.txt"}
    assert [path for path in before if before[path] != after[path]] == ["a.jsonl"]


def test_a_store_lists_and_reads_as_a_folder_does(tmp_path: Path) -> None:
    store = fsspec.filesystem("memory")
    body = jsonl({"text": "one"}, {"text": "two"})
    for name in ("a.jsonl", "sub/b.jsonl", "sub/.c.jsonl", "sub/d.png"):
        store.pipe(f"/listing/{name}", body)
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(body)
    for pattern in ("", "/**/*.jsonl", "/*.jsonl", "/sub/b.jsonl"):
        far, near = list_files(f"memory://listing{pattern}"), list_files(f"{tmp_path}{pattern}")
        assert [(entry.path, entry.size) for entry in far] == [(entry.path, entry.size) for entry in near]
        assert all(entry.url.startswith("memory://") and entry.etag for entry in far)
    assert rows_of("memory://listing/a.jsonl", task_bytes=5) == rows_of(tmp_path / "a.jsonl")
    store.pipe("/listing/late.jsonl", body)
    assert len(list_files("memory://listing")) == 3


@pytest.fixture
def site(tree: Path) -> Iterator[str]:
    pytest.importorskip("aiohttp")
    handler = partial(SimpleHTTPRequestHandler, directory=str(tree))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_files_are_found_over_http(site: str) -> None:
    for pattern in (f"{site}/a.jsonl", f"{site}/*.jsonl"):
        assert [(entry.path, entry.size) for entry in list_files(pattern)] == [("a.jsonl", 1)]
    with pytest.raises(InputError, match=r"none\.jsonl' cannot be listed: .*404"):
        list_files(f"{site}/none.jsonl")


def test_a_server_out_of_reach_is_not_an_empty_listing() -> None:
    pytest.importorskip("aiohttp")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(InputError, match=rf"cannot be listed: .*Cannot connect to host 127.0.0.1:{port}"):
        list_files(f"http://127.0.0.1:{port}/a.jsonl")


def test_nothing_found_is_an_error(tree: Path) -> None:
    for pattern in (
        f"{tree}/none",
        f"{tree}/none/*.jsonl",
        f"{tree}/*.parquet",
        "memory://nowhere-at-all",
        f"{tree}/.git/no",
    ):
        with pytest.raises(InputError, match="no input file matches"):
            list_files(pattern)
    with pytest.raises(InputError, match="chains file systems"):
        list_files("simplecache::memory://x")
    with pytest.raises(InputError, match="Protocol not known: nosuchstore"):
        list_files("nosuchstore://bucket/x")


LOCKED = """
import os, sys, tempfile
from pathlib import Path
from penstock import InputError
from penstock.transforms.readers import Piece, list_files, read
with tempfile.TemporaryDirectory() as root:
    os.chmod(root, 0o755)
    for name in ("open/sub", "shut"):
        Path(root, name).mkdir(parents=True)
    file = Path(root, "shut", "a.jsonl")
    file.write_bytes(b'{"text": "x"}')
    file.chmod(0)
    Path(root, "open", "b.jsonl").write_bytes(b'{"text": "x"}')
    Path(root, "open", "sub").chmod(0)
    child = os.fork()
    if child == 0:
        if os.geteuid() == 0:  # nothing is locked for root
            os.setgid(65534)
            os.setuid(65534)
        asks = [lambda name=name: list_files(f"{root}/{name}") for name in ("open", "open/**", "shut", "shut/a.jsonl")]
        for ask in (*asks, lambda: list(read(Piece(str(file), "s", "a.jsonl", "jsonl", 13)))):
            try:
                print("read:", ask())
            except InputError as error:
                print(error)
        sys.stdout.flush()
        os._exit(0)
    os.waitpid(child, 0)
    Path(root, "open", "sub").chmod(0o755)
"""


def test_what_is_protected_is_an_error_and_never_an_empty_listing() -> None:
    done = subprocess.run([sys.executable, "-c", LOCKED], capture_output=True, text=True, timeout=120)
    said = done.stdout.splitlines()
    assert len(said) == 5, done.stderr
    assert all("may not be read: permission denied" in line for line in said)


def test_a_format_is_told_by_its_name() -> None:
    names = {
        "a.warc.gz": "warc",
        "A.WARC": "warc",
        "x.json.zst": "jsonl",
        "x.ndjson.gz": "jsonl",
        "x.pq": "parquet",
        "n.txt": "text",
    }
    assert {name: detect_format(name) for name in names} == names
    with pytest.raises(InputError, match=r"'image.png' has no extension .* one of .*\.parquet"):
        detect_format("image.png")

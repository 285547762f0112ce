"""Bad input and bad requests, through the whole command: quarantined with its place, or one sentence and its exit code.

A fault never hides what lies beside it: every run here reads the rest of its input and adds up.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from bad_files import GOOD, GOOD_LINES, ONE, QUARANTINED, line, no_rows, page, pages, prose

from penstock import transforms
from penstock.pipelines.cli import main
from penstock.tokenizer.vocab import FileTokenizer

Value = dict[str, Any]
Row = dict[str, Any]
Capture = pytest.CaptureFixture[str]
TOKENIZERS = Path(__file__).parent / "data" / "tokenizers"
RULES = ["language_id", "gopher_repetition", "gopher_quality", "c4_quality", "fineweb_quality"]


def request(folder: Path, **fields: Any) -> list[str]:
    """Write a recipe over `folder/in`; give the command that runs it."""
    value = {"name": "bad", "inputs": {"in": {"path": str(folder / "in")}}, "text": {"format": "jsonl"}, **fields}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(value))
    return ["run", str(folder / "recipe.yaml"), "--output", str(folder / "out"), "--quiet"]


def put(folder: Path, files: dict[str, bytes]) -> Path:
    (folder / "in").mkdir(exist_ok=True)
    for name, body in {**files, "zz-good.jsonl": GOOD_LINES}.items():
        (folder / "in" / name).write_bytes(body)
    return folder


def finished(folder: Path) -> tuple[Value, list[Row]]:
    """The manifest of the run in `folder/out` and its ledger, after the laws that hold whatever came in."""
    manifest: Value = json.loads((folder / "out" / "manifest.json").read_bytes())
    found = (folder / "out" / "documents" / manifest["stages"]["documents"]).rglob("ledger-*.parquet")
    ledger: list[Row] = [row for path in found for row in pq.read_table(path).to_pylist()]
    fates = ("kept", "rejected", "duplicates", "quarantined")
    assert len(ledger) == manifest["documents_in"] == sum(manifest[fate] for fate in fates)
    return manifest, ledger


def says(capsys: Capture, code: int, words: list[str], *said: str) -> str:
    """Run a command that fails: its exit code, and one line on stderr that holds these words."""
    capsys.readouterr()
    assert main(words) == code
    error = capsys.readouterr().err
    assert error.startswith("penstock: ")
    assert len(error.splitlines()) == 1, error
    assert "Traceback" not in error
    for word in said:
        assert word in error
    return error


@pytest.mark.parametrize("name", list(QUARANTINED))
def test_what_cannot_be_read_is_set_aside_and_the_rest_is_read(name: str, tmp_path: Path) -> None:
    path, body, expected, kept = QUARANTINED[name]
    extract = {"extract_html": {"extractor": "resiliparse"}}  # which some of these pages would hold up
    assert main(request(put(tmp_path, {path: body}), steps=[extract])) == 0
    manifest, ledger = finished(tmp_path)
    aside = sorted((row for row in ledger if row["fate"] == "quarantined"), key=lambda row: row["place"])
    assert manifest["quarantined"] == len(aside) == len(expected)
    for row, (error, raw) in zip(aside, expected, strict=True):
        assert (row["source"], row["path"]) == ("in", path)
        assert error in row["error"]
        assert row["raw"].startswith(raw)
        assert 0 < len(row["raw"]) <= 1 << 20
    survivors = [row["path"] for row in ledger if row["fate"] == "kept"]
    assert survivors.count("zz-good.jsonl") == GOOD
    assert kept is None or survivors.count(path) == kept
    assert kept is not None or survivors.count(path) > 5


def test_empty_files_and_empty_pages_are_no_trouble(tmp_path: Path) -> None:
    empty = ("a.jsonl", "a.txt", "a.warc", "a.warc.gz", "a.parquet", "a.jsonl.gz", "a.jsonl.zst")
    files = {**dict.fromkeys(empty, b""), "b.parquet": no_rows(), "b.jsonl": b"\n\n", "b.warc.gz": gzip.compress(b"")}
    files["c.warc"] = page(b"", 1) + page(b"<html></html>", 2) + pages(3)
    files["c.jsonl"] = line("") + line(None) + line(" \n")
    assert main(request(put(tmp_path, files), steps=["extract_html"])) == 0
    manifest, _ = finished(tmp_path)
    assert (manifest["documents_in"], manifest["kept"], manifest["quarantined"]) == (GOOD + 6, GOOD + 1, 0)
    assert manifest["rejected_by_rule"] == {"read/empty": 4, "extract_html/empty": 1}


def test_a_run_that_keeps_nothing_ends_well(tmp_path: Path) -> None:
    assert main(request(put(tmp_path, {}), steps=[{"gopher_quality": {"min_doc_words": 1000}}], dedup={})) == 0
    assert finished(tmp_path)[0]["rejected"] == GOOD


def test_copies_of_one_document_leave_one(tmp_path: Path) -> None:
    assert main(request(put(tmp_path, {"a.jsonl": ONE * 300}), dedup={})) == 0
    assert finished(tmp_path)[0]["duplicates"] == 299


@pytest.mark.long
def test_one_huge_line_goes_through_every_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (prose(10_000) + " ") * 340
    put(tmp_path, {"a.jsonl": line(text)})
    assert main(request(tmp_path, steps=RULES, score_rejected=True, rejected_text="all")) == 0
    huge = next(row for row in finished(tmp_path)[1] if row["path"] == "a.jsonl")
    assert (huge["bytes"], huge["fate"]) == (len(text), "rejected")
    assert huge["gopher_quality.words"] == 3_400_000
    compared: list[int] = []

    def check(self: FileTokenizer, texts: Any) -> bool:
        compared.append(max(map(len, texts.to_pylist())))
        return check_whole(self, texts)

    check_whole = FileTokenizer.check
    monkeypatch.setattr(FileTokenizer, "check", check)
    tokens = {"tokenizer": {"path": str(TOKENIZERS / "bpe.model")}, "tokens": {"packs": [{"length": 512}]}}
    assert main(request(tmp_path, dedup={}, **tokens)) == 0
    assert finished(tmp_path)[0]["streams"]["train"]["documents"] == GOOD + 1
    assert compared == [20_000]  # the engines are compared on its head: the slow one must not meet it whole


WRONG: dict[str, tuple[Value, tuple[str, ...]]] = {
    "an unknown field": ({"spead": 3}, ("spead", "no such field", "3")),
    "an unknown field inside": ({"inputs": {"in": {"path": "in", "forms": 1}}}, ("inputs.in.forms", "no such field")),
    "an unknown step": ({"steps": ["gopher"]}, ("'gopher'", "gopher_quality")),
    "a threshold too large": ({"steps": [{"language_id": {"minimum": 1.5}}]}, ("steps.0.minimum", "1.5")),
    "a threshold too small": ({"steps": [{"gopher_quality": {"min_doc_words": -1}}]}, ("min_doc_words", "-1")),
    "a threshold that is no number": ({"steps": [{"language_id": {"minimum": "high"}}]}, ("steps.0.minimum", "high")),
    "a step that cannot be made": ({"steps": [{"os:getpid": {"x": 1}}]}, ("steps.0", "os:getpid", "TypeError")),
    "a step that ends the process": ({"steps": [{"sys:exit": {}}]}, ("steps.0", "sys:exit", "SystemExit")),
    "no inputs": ({"inputs": {}}, ("inputs",)),
    "an empty path": ({"inputs": {"in": {"path": ""}}}, ("inputs.in.path",)),
    "a missing path": ({"inputs": {"in": {"path": "/no/where"}}}, ("/no/where",)),
    "a name that is a place": ({"name": ".."}, ("name", "..")),
    "a mapping without its text": ({"inputs": {"in": {"path": "in", "fields": {"text": "body"}}}}, ("body", "'text'")),
    "a missing tokenizer": ({"tokenizer": {"path": "no.model"}, "tokens": {}}, ("no.model",)),
}


@pytest.mark.parametrize("name", list(WRONG))
def test_a_wrong_recipe_is_a_sentence(name: str, tmp_path: Path, capsys: Capture) -> None:
    fields, said = WRONG[name]
    says(capsys, 2, request(put(tmp_path, {}), **fields), *said)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "body", [b"\xff\xfename: x", b"a: [", b"", b"\0", b"[" * 5_000], ids=["utf-16", "open", "empty", "nul", "deep"]
)
def test_a_recipe_file_that_is_no_recipe_is_a_sentence(body: bytes, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "broken.yaml").write_bytes(body)
    says(capsys, 2, ["run", str(tmp_path / "broken.yaml")], "broken.yaml")


def test_a_wrong_command_line_is_a_sentence(tmp_path: Path, capsys: Capture) -> None:
    words = request(put(tmp_path, {}))
    for nonsense in ("", "=", "seed", "seed=[", "seed.x=1", "steps.7=language_id", "inputs.in.fields=3"):
        says(capsys, 2, [*words, "--set", nonsense])
    folder = str(tmp_path / "in")
    says(capsys, 2, [*words, "--input", f"a={folder}", "--input", f"a={folder}"], "'a' twice", folder)
    says(capsys, 2, [*words, "--input", ""], "inputs.in.path")
    assert main([*words, "--input", f"a={folder}", "--input", f"b={folder}"]) == 0
    assert finished(tmp_path)[0]["documents_in"] == 2 * GOOD


def test_an_output_that_cannot_hold_a_run_is_a_sentence(tmp_path: Path, capsys: Capture) -> None:
    words = request(put(tmp_path, {}))
    (tmp_path / "file").write_text("taken")
    says(capsys, 2, [*words, "--output", str(tmp_path / "file")], "is a file")
    says(capsys, 2, [*words, "--output", str(tmp_path / "in" / "out")], "and the input 'in'", "lie in one another")
    says(capsys, 2, [*words, "--input", str(tmp_path / "**"), "--output", str(tmp_path / "out")], "lie in one another")
    says(capsys, 2, [*words, "--output", "memory://run"], "memory://run", "s3://")


def test_names_and_links_that_cannot_be_read_are_sentences(tmp_path: Path, capsys: Capture) -> None:
    words = request(put(tmp_path, {"ünï 日本 😀.jsonl": ONE}))
    assert main(words) == 0
    assert finished(tmp_path)[0]["kept"] == GOOD + 1
    (tmp_path / "in" / "gone.jsonl").symlink_to(tmp_path / "nowhere.jsonl")
    says(capsys, 2, words, "gone.jsonl", "not there")
    (tmp_path / "in" / "gone.jsonl").unlink()
    Path(os.fsdecode(os.fsencode(tmp_path / "in") + b"/\xff.jsonl")).write_bytes(ONE)
    says(capsys, 2, words, "\\xff.jsonl", "not UTF-8")


MODELS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "half a .model": ("bpe.model", lambda body: body[: len(body) // 2]),
    "a .model with bytes behind it": ("bpe.model", lambda body: body + b"behind"),
    "half a tokenizer.json": ("byte_level.json", lambda body: body[: len(body) // 2]),
    "a tokenizer.json of another kind": ("byte_level.json", lambda body: b'{"model": null}'),
    "half a .tiktoken": ("small.tiktoken", lambda body: body[: len(body) // 2 + 3]),
    "an empty file": ("bpe.model", lambda body: b""),
}


@pytest.mark.parametrize("name", list(MODELS))
def test_a_corrupt_tokenizer_is_refused_before_anything_is_read(name: str, tmp_path: Path, capsys: Capture) -> None:
    file, damage = MODELS[name]
    (tmp_path / file).write_bytes(damage((TOKENIZERS / file).read_bytes()))
    says(capsys, 2, request(put(tmp_path, {}), tokenizer={"path": str(tmp_path / file)}, tokens={}), file)
    assert not (tmp_path / "out").exists()


def test_a_corrupt_language_model_is_a_sentence(tmp_path: Path, capsys: Capture) -> None:
    whole = (Path(transforms.__file__).parent / "data" / "lid.176.ftz").read_bytes()
    for body in (b"", b"junk" * 50, whole[: len(whole) // 2], whole + b"x"):
        (tmp_path / "lid.ftz").write_bytes(body)
        words = request(put(tmp_path, {}), steps=[{"language_id": {"model": str(tmp_path / "lid.ftz")}}])
        says(capsys, 2, words, "steps.0", "lid.ftz")


@pytest.fixture
def anyones() -> Iterator[Path]:
    """A folder that every user may enter, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def test_what_is_protected_is_a_sentence(anyones: Path) -> None:
    put(anyones, {"secret.jsonl": ONE})
    (anyones / "in" / "secret.jsonl").chmod(0)
    (anyones / "locked").mkdir(mode=0)
    (anyones / "open").mkdir()
    (anyones / "open" / "a.jsonl").write_bytes(ONE)
    (anyones / "m.model").write_bytes(b"x")
    (anyones / "m.model").chmod(0)
    (anyones / "free").mkdir()
    (anyones / "free").chmod(0o777)
    locked, fine = request(anyones), ["--input", str(anyones / "open")]
    words = [*locked, "--output", str(anyones / "free" / "out")]
    given = ["--set", f"tokenizer={{path: {anyones}/m.model}}", "--set", "tokens={}"]
    asked = {
        "secret.jsonl": words,
        "secret.jsonl' may": [*words, "--input", str(anyones / "in" / "secret.jsonl")],
        "locked": [*words, "--input", str(anyones / "locked")],
        "a.jsonl": [*words, "--input", str(anyones / "locked" / "a.jsonl")],
        "may not be written": [*locked, *fine],
        "m.model": [*words, *fine, *given],
    }
    assert b"".decode("utf-8-sig") == ""  # the codec's module may lie where only root reads
    for said, command in asked.items():
        with tempfile.TemporaryFile("w+") as error:
            child = os.fork()
            if child == 0:  # root reads everything, so the child is somebody else
                code = 99
                try:
                    os.dup2(error.fileno(), 2)
                    if os.geteuid() == 0:
                        os.setuid(65534)
                    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115 - the child ends with it
                    code = main(command)
                finally:
                    os._exit(code)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 2, said
            error.seek(0)
            lines = error.read().splitlines()
        assert len(lines) == 1
        assert said in lines[0]
        assert "denied" in lines[0].lower()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[tuple[Path, Callable[[int], None]]]:
    """A real disk of 40 KiB, and how to make room on it."""
    place = tmp_path / "disk"
    place.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40k", "tmpfs", str(place)], capture_output=True)
    if made.returncode:
        pytest.skip("no small disk can be mounted here")

    def room(kilobytes: int) -> None:
        subprocess.run(["mount", "-o", f"remount,size={kilobytes}k", str(place)], check=True)

    yield place, room
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.long
@pytest.mark.parametrize("full", ["output", "scratch"])
def test_a_full_disk_is_a_sentence_and_the_same_command_goes_on(
    disk: tuple[Path, Callable[[int], None]],
    full: str,
    tmp_path: Path,
    capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    place, room = disk
    tokens = {"tokenizer": {"path": str(TOKENIZERS / "bpe.model")}, "tokens": {"packs": [{"length": 64}]}}
    many = b"".join(line(prose(100, seed)) for seed in range(1_000, 3_000))
    words = request(put(tmp_path, {"a.jsonl": many}), dedup={}, task_bytes=200_000, **tokens)
    if full == "output":
        words += ["--output", str(place / "out")]
    else:
        monkeypatch.setattr(tempfile, "tempdir", str(place))
    for kilobytes in (40, 120, 700):
        room(kilobytes)
        error = says(capsys, 1, words, str(place), "full" if full == "output" else "no space left")
        assert "committed is kept" in error
    room(100_000)
    assert main(words) == 0
    if full == "output":
        shutil.copytree(place / "out", tmp_path / "out")
    assert finished(tmp_path)[0]["streams"]["train"]["documents"] == GOOD + 2_000
    assert not [name for name in os.listdir(place) if name.startswith("penstock-")]

"""The command line: exit codes, and errors that are one readable sentence."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import penstock
from penstock.pipelines.cli import main

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def recipe_file(small_recipe: dict[str, Any], tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(small_recipe))
    return path


def fails(capsys: pytest.CaptureFixture[str], code: int, words: list[str], *said: str) -> None:
    assert main(words) == code
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("penstock: ")
    for word in said:
        assert word in error
    assert "Traceback" not in error


def test_run_ends_with_the_funnel_and_where_things_lie(
    recipe_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = str(tmp_path / "out")
    assert main(["run", str(recipe_file), "--output", output]) == 0
    out, progress = capsys.readouterr()
    assert "report.html" in out
    assert "tokens_sha256" in out
    assert "penstock verify" in out
    assert "documents" in progress
    for words in (["verify", output], ["inspect", output], ["cat", output, "--limit", "2"], ["report", output]):
        assert main(words) == 0
    documents = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith('{"')]
    assert len(documents) == 2


def test_a_wrong_request_is_a_sentence_and_exit_code_2(
    recipe_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = ["--output", str(tmp_path / "out"), "--quiet"]
    fails(capsys, 2, ["run", str(tmp_path / "none.yaml")], "none.yaml")
    fails(capsys, 2, ["run", str(recipe_file), "--set", "tokens.validation=2", *output], "tokens.validation", "2")
    fails(capsys, 2, ["run", str(recipe_file), "--set", "speed=fast", *output], "speed", "no such field")
    fails(
        capsys, 2, ["run", str(recipe_file), "--input", str(tmp_path / "nothing-*.jsonl"), *output], "nothing-*.jsonl"
    )
    fails(capsys, 2, ["run", str(recipe_file), "--workers", "0", *output], "workers")
    fails(capsys, 2, ["verify", str(tmp_path / "nowhere")], "nowhere")
    fails(capsys, 2, ["cat", str(tmp_path / "nowhere")], "nowhere")
    fails(capsys, 2, ["report", str(tmp_path / "nowhere")], "nowhere")
    (tmp_path / "manifest.json").write_text('{"stages": ')
    fails(capsys, 1, ["report", str(tmp_path)], "manifest.json is damaged", "run the same recipe again")
    fails(capsys, 2, ["tokenizer", "info", str(tmp_path / "nowhere.model")], "nowhere.model")
    assert main(["no-such-command"]) == 2


def test_a_corrupt_model_file_is_a_sentence(
    recipe_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.model").write_bytes(b"this is no model")
    words = [
        "run",
        str(recipe_file),
        "--set",
        f"tokenizer={{path: {tmp_path / 'broken.model'}}}",
        "--output",
        str(tmp_path / "o"),
        "--quiet",
    ]
    fails(capsys, 2, words, "broken.model")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_protected_path_is_a_sentence(recipe_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    locked = tmp_path / "locked.jsonl"
    locked.write_text('{"text": "x"}\n')
    locked.chmod(0)
    fails(capsys, 2, ["run", str(recipe_file), "--input", str(locked), "--output", str(tmp_path / "o")], "locked.jsonl")


def test_a_full_disk_is_exit_code_1_and_the_run_goes_on_afterwards(
    recipe_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["run", str(recipe_file), "--output", str(tmp_path / "out"), "--quiet"]

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        fails(capsys, 1, words, "full")
    assert main(words) == 0


def test_dedup_alone_keeps_the_users_ids(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "out"
    assert (
        main(["dedup", "--input", str(corpus / "*.jsonl"), "--output", str(output), "--id-field", "key", "--quiet"])
        == 0
    )
    manifest = json.loads((output / "manifest.json").read_bytes())
    assert (manifest["documents_in"], manifest["duplicates"], manifest["kept"]) == (240, 40, 200)
    assert main(["dedup", "--input", str(corpus), "--output", str(output), "--exact", "--quiet"]) == 0
    assert json.loads((output / "manifest.json").read_bytes())["duplicates"] == 20
    fails(capsys, 2, ["dedup", "--input", str(corpus), "--output", str(output), "--text-field", "body"], "body")
    fails(capsys, 2, ["dedup", "--input", str(corpus), "--output", str(output), "--bands", "0"], "bands", "0")


def test_pages_are_extracted_before_they_are_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    web = ROOT / "examples" / "data" / "quickstart.warc.gz"
    words = ["dedup", "--input", str(web), "--output", str(tmp_path / "out"), "--format", "jsonl", "--quiet"]
    assert main(words) == 0
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_bytes())
    assert manifest["kept"] > 300
    (tmp_path / "r.yaml").write_text(f"inputs: {{web: {{path: {web}}}}}\ntext: {{}}\n")
    words = ["run", str(tmp_path / "r.yaml"), "--output", str(tmp_path / "none")]
    fails(capsys, 2, words, "WARC", "put extract_html first")
    assert not (tmp_path / "none" / "documents").exists()


@pytest.mark.parametrize("body", [b"{", b'{"model": {"vocab": {"a": "x"}}}', b"\n\x05garbage", b""])
def test_a_damaged_vocabulary_is_a_wrong_request(
    body: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tokenizer.json").write_bytes(body)
    fails(capsys, 2, ["tokenizer", "info", str(tmp_path / "tokenizer.json")], "tokenizer.json")


def test_a_request_without_sense_is_a_sentence(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train = ["tokenizer", "train", "--input", str(corpus), "--output", str(tmp_path / "v.model")]
    fails(capsys, 2, [*train, "--vocab-size", "3000000000"], "3000000000", "at most 1,000,000")
    fails(capsys, 2, ["tokenizer", "train", "--input", "", "--output", str(tmp_path / "v.model")], "an input is empty")
    fails(capsys, 2, ["dedup", "--input", str(corpus), "--output", ""], "the output is empty")
    (tmp_path / "deep.json").write_text("[" * 100_000)
    fails(capsys, 2, ["trace", str(tmp_path), "--state", str(tmp_path / "deep.json"), "--step", "1"], "deep.json")


@pytest.mark.long
def test_what_a_terminal_cannot_show_is_escaped(recipe_file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "größe"
    folder.mkdir()
    (folder / "a.jsonl").write_text('{"key": "k", "text": "ein müder Hügel"}\n', encoding="utf-8")
    words = [sys.executable, "-m", "penstock", "dedup", "--input", str(folder), "--output", str(tmp_path / "ä")]
    asked = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([*words, "--quiet"], capture_output=True, text=True, env=asked, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\\xe4" in done.stdout
    without_stderr = ["sh", "-c", 'exec "$@" 2>&-', "sh", *words]
    assert subprocess.run(without_stderr, stdout=subprocess.DEVNULL, check=False).returncode == 0


def test_a_vocabulary_is_trained_and_shown(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "v.model"
    assert main(["tokenizer", "train", "--input", str(corpus), "--output", str(path), "--vocab-size", "400"]) == 0
    assert json.loads(capsys.readouterr().out)["vocab_size"] == 400
    assert main(["tokenizer", "info", str(path)]) == 0
    assert "fingerprint" in json.loads(capsys.readouterr().out)


def test_the_module_is_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "penstock", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"penstock {penstock.__version__}"

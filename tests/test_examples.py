"""The examples run, and README says what is so."""

from __future__ import annotations

import json
import re
import runpy
import shlex
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from penstock import Recipe, run
from penstock.pipelines.cli import build_parser, main

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
Quickstart = tuple[Path, dict[str, Any]]  # a run's folder and its manifest


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory: pytest.TempPathFactory) -> Quickstart:
    """The README's main job, run once."""
    output = tmp_path_factory.mktemp("quickstart")
    assert main(["run", str(ROOT / "examples" / "quickstart.yaml"), "--output", str(output), "--quiet"]) == 0
    return output, json.loads((output / "manifest.json").read_bytes())


def test_the_quickstart_adds_up_and_has_rows_in_both_packs_and_splits(quickstart: Quickstart) -> None:
    from penstock.sharding import StreamingLoader

    output, manifest = quickstart
    assert manifest["documents_in"] == sum(manifest[name] for name in ("kept", "rejected", "duplicates", "quarantined"))
    assert manifest["duplicates"] > 0
    assert len(manifest["languages"]) >= 3
    assert main(["verify", str(output)]) == 0
    for pack in ("best_fit-512", "concat-2048"):
        for split in ("train", "validation"):
            batch = next(iter(StreamingLoader(output, batch_size=2, pack=pack, split=split)))
            assert batch.tokens.shape == (2, int(pack.rpartition("-")[2]))


def test_the_quickstart_gives_the_tokens_that_are_pinned(quickstart: Quickstart) -> None:
    """Change this only with what decides bytes: a step's version, an extractor's, the tokenizer's, the format's."""
    pinned = json.loads((ROOT / "tests" / "data" / "quickstart.json").read_text())
    here = {name: metadata.version(name) for name in pinned["versions"]}
    if here != pinned["versions"]:
        pytest.skip(f"the pinned tokens are those of {pinned['versions']}, here are {here}")
    assert quickstart[1]["tokens_sha256"] == pinned["tokens_sha256"]


def test_a_row_is_traced_to_its_documents(quickstart: Quickstart, capsys: pytest.CaptureFixture[str]) -> None:
    output, _ = quickstart
    assert main(["trace", str(output), "--shard", "0", "--row", "0", "--pack", "best_fit-512"]) == 0
    assert "https://" in capsys.readouterr().out


@pytest.mark.parametrize("script", ["dedup_only", "own_pipeline"])
def test_example_scripts_run(
    script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [script])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(ROOT / "examples" / f"{script}.py"), run_name="__main__")
    assert stop.value.code in (0, None)
    assert capsys.readouterr().out.strip()


@pytest.mark.parametrize("recipe", sorted(path.name for path in (ROOT / "examples").glob("*.yaml")))
def test_example_recipes_are_valid(recipe: str) -> None:
    assert Recipe.from_yaml(ROOT / "examples" / recipe).steps


def blocks(language: str) -> list[str]:
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    return [body for name, body in fenced if name == language]


def test_every_command_in_readme_is_one_that_exists() -> None:
    parser = build_parser()
    shown = [line for block in blocks("bash") for line in block.replace("\\\n", " ").splitlines()]
    commands = [line[line.index("penstock ") :] for line in shown if re.search(r"(^|&& |/)penstock ", line)]
    assert len(commands) >= 5
    for line in commands:
        words = shlex.split(line.split("&&")[0].split("#")[0])[1:]
        parser.parse_args(words[: words.index("--")] if "--" in words else words)


def test_the_python_blocks_of_readme_run(
    quickstart: Quickstart, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "quickstart").symlink_to(quickstart[0])
    monkeypatch.chdir(tmp_path)
    found = [block for block in blocks("python") if "torch" not in block]
    assert found
    for block in found:
        exec(compile(block, "README.md", "exec"), {})


def test_the_tree_in_readme_is_true() -> None:
    tree = next(block for block in blocks("") if "pyproject.toml" in block)
    named: set[str] = set()
    folder = ""
    for line in tree.splitlines():
        found = re.match(r"^(\s*)([\w.\-/]+)(\s{2,}\S.*)?$", line)
        if not found:
            continue
        indent, name = len(found[1]), found[2]
        if indent == 0:
            folder = name if name.endswith("/") else ""
            named.add(name.rstrip("/"))
        else:
            named.add(f"{folder}{name}".rstrip("/"))
        assert found[3], f"README says nothing of {name}"
    for path in named:
        assert (ROOT / path).exists(), f"README names {path}, which is not there"
    rooms = ("pipelines", "transforms", "tokenizer", "sharding")
    modules = {f"{room}/{path.name}" for room in rooms for path in (ROOT / room).glob("*.py")}
    missing = {module for module in modules - named if not module.endswith("/__init__.py")}
    assert not missing, f"README's tree does not name {sorted(missing)}"


def test_fineweb2_runs_all_its_languages_at_once(tmp_path: Path) -> None:
    """Of 26 languages and more in the pages, each kept document has passed its own language's rules."""
    overrides = ["tokenizer=null", "tokens=null", "dedup=null"]
    recipe = Recipe.from_yaml(ROOT / "examples" / "fineweb2.yaml", overrides)
    manifest = run(recipe, tmp_path / "run", workers=1, quiet=True)
    assert manifest["documents_in"] == sum(manifest[name] for name in ("kept", "rejected", "quarantined"))
    kinds = {rule.partition("/")[0] for rule in manifest["rejected_by_rule"]}
    assert kinds >= {"language_score", "gopher_repetition", "gopher_quality", "fineweb_quality", "c4_quality"}
    assert len([name for name, (kept, _) in manifest["languages"].items() if kept]) >= 15

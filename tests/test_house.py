"""The plan of the house, kept true: which room may see which, how large a module may grow, what is public."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import penstock

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("pipelines", "transforms", "tokenizer", "sharding")
#: Rooms whose doors are open to a room; itself is understood. The root package holds the errors.
MAY_IMPORT = {
    "sharding": set(),
    "tokenizer": set(),
    "transforms": set(),
    "pipelines": {"transforms", "tokenizer", "sharding"},
}
#: Heavy guests, each known to one room, and within it to the modules named (none named: to all).
GUESTS = {
    "apache_beam": {"pipelines"},
    "numba": {"transforms"},
    "torch": {"sharding"},
    "jax": {"sharding"},
    "sentencepiece": {"tokenizer", "transforms"},  # there by `perplexity` alone, whose models are made on its pieces
    "fasttext": {"pipelines"},
    "kenlm": {"transforms"},
    "tokenizers": {"tokenizer"},
    "tiktoken": {"tokenizer"},
    "fastokens": {"tokenizer"},
    "fastwarc": {"transforms"},
    "resiliparse": {"transforms"},
    "trafilatura": {"transforms"},
    "ftfy": {"transforms"},
}
BEAM_MODULES = re.compile(r"pipelines/(ptransforms|runners|spark|flink|workers|failures|jobserver|coders|beam)\w*\.py")
STEP_MODULES = {
    "badwords",
    "c4",
    "classifier",
    "decontaminate",
    "extract",
    "fineweb",
    "gopher",
    "gopher_repetition",
    "language",
    "language_score",
    "line_edits",
    "minhash",
    "normalise",
    "perplexity",
    "pii",
    "refinedweb",
    "route",
    "sampling",
    "urls",
}
LONGEST_MODULE, LONGEST_FUNCTION = 350, 50


def modules() -> list[Path]:
    return sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def imports(path: Path) -> list[tuple[str, str]]:
    """Give (room or package, whole name) of every import, late ones too."""
    package = path.relative_to(ROOT).parts[:-1]
    found = []
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            found += [(alias.name.split(".")[0], alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            if node.level == 0:
                found.append(((node.module or "").split(".")[0], node.module or ""))
                continue
            base = package[: len(package) - node.level + 1]
            whole = (*base, *(node.module or "").split(".")) if node.module else base
            names = [".".join((*whole, alias.name)) for alias in node.names] if not node.module else [".".join(whole)]
            found += [(name.split(".")[0], name) for name in names if name]
    return found


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_arrows_only_go_down(path: Path) -> None:
    room = path.relative_to(ROOT).parts[0]
    for target, name in imports(path):
        assert target != "penstock", f"imports inside the four folders are relative: {name}"
        if target in ROOMS and target != room:
            assert target in MAY_IMPORT[room], f"{room} does not see {target}"
        if target in GUESTS:
            assert room in GUESTS[target], f"{target} is no guest of {room}"


def test_only_the_roof_knows_beam() -> None:
    knowing = {
        str(path.relative_to(ROOT)) for path in modules() if any(target == "apache_beam" for target, _ in imports(path))
    }
    assert all(BEAM_MODULES.fullmatch(name) for name in knowing), knowing


def test_steps_do_not_see_each_other() -> None:
    for path in (ROOT / "transforms").glob("*.py"):
        if path.stem in STEP_MODULES:
            seen = {
                name.split(".")[1]
                for _, name in imports(path)
                if name.startswith("transforms.") and name.count(".") >= 1
            }
            assert not seen & STEP_MODULES, f"{path.stem} imports {seen & STEP_MODULES}"


def test_there_are_no_import_cycles() -> None:
    graph = {}
    for path in modules():
        own = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        tree = parsed(path)
        early = set()
        for node in tree.body:
            if isinstance(node, ast.ImportFrom) and node.level == 1 and node.module:
                early.add(".".join((*path.relative_to(ROOT).parts[:-1], node.module)))
        graph[own] = early
    state: dict[str, int] = {}

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert state.get(name) != 1, " → ".join((*trail, name))
        if name in state:
            return
        state[name] = 1
        for other in graph.get(name, ()):
            visit(other, (*trail, name))
        state[name] = 2

    for name in graph:
        visit(name, ())


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_file_is_read_in_one_sitting(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= LONGEST_MODULE
    assert ast.get_docstring(parsed(path)), "a module says what it is"
    for node in ast.walk(parsed(path)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            length = (node.end_lineno or 0) - node.lineno + 1
            assert length <= LONGEST_FUNCTION, f"{node.name} has {length} lines"


def test_the_loader_imports_nothing_heavy() -> None:
    code = (
        "import sys; import penstock.sharding.loader; "
        "heavy = ('apache_beam', 'numba', 'pyarrow', 'torch', 'jax', 'pydantic', 'pandas'); "
        "print([n for n in heavy if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from penstock.pipelines.cli import main; main(['run', '--help']); "
        "print([n for n in ('apache_beam', 'numba', 'pyarrow', 'torch', 'pydantic') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().splitlines()[-1] == "[]"


def test_public_names_are_pinned() -> None:
    from penstock import pipelines, sharding, tokenizer, transforms

    assert set(penstock.__all__) == {
        "CommitConflictError",
        "CorruptDataError",
        "InputError",
        "MissingExtraError",
        "PenstockError",
        "Recipe",
        "RecipeError",
        "ReconciliationError",
        "RequestError",
        "RunError",
        "StoreError",
        "__version__",
        "run",
    }
    assert set(transforms.__all__) == {
        "BadWords",
        "C4Paragraphs",
        "C4Quality",
        "Decontaminate",
        "ExtractHtml",
        "FineWebQuality",
        "FunctionStep",
        "GopherQuality",
        "GopherRepetition",
        "LanguageId",
        "LanguageScore",
        "LineEdits",
        "MinHash",
        "Multilingual",
        "Normalise",
        "Perplexity",
        "QualityClassifier",
        "RedactPii",
        "RefinedWebLines",
        "RefinedWebText",
        "Sample",
        "UrlFilter",
    }
    assert set(pipelines.__all__) == {"ApplySteps", "Deduplicate", "ReadDocuments", "Tokenize", "WriteShards"}
    assert set(tokenizer.__all__) == {"Tokenizer", "load_tokenizer"}
    assert set(sharding.__all__) == {"StreamingLoader"}
    for room in (penstock, transforms, pipelines, tokenizer, sharding):
        for name in room.__all__:
            assert getattr(room, name) is not None


def test_every_error_is_also_a_builtin() -> None:
    for name in penstock.__all__:
        value = getattr(penstock, name)
        if (
            isinstance(value, type)
            and issubclass(value, penstock.PenstockError)
            and value is not penstock.PenstockError
        ):
            assert any(
                base.__module__ == "builtins" and base is not Exception and base is not object for base in value.__mro__
            ), name

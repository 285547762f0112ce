"""penstock: data curation and pipeline engine for language-model pre-training.

Three rooms with no doors between them, and a roof over them:

    transforms   documents in, decisions out: readers, extraction, rules, language, MinHash (Arrow record batches)
    tokenizer    text to ids
    sharding     token shards, packs, order, the streaming loader (NumPy; no Beam, numba, pyarrow or torch)
    pipelines    recipes, stages and runs; the only room that knows Apache Beam

Every error is one readable sentence with both values and the way out. The tree, each class also a builtin:

    PenstockError
    ├── RequestError (ValueError)          what was asked is wrong; the command line exits with 2
    │   ├── RecipeError                    a recipe, named field by field
    │   ├── InputError                     an input that is missing, protected, or not what it was
    │   └── MissingExtraError (ImportError)  a part that is not installed, with its `pip install`
    └── RunError (RuntimeError)            what was asked could not be finished; the command line exits with 1
        ├── ReconciliationError            documents in ≠ kept + rejected + duplicate + quarantined
        ├── CommitConflictError            the same task gave other bytes than the ones already committed
        ├── CorruptDataError               bytes that do not match their checksum, or a damaged file
        └── StoreError (OSError)           a store that is full, unreachable or cannot create exclusively
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .pipelines.recipe import Recipe
    from .pipelines.run import run

__version__ = "0.1.0"
__all__ = [
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
]


class PenstockError(Exception):
    """Anything penstock raises on purpose."""


class RequestError(PenstockError, ValueError):
    """What was asked is wrong."""


class RecipeError(RequestError):
    """A recipe that cannot run: the path of the field, its value and what is allowed."""


class InputError(RequestError):
    """An input that is missing, protected, or no longer what a run has pinned."""


class MissingExtraError(RequestError, ImportError):
    """A part of penstock whose packages are not installed."""


class RunError(PenstockError, RuntimeError):
    """What was asked could not be finished."""


class ReconciliationError(RunError):
    """A run whose documents do not add up."""


class CommitConflictError(RunError):
    """A task that gave other content than what is already committed under its name."""


class CorruptDataError(RunError):
    """Bytes that do not match their checksum, or a file that is damaged."""


class StoreError(RunError, OSError):
    """A store that is full, out of reach, or cannot do what a commit needs."""


# Loaded at first use (PEP 562), so that a training worker that imports `penstock.sharding` loads nothing else.
_LAZY = {"Recipe": ".pipelines.recipe", "run": ".pipelines.run"}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return lazily(_LAZY[name], __name__, name)
    raise AttributeError(f"module 'penstock' has no attribute {name!r}")


def lazily(module: str, package: str, name: str) -> Any:
    """Import a public name at its first use; of a package that is missing, say which extra brings it."""
    try:
        return getattr(import_module(module, package), name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "penstock":
            raise
        raise MissingExtraError(f"{error.name} is not installed: pip install 'penstock[curate]'") from error


def require(module: str, extra: str) -> Any:
    """Import `module`, or say which extra brings it."""
    try:
        return import_module(module)
    except ImportError as error:
        raise MissingExtraError(f"{module} is not installed: pip install 'penstock[{extra}]'") from error

"""A finished run's folder, opened by its manifest: for the report, for tracing, for decoding what it wrote."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from .. import RequestError
from ..sharding.dataset import MANIFEST, read_manifest
from ..sharding.store import Store
from .tables import PartFiles, read_parts


@dataclass(frozen=True)
class RunDirectory:
    """A run's folder and its manifest."""

    store: Store
    manifest: dict[str, Any]

    @classmethod
    def open(cls, path: str) -> RunDirectory:
        """Open the run that `path` is: its folder, its `tokens/` or `tokens/HASH`; RequestError where there is none."""
        if (found := cls.find(path)) is None:
            raise RequestError(f"{path} is no finished run: there is no {MANIFEST}; give the folder of a run")
        return found

    @classmethod
    def find(cls, path: str) -> RunDirectory | None:
        """Open the run that `path` belongs to; None where there is none, as of token files that were imported."""
        store = Store(path)
        for above in (0, 1, 2):
            run = Store((store.url.rsplit("/", above)[0] if above else store.url) or "/", **store.options)
            if run.exists(MANIFEST):
                found = cls(run, read_manifest(run))
                found.require_current(store.url.rsplit("/", 1)[1] if above == 2 else None)
                return found
        return None

    def require_current(self, tokens: str | None) -> None:
        """Refuse a `tokens/HASH` that is not the manifest's: its tokenizer and decisions would be another recipe's."""
        current = self.manifest["stages"]["tokens"]
        if tokens is not None and tokens != current:
            raise RequestError(
                f"{self.store.url}/tokens/{tokens} was written by an earlier recipe, the manifest is of {current}: run "
                "the earlier recipe once more, which computes nothing anew, and its manifest stands again"
            )

    def table(self, name: str) -> str | None:
        """Name one of the run's tables; None where the run has none."""
        found = (self.manifest.get("tables") or {}).get(name)
        return None if found is None else str(found)

    def parts(self) -> dict[int, PartFiles]:
        """Read which files each ingest task wrote."""
        return read_parts(self.store, self.table("parts"))

    def kinds(self) -> list[str]:
        """Name the recipe's steps in order."""
        return list(self.manifest.get("steps") or ())


def write_manifest(run: Store, manifest: dict[str, Any]) -> None:
    """Put the manifest in place of the one that stands."""
    run.replace(MANIFEST, json.dumps(manifest, indent=1, ensure_ascii=False).encode())

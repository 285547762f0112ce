"""The report of a run: the funnel as a table for the terminal, and everything as one page that needs no network.

The page is a function of the run directory: the same run gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..sharding.store import Store
from .funnel import funnel, funnel_table
from .report_page import render
from .report_survey import survey
from .thresholds import thresholds

__all__ = ["funnel_table", "write_report"]

REPORT = "report.html"


def write_report(store: Store, manifest: Mapping[str, Any]) -> None:
    """Write `report.html` into a run directory; `manifest` is what its manifest.json says."""
    found, account = survey(store, manifest), funnel(manifest)
    if account.kept_bytes is None and found.duplicate_bytes is not None:
        account = replace(account, kept_bytes=account.passed_bytes - found.duplicate_bytes)
    cuts = {name: thresholds(manifest, name) for name in found.scores}
    store.replace(REPORT, render(manifest, account, found, {name: cut for name, cut in cuts.items() if cut}))

"""A dry run as a table for the terminal."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from .funnel import bytes_text, percent, visible
from .recipe import Recipe
from .runners_preflight import RunnerOptions, preflight


def dry_run(recipe: Recipe, asked: str | None, options: RunnerOptions, *, as_json: bool) -> int:
    """Estimate a run and print what was found."""
    from .estimate import estimate

    preflight(options)
    found = estimate(recipe, asked, options.processes())
    print(json.dumps(found, indent=1, ensure_ascii=False) if as_json else estimate_table(found))
    return 0


def estimate_table(found: Mapping[str, Any]) -> str:
    """Draw the funnel, what lies on disk and what it costs; ± is one standard error."""
    whole = found["documents_in"]["value"]
    lines = [("", "documents", "±", "share"), ("records in", *_cells(found["documents_in"], whole))]
    step = None
    for row in found["funnel"]:
        if row["kind"] != step:
            step = row["kind"]
            lines.append((f"  {step}", "", "", ""))
        rule = (row["rule"] or "quarantined").removeprefix(f"{row['kind']}/")
        lines.append((f"    {visible(rule)}", *_cells(row["documents"], whole, "-")))
    if found["duplicates"] is not None:
        lines += [("passed the rules", *_cells(found["passed"], whole))]
        lines += [("    duplicates", *_cells(found["duplicates"], whole, "-"))]
    lines.append(("kept", *_cells(found["kept"], whole)))
    lines.append(("  bytes of text", *_sizes(found["kept_bytes"]), ""))
    if found["tokens"] is not None:
        lines.append(("tokens", *_cells(found["tokens"], 0)))
    lines.append(("on disk", "", "", ""))
    lines += [(f"  {name}", *_sizes(size), "") for name, size in found["disk"].items()]
    widths = [max(len(line[column]) for line in lines) for column in range(4)]
    table = [
        "  ".join(
            cell.ljust(width) if not at else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    return "\n".join([*plan(found), "", *table, "", *costs(found), "", *notes(found)])


def _cells(estimate: Mapping[str, int], whole: int, sign: str = "") -> tuple[str, str, str]:
    value, error = estimate["value"], estimate["error"]
    return f"{sign}{value:,}", f"{error:,}" if error else "", percent(value, whole)


def _sizes(estimate: Mapping[str, int]) -> tuple[str, str]:
    return bytes_text(estimate["value"]), bytes_text(estimate["error"]) if estimate["error"] else ""


def plan(found: Mapping[str, Any]) -> list[str]:
    """Say what would be read, and what was."""
    inputs, sample = found["inputs"], found["sample"]
    return [
        f"plan      {inputs['files']:,} files, {bytes_text(inputs['bytes'])}, {inputs['tasks']:,} tasks",
        f"sample    {sample['records']:,} of {sample['records_read']:,} records by keyed hash, and "
        f"{sample['copies_read']:,} that may be their copies; {sample['cpu']:.1f} s of CPU",
    ]


def costs(found: Mapping[str, Any]) -> list[str]:
    """Draw what the run costs."""
    cost = found["cost"]
    lines = [f"{'stage':<12}{'CPU':>10}{'wall':>10}   on {cost['workers']} workers"]
    for name, wall in cost["wall_seconds"].items():
        cpu = cost["cpu_seconds"].get(name)
        lines.append(f"{name:<12}{'' if cpu is None else f'{cpu:.1f} s':>10}{f'{wall:.1f} s':>10}")
    lines.append(f"{'total':<12}{cost['cpu_total']:>8.1f} s{cost['wall_total']:>8.1f} s")
    lines.append(f"{'memory':<12}{bytes_text(found['peak_memory_bytes']):>10}   of one process, at most about")
    return lines


def notes(found: Mapping[str, Any]) -> list[str]:
    """Say what the numbers are good for."""
    said = ["±: one standard error; two of them hold 19 times of 20. Nothing was written. Times are this machine's."]
    if found["duplicates"] is not None:
        said.append("duplicates: rather too few: copies that differ much in their raw bytes are missed.")
    if found["not_foreseen"]:
        said.append(f"duplicates: what {', '.join(found['not_foreseen'])} would find is not foreseen.")
    if not found["whole_input_read"]:
        said.append(
            f"read: {bytes_text(found['sample']['read_bytes'])} of {bytes_text(found['inputs']['bytes'])}, chosen by "
            "keyed hash; duplicates of what was not read are missed."
        )
    if found["no_tokens"]:
        said.append(f"tokens: cannot be told from this sample: {found['no_tokens']}")
    return said

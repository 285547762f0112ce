"""The plan of a deduplication, printed before it starts: documents, what is exchanged, memory, disk, and the S-curve.

All of it is arithmetic over the number of documents and the settings; the bytes are those that the code takes, so that
a machine that is too small is known before the first file is read.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ..transforms.schema import BATCH_BYTES
from .dedup_charts import curve_points
from .dedup_counts import Count, count_documents
from .duplicates import Dedup
from .exchange import GROUP_BYTES, PACKED
from .funnel import bytes_text
from .keep import LAST
from .match import CONTRACT_NODES
from .report_parts import plural
from .views import InputPart

ENTRY = PACKED.itemsize
LINK_COPIES = 4  # of a group: as read, joined, sorted, and its edges
MERGE_BYTES = 800_000_000  # a task of the merge, see `forests`: 8 Mi edges read at a time, and their forest
EDGE_BYTES = 16
UNION_BYTES = 76  # a clustered document in the client's union-find, of `CONTRACT_NODES` at most
SETTLED_BYTES = 200  # a clustered document while it is settled who stays: ids, contents, labels, order, the table's row
SHARE = 0.2  # of documents in clusters, where one has to be assumed
_BARS = " ▁▂▃▄▅▆▇█"


def plan_value(
    dedup: Dedup, parts: Sequence[Any], workers: int, index: int | None = None, count: Count | None = None
) -> dict[str, Any]:
    """Give the plan as JSON values.

    parts: `StoredPart` or `InputPart` values. index: how many documents an index holds that is matched against. count:
    the number of documents, where the caller knows it.
    """
    count = count or count_documents(parts)
    size = sum(part.task.bytes for part in parts if isinstance(part, InputPart))
    largest = _largest(parts, count.documents)
    return {
        "documents": count.documents,
        "documents_exact": count.exact,
        "documents_how": count.how,
        "indexed": index,
        "parts": len(parts),
        "input_bytes": size or None,
        "workers": workers,
        "kinds": kinds(dedup),
        "exchange": exchanged(dedup, count.documents, len(parts), index or 0),
        "memory": memory(dedup, count.documents, largest),
        "disk": disk(dedup, count.documents, size),
        "match": matching(dedup),
    }


def _largest(parts: Sequence[Any], documents: int) -> int:
    """Say how many documents the largest part has."""
    weights = [part.task.bytes if isinstance(part, InputPart) else part.documents for part in parts]
    return math.ceil(documents * max(weights, default=0) / max(1, sum(weights)))


def kinds(dedup: Dedup) -> list[str]:
    """Name what is looked for, in the order in which it is."""
    minhash = dedup.minhash
    words = "" if minhash is None else f"MinHash {minhash.bands} × {minhash.rows} of {minhash.ngram}-grams"
    verified = "" if dedup.verify is None else f" verified at {dedup.verify:g}"
    found = [
        ("one document a URL", dedup.url is not None),
        ("exact copies", dedup.exact),
        (f"{words} of {minhash.unit if minhash else ''}{verified}", minhash is not None),
        (f"repeated {_unit(dedup)}", dedup.lines is not None),
        (f"substrings of {dedup.substrings.length if dedup.substrings else 0} {_of(dedup)}", bool(dedup.substrings)),
    ]
    return [name for name, asked in found if asked]


def _unit(dedup: Dedup) -> str:
    if dedup.lines is None:
        return ""
    unit, window = f"{dedup.lines.unit}s", dedup.lines.window
    return unit if window == 1 else f"spans of {window} {unit}"


def _of(dedup: Dedup) -> str:
    return dedup.substrings.unit if dedup.substrings is not None else ""


def bands_of(dedup: Dedup) -> int:
    """Count the digests of a document: one a band, one of its content, one of its URL."""
    bands = dedup.minhash.bands if dedup.minhash is not None else 0
    return bands + int(dedup.documents) + int(dedup.url is not None)


def exchanged(dedup: Dedup, documents: int, parts: int, indexed: int) -> dict[str, Any]:
    """Say what is exchanged: 24 bytes a document and band at most, for repeats within a part send one."""
    bands = bands_of(dedup)
    ranges = max(1, math.ceil((documents + indexed) * ENTRY / GROUP_BYTES))
    signing = parts * (int(dedup.documents) + int(dedup.url is not None))
    return {
        "bytes": documents * bands * ENTRY,
        "index_bytes": indexed * bands * ENTRY,
        "bands": bands,
        "ranges": ranges,
        "sign_tasks": signing,
        "link_tasks": bands * ranges,
    }


def memory(dedup: Dedup, documents: int, largest: int) -> dict[str, Any]:
    """Say what memory is taken beyond that of the interpreter and its kernels, at the most.

    A worker signs one part (its batch, the digests of all bands twice, ids and contents), or links one group, or merges
    forests. The client holds what is in clusters.
    """
    bands = bands_of(dedup)
    signing = 3 * BATCH_BYTES + largest * (2 * 16 * bands + ENTRY + 40 + LAST.itemsize * len(dedup.keep))
    linking = LINK_COPIES * min(GROUP_BYTES, documents * ENTRY)
    merging = min(MERGE_BYTES, 3 * EDGE_BYTES * documents * bands)
    settled = SETTLED_BYTES + LAST.itemsize * len(dedup.keep)

    def client(clustered: int) -> int:
        return UNION_BYTES * min(clustered, CONTRACT_NODES) + settled * clustered

    return {
        "worker_bytes": max(signing, linking, merging),
        "sign_bytes": signing,
        "link_bytes": linking,
        "merge_bytes": merging,
        "client_bytes": client(round(SHARE * documents)),
        "client_share": SHARE,
        "client_most_bytes": client(documents),
    }


def disk(dedup: Dedup, documents: int, size: int) -> dict[str, Any]:
    """Say what is written: digests, what is known of each document, forests of at most as many edges; the output."""
    bands = bands_of(dedup)
    known = documents * (16 + 16 + 8 + LAST.itemsize * len(dedup.keep))
    return {"working_bytes": documents * bands * ENTRY + known, "output_most_bytes": size or None}


def matching(dedup: Dedup) -> dict[str, Any] | None:
    """Give the S-curve; None without MinHash."""
    if dedup.minhash is None:
        return None
    return {
        "bands": dedup.minhash.bands,
        "rows": dedup.minhash.rows,
        "threshold": round(dedup.minhash.threshold, 4),
        "verify": dedup.verify,
        "curve": [[at, round(chance, 4)] for at, chance in curve_points(dedup.minhash, dedup.verify)],
    }


def plan_text(dedup: Dedup, parts: Sequence[Any], workers: int, index: int | None = None) -> str:
    """Say the plan in some lines, for a terminal."""
    return plan_lines(plan_value(dedup, parts, workers, index))


def plan_lines(plan: Mapping[str, Any]) -> str:
    """Write a plan's values as lines."""
    exchange, memory, disk = plan["exchange"], plan["memory"], plan["disk"]
    about = "" if plan["documents_exact"] else "about "
    size = "" if plan["input_bytes"] is None else f", {bytes_text(plan['input_bytes'])}"
    indexed = "" if plan["indexed"] is None else f", against {plan['indexed']:,} in the index"
    ranges = plural(exchange["ranges"], "hash range")
    tasks = f"{plural(exchange['sign_tasks'], 'signing task')}, {exchange['link_tasks']:,} linking"
    most = f"{bytes_text(memory['client_most_bytes'])} if every document had a double"
    output = "" if disk["output_most_bytes"] is None else ", and the output, at most about the size of the input"
    lines = [
        ("documents", f"{about}{plan['documents']:,} ({plan['documents_how']}) in {plural(plan['parts'], 'part')}{size}"
                      f"{indexed}"),
        ("looked for", " → ".join(plan["kinds"])),
        ("exchanged", f"{bytes_text(exchange['bytes'])} of digests at most: {exchange['bands']} a document, {ranges}; "
                      f"{tasks} on {plural(plan['workers'], 'worker')}"),
        ("memory", f"{bytes_text(memory['worker_bytes'])} a worker, {bytes_text(memory['client_bytes'])} here with "
                   f"{100 * memory['client_share']:.0f} % in clusters, {most}"),
        ("disk", f"{bytes_text(disk['working_bytes'])}{output}"),
    ]  # fmt: skip
    return "\n".join([f"{name:<12} {said}" for name, said in lines] + curve_lines(plan["match"]))


def curve_lines(match: Mapping[str, Any] | None) -> list[str]:
    """Draw the S-curve as numbers and bars."""
    if match is None:
        return []
    points = match["curve"]
    chances = [f"{100 * chance:.0f} %" if chance < 0.995 or chance == 1 else "> 99 %" for _, chance in points]
    bars = [_BARS[math.ceil(chance * (len(_BARS) - 1))] * 3 for _, chance in points]
    rows = [("similarity", [f"{at:.2f}" for at, _ in points]), ("meets", chances), ("", bars)]
    lines = [f"{name:<12} " + "  ".join(f"{cell:>6}" for cell in cells) for name, cells in rows]
    said = f"threshold    {match['threshold']:.3f} = (1/{match['bands']})^(1/{match['rows']})"
    if match["verify"] is not None:
        said += f"; what meets is compared in full and holds from {match['verify']:g}"
    return [*lines, said]

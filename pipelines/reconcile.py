"""Reconciliation: documents in = kept + rejected + duplicate + quarantined, by counts and by id sums, place by place.

An id sum adds the first 8 bytes of each id modulo 2**64: equal sums mean equal sets, short of a chance of 1 in 2**64.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .. import ReconciliationError
from .stage import Receipt
from .survivors import RowGroup

WORD = 1 << 64


def check(what: str, left: Any, right: Any) -> None:
    """Refuse what does not add up, naming the place and both values."""
    if left != right:
        raise ReconciliationError(f"the run does not add up: {what}: {left} ≠ {right}")


def check_part(receipt: Receipt) -> None:
    """Check one ingest receipt: records met against their fates, kept documents against the row groups written."""
    tally, place = receipt["tally"], f"part {receipt['source']}/{receipt['path']}@{receipt['start']}"
    check(
        f"{place}: records met ≠ kept + rejected + quarantined",
        tally["documents_in"],
        tally["kept"] + tally["rejected"] + tally["quarantined"],
    )
    fates = sum(int(tally[f"id_sum_{fate}"]) for fate in ("kept", "rejected", "quarantined")) % WORD
    check(f"{place}: id sum of records met ≠ that of their fates", int(tally["id_sum_in"]), fates)
    check(
        f"{place}: documents kept ≠ documents written",
        tally["kept"],
        sum(group["documents"] for group in receipt["row_groups"]),
    )
    written = sum(int(group["id_sum"]) for group in receipt["row_groups"]) % WORD
    check(f"{place}: id sum of documents kept ≠ that of documents written", int(tally["id_sum_kept"]), written)


def check_readers(
    groups: Sequence[RowGroup], receipts: Sequence[Receipt], duplicates: int, what: str, outs: Sequence[str]
) -> None:
    """Check a stage that reads the survivors: every row group read once and whole, and what came of its documents."""
    met = {}
    for receipt in receipts:
        for account in receipt["row_groups"]:
            place = (account["part"], account["row_group"])
            check(f"{what}: times that row group {place} was read", int(place in met) + 1, 1)
            met[place] = account
    check(f"{what}: row groups read ≠ row groups written", len(met), len(groups))
    for group in groups:
        account = met.get((group.part, group.number))
        where = f"{what}: part {group.part}, row group {group.number}"
        if account is None:
            raise ReconciliationError(f"the run does not add up: {where} was not read")
        check(f"{where}: documents read ≠ written", account["in"], group.documents)
        check(f"{where}: id sum read ≠ written", account["id_sum"], group.id_sum)
        check(
            f"{where}: documents read ≠ dropped + {' + '.join(outs)}",
            account["in"],
            account["dropped"] + sum(account[out] for out in outs),
        )
    check(
        f"{what}: documents dropped ≠ duplicates found", sum(account["dropped"] for account in met.values()), duplicates
    )


def check_shards(receipts: Sequence[Receipt], validations: Sequence[Receipt]) -> None:
    """Check that shards hold the documents that their tasks read, and validation shards those held out."""
    for receipt in receipts:
        train = sum(account["train"] for account in receipt["row_groups"])
        shard = receipt["shard"]
        check(
            f"shard {receipt['stream']}-{receipt['number']}: documents",
            0 if shard is None else shard["documents"],
            train,
        )
    held_out = sum(account["validation"] for receipt in receipts for account in receipt["row_groups"])
    check(
        "validation: documents held out ≠ documents in validation shards",
        held_out,
        sum(receipt["documents"] for receipt in validations),
    )

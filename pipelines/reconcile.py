"""Reconciliation: documents in = kept + rejected + duplicate + quarantined, by counts and by id sums, place by place.

An id sum adds the first 8 bytes of each id modulo 2**64: equal sums mean equal sets, short of a chance of 1 in 2**64.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from .. import ReconciliationError
from .stage import Receipt
from .survivors import RowGroup

WORD = 1 << 64


def check(what: str, left: Any, right: Any) -> None:
    """Refuse what does not add up, naming the place and both values."""
    if left != right:
        raise ReconciliationError(f"the run does not add up: {what}: {left} ≠ {right}")


class Removed(NamedTuple):
    """The documents that deduplication found to go."""

    documents: int = 0
    id_sum: int = 0


NOTHING = Removed()


def added(accounts: Iterable[dict[str, Any]], name: str) -> int:
    """Add up an id sum over receipts or row groups."""
    return sum(int(account[name]) for account in accounts) % WORD


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
    written = added(receipt["row_groups"], "id_sum")
    check(f"{place}: id sum of documents kept ≠ that of documents written", int(tally["id_sum_kept"]), written)
    for fate in ("kept", "rejected", "quarantined"):
        named = sum(count for key, (count, _) in tally["funnel"].items() if key.split("|")[1] == fate)
        check(f"{place}: records {fate} ≠ those in its funnel", tally[fate], named)
    languages = sum(count for count, _ in tally["languages"].values())
    check(f"{place}: documents kept ≠ those counted by language", tally["kept"], languages)


def check_readers(
    groups: Sequence[RowGroup], receipts: Sequence[Receipt], removed: Removed, what: str, outs: Sequence[str]
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
        parted = sum(int(account[f"{out}_id_sum"]) for out in ("dropped", *outs)) % WORD
        check(f"{where}: id sum read ≠ dropped + {' + '.join(outs)}", int(account["id_sum"]), parted)
    dropped = sum(account["dropped"] for account in met.values())
    check(f"{what}: documents dropped ≠ duplicates found", dropped, removed.documents)
    check(f"{what}: id sum dropped ≠ that of duplicates", added(met.values(), "dropped_id_sum"), removed.id_sum)


def check_text(receipts: Sequence[Receipt]) -> None:
    """Check that text files hold the documents that their tasks kept."""
    for receipt in receipts:
        where, groups = f"text of part {receipt['part']}", receipt["row_groups"]
        check(f"{where}: documents written ≠ kept", receipt["documents"], sum(group["kept"] for group in groups))
        check(f"{where}: id sum written ≠ kept", int(receipt["id_sum"]), added(groups, "kept_id_sum"))


def check_shards(receipts: Sequence[Receipt], validations: Sequence[Receipt]) -> None:
    """Check that shards hold the documents that their tasks read, and validation shards those held out."""
    for receipt in receipts:
        where, groups = f"shard {receipt['stream']}-{receipt['number']}", receipt["row_groups"]
        train = sum(group["train"] for group in groups)
        shard = receipt["shard"]
        check(f"{where}: documents", 0 if shard is None else shard["documents"], train)
        held = sum(group["validation"] for group in groups)
        check(f"{where}: documents met ≠ trained on + held out", receipt["documents"], train + held)
        parted = (added(groups, "train_id_sum") + added(groups, "validation_id_sum")) % WORD
        check(f"{where}: id sum met ≠ trained on + held out", int(receipt["id_sum"]), parted)
        sliced = 0 if receipt["validation"] is None else receipt["validation"]["rows"]
        check(f"{where}: documents in its validation slice ≠ held out", sliced, held)
    accounts = [group for receipt in receipts for group in receipt["row_groups"]]
    held_out, merged = sum(group["validation"] for group in accounts), sum(v["documents"] for v in validations)
    check("validation: documents held out ≠ documents in validation shards", held_out, merged)
    for receipt in validations:
        where = f"validation shard {receipt['stream']}-{receipt['number']}"
        check(f"{where}: documents", receipt["shard"]["documents"], receipt["documents"])
    sums = added(accounts, "validation_id_sum"), added(validations, "id_sum")
    check("validation: id sum held out ≠ that of validation shards", *sums)

"""`penstock classifier`: train a quality classifier, and find the threshold that keeps a share of documents."""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

from .. import RequestError

Add = Callable[..., argparse.ArgumentParser]
#: Settings that a preset gives and an option changes, with fastText's names.
SETTINGS = {"lr": float, "dim": int, "epoch": int, "minCount": int, "wordNgrams": int, "minn": int, "maxn": int}
SETTINGS |= {"bucket": int, "loss": str}


def add_classifier(commands: Any, add_command: Add) -> None:
    """`penstock classifier`."""
    parser = add_command(commands, "classifier", command, "train a fastText quality classifier, or set its threshold")
    actions = parser.add_subparsers(dest="action", metavar="train|calibrate|cutoffs", required=True)
    train = actions.add_parser("train", help="train on examples of two classes; the same bytes each time")
    train.add_argument("--positive", action="append", default=[], metavar="GLOB", help="files of good documents")
    train.add_argument("--negative", action="append", default=[], metavar="GLOB", help="files of other documents")
    train.add_argument("--input", action="append", default=[], metavar="GLOB", help="Parquet files with --score")
    train.add_argument("--score", metavar="COLUMN", help="the score that parts --input into classes")
    train.add_argument("--positive-from", type=float, metavar="X", help="good: a score of at least X")
    train.add_argument("--negative-below", type=float, metavar="X", help="other: a score below X")
    train.add_argument(
        "--output", required=True, metavar="FILE.bin", help="beside it, FILE.json tells what it is worth"
    )
    train.add_argument("--preset", default="dclm", help="dclm (default) or dclm-bigrams")
    train.add_argument("--other", default="cc", help="the other label; cc by default")
    train.add_argument("--most", type=int, metavar="N", help="of each class; a keyed sample of N documents")
    train.add_argument("--held-out", type=float, default=0.1, metavar="SHARE", help="for the test; 0.1 by default")
    train.add_argument("--seed", type=int, default=0)
    for name, kind in SETTINGS.items():
        option = name.replace("C", "-c").replace("N", "-n")  # --min-count, --word-ngrams
        train.add_argument(f"--{option}", dest=name, type=kind, metavar="X", help="in the place of the preset's")
    calibrate = actions.add_parser("calibrate", help="find the threshold that keeps a share of documents")
    calibrate.add_argument("model", metavar="MODEL")
    calibrate.add_argument("--input", action="append", required=True, metavar="GLOB")
    calibrate.add_argument("--keep", type=float, required=True, metavar="SHARE", help="0.1 keeps the best tenth")
    calibrate.add_argument("--most", type=int, default=100_000, metavar="N", help="documents of a keyed sample")
    calibrate.add_argument("--seed", type=int, default=0)
    cutoffs = actions.add_parser("cutoffs", help="write percentiles of a score by language, for perplexity's buckets")
    cutoffs.add_argument("--input", action="append", required=True, metavar="GLOB", help="Parquet files of a run")
    cutoffs.add_argument("--output", required=True, metavar="FILE.csv")
    cutoffs.add_argument("--score", default="perplexity", metavar="COLUMN")
    cutoffs.add_argument("--by", default="language", metavar="COLUMN")
    cutoffs.add_argument("--debug", action="store_true", help="show the traceback of an error")
    for action in (train, calibrate):
        action.add_argument("--label", default="hq", help="the label of good documents; hq by default")
        action.add_argument("--text-field", default="text")
        action.add_argument("--debug", action="store_true", help="show the traceback of an error")


def command(arguments: Any) -> int:
    """Train, calibrate, or write cut-offs."""
    calls = {"train": train_command, "calibrate": calibrate_command, "cutoffs": cutoffs_command}
    return calls[arguments.action](arguments)


def train_command(arguments: Any) -> int:
    """Train a model; write what it is worth beside it, and print that."""
    from .. import require
    from .classifier_data import held_out, smallest, texts
    from .classifier_fit import evaluate, train

    settings = checked(arguments)
    target = Path(arguments.output)
    require("fasttext", "classifier")
    positives, negatives = arguments.positive or arguments.input, arguments.negative or arguments.input
    fields = (arguments.text_field, arguments.score)
    good = texts(positives, *fields, arguments.positive_from, None)
    other = texts(negatives, *fields, None, arguments.negative_below)
    examples = smallest(good, arguments.label, arguments.most, arguments.seed)
    examples = sorted([*examples, *smallest(other, arguments.other, arguments.most, arguments.seed)])
    held = [example for example in examples if held_out(example, arguments.held_out)]
    seen = [example for example in examples if not held_out(example, arguments.held_out)]
    counts = {name: sum(example.label == name for example in seen) for name in (arguments.label, arguments.other)}
    if empty := [name for name, count in counts.items() if not count]:
        raise RequestError(f"there is no document of the class {empty[0]!r} to train on: {counts}")
    train(seen, settings, arguments.seed, target)
    report = {
        "model": target.name,
        "sha256": sha256(target.read_bytes()).hexdigest(),
        "label": arguments.label,
        "trained_on": counts,
        "settings": settings,
        "seed": arguments.seed,
        "held_out": evaluate(target, arguments.label, held),
    }
    target.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    print(table(report))
    return 0


def checked(arguments: Any) -> dict[str, Any]:
    """Refuse what does not go together; give the settings."""
    from .classifier_fit import PRESETS

    target = Path(arguments.output)
    if not target.parent.is_dir():
        raise RequestError(f"--output {target}: the folder {target.parent} is not there")
    if arguments.preset not in PRESETS:
        raise RequestError(f"--preset {arguments.preset}: known are {', '.join(PRESETS)}")
    if not 0 <= arguments.held_out < 1:
        raise RequestError(f"--held-out is {arguments.held_out}; a share from 0 to less than 1")
    if arguments.label == arguments.other:
        raise RequestError(f"--label and --other are both {arguments.label!r}")
    if odd := [name for name in (arguments.label, arguments.other) if not name or name.split() != [name]]:
        raise RequestError(f"the label {odd[0]!r} is no single word")
    if arguments.most is not None and arguments.most < 1:
        raise RequestError(f"--most is {arguments.most}; at least 1")
    by_score = (arguments.input, arguments.score, arguments.positive_from, arguments.negative_below)
    by_files = (arguments.positive, arguments.negative)
    scored = all(value not in (None, []) for value in by_score)
    if (
        any(value not in (None, []) for value in by_score) != scored
        or scored == all(by_files)
        or any(by_files) == scored
    ):
        raise RequestError(
            "give --positive and --negative files, or --input, --score, --positive-from, --negative-below"
        )
    own = {name: getattr(arguments, name) for name in SETTINGS if getattr(arguments, name) is not None}
    return {**PRESETS[arguments.preset], **own}


def table(report: dict[str, Any]) -> str:
    """Write what a model is worth as a table."""
    held = report["held_out"]
    counts = ", ".join(f"{count:,} {name}" for name, count in report["trained_on"].items())
    lines = [f"trained on {counts}; held out {held['documents']:,}, {held['positives']:,} of them {report['label']}"]
    lines += ["", "threshold    kept  precision  recall"]
    for row in held["thresholds"]:
        kept, precision, recall = ("-" if row[name] is None else f"{row[name]:.3f}" for name in list(row)[1:])
        lines.append(f"{row['threshold']:9.6g}  {kept:>6}  {precision:>9}  {recall:>6}")
    area = "-" if held["auc"] is None else f"{held['auc']:.4f}"
    return "\n".join([*lines, "", f"area under the ROC curve {area}", f"sha256 {report['sha256']}"])


def calibrate_command(arguments: Any) -> int:
    """Print the threshold that keeps a share."""
    from ..transforms.labeller import labeller
    from .classifier_data import smallest
    from .classifier_fit import calibrate, scores_of
    from .texts import texts_of

    if not 0 < arguments.keep <= 1:
        raise RequestError(f"--keep is {arguments.keep}; a share above 0, up to 1")
    model = labeller(arguments.model)
    if arguments.label not in model.labels:
        raise RequestError(f"--label is {arguments.label!r}, and the model knows {', '.join(model.labels[:8])}")
    sample = smallest(texts_of(arguments.input, arguments.text_field), "", arguments.most, arguments.seed)
    found = calibrate(scores_of(model, arguments.label, [example.text for example in sample]), arguments.keep)
    print(json.dumps(found, indent=1))
    return 0


def cutoffs_command(arguments: Any) -> int:
    """Write percentiles as a table: a row a percentile, a column a language."""
    from .classifier_data import percentiles_by

    target = Path(arguments.output)
    if not target.parent.is_dir():
        raise RequestError(f"--output {target}: the folder {target.parent} is not there")
    found = percentiles_by(arguments.input, arguments.score, arguments.by)
    if not found:
        raise RequestError(f"no row has both {arguments.score!r} and {arguments.by!r}")
    with target.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["", *found])
        rows.writerows([percent, *(round(float(found[name][percent]), 1) for name in found)] for percent in range(101))
    print(f"{target}: percentiles of {arguments.score} for {len(found)} values of {arguments.by}")
    return 0

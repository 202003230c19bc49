"""Reports of an evaluation: a table on the terminal, evaluation.json, and TensorBoard."""

import json
import math
from collections.abc import Collection, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from torch.utils.tensorboard import SummaryWriter

from began_cli import __version__
from began_cli.errors import UserError
from began_cli.evaluation.attributes import Shares
from began_cli.evaluation.features import Extractor
from began_cli.evaluation.scores import BETTER, Options, Score
from began_cli.files import replacing

FORMAT = 1
WIDTH = 110  # of the table if stdout is no terminal
IDENTITY = (
    *("checkpoint", "protocol", "extractor", "n", "seed", "k", "kid_subset", "bins", "cells"),
    "data",
)


# --- the terminal ---------------------------------------------------------------------------------


def open_console() -> Console:
    """Return a console on stdout. If that is no terminal, it is wide enough for the table."""
    console = Console(highlight=False)
    if console.is_terminal:
        return console
    return Console(highlight=False, width=max(console.width, WIDTH))


def print_table(console: Console, made: dict[str, Score], n: int, seed: int) -> None:
    """Print a row for each score, with its extractor, floor, N and seed."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("score", overflow="fold")
    for heading in ("value", "floor", "N", "seed", "better"):
        table.add_column(heading, justify="right", overflow="fold")
    for name, score in made.items():
        label = f"{name}\\[{score.extractor}]"  # the backslash keeps Rich from reading a style
        value = f"{score.value:.4g}" + (f" ± {score.std:.1g}" if score.std is not None else "")
        floor = f"{score.floor:.4g}" + (f" (N {score.floor_n:,})" if score.floor_n != n else "")
        floor = floor if math.isfinite(score.floor) else "unknown"
        table.add_row(label, value, floor, f"{n:,}", str(seed), BETTER[name])
    console.print(table)


def print_classes(console: Console, fake: list[int], real: list[int]) -> None:
    """Print the share of each class among generated and real images, in per cent."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("class")
    for label in range(len(fake)):
        table.add_column(str(label), justify="right")
    for name, counts in (("generated, %", fake), ("real, %", real)):
        table.add_row(name, *(f"{100 * count / sum(counts):.1f}" for count in counts))
    console.print(table)


def print_attributes(console: Console, shares: Mapping[str, Shares]) -> None:
    """Print the rarest value of each attribute, and those that are missing or rare."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("attribute", "rarest value", "of its real share", "missing", "rare"):
        table.add_column(heading, justify="right" if heading == "of its real share" else "left")
    for name, each in shares.items():
        value, ratio = each.rarest
        missing, rare = ", ".join(each.missing), ", ".join(each.rare)
        table.add_row(name, value, f"{ratio:.2f}", missing, rare)
    console.print(table)


# --- evaluation.json ------------------------------------------------------------------------------


def make_record(
    checkpoint: str,
    step: int,
    extractor: Extractor,
    n: int,
    options: Options,
    data: dict[str, Any],
    made: dict[str, Score],
    notes: list[str],
    *,
    protocol: str | None = None,
    sha256: str | None = None,
    test_data: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Return an entry of evaluation.json: the scores, and everything that they depend on.

    `data` and `test_data` describe the images that the samples are compared with, and those that
    were not trained on. `sha256` is the checkpoint's.
    """
    return {
        "checkpoint": checkpoint,
        "checkpoint_sha256": sha256,
        "step": step,
        "protocol": protocol,
        "extractor": extractor.label,
        "extractor_sha256": extractor.sha256,
        "n": n,
        "seed": options.seed,
        "k": options.k,
        "kid_subset": options.kid_subset,
        "bins": options.bins,
        "cells": options.cells,
        "data": data,
        "test_data": test_data,
        "scores": {name: asdict(score) for name, score in made.items()},
        "notes": notes,
        "began": __version__,
    }


def read(path: Path) -> list[dict[str, Any]]:
    """Return the entries of an evaluation.json; none if there is no file.

    Raise UserError if the file is something else: adding to it would lose it.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        evaluations = content["evaluations"]
        if content["format"] != FORMAT or not isinstance(evaluations, list):
            raise ValueError
        return evaluations
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, TypeError):
        raise UserError(f"out: {path} is not a whole evaluation.json; move it away") from None


def find_scores(path: Path, step: int) -> dict[str, dict[str, Any]]:
    """Return the scores of a step in an evaluation.json, by name, extractor, N, seed, protocol."""
    return {
        f"{name}[{score['extractor']}] N={record['n']} seed={record['seed']}"
        + (f" protocol={record['protocol']}" if record.get("protocol") else ""): score
        for record in read(path)
        if record.get("step") == step
        for name, score in record["scores"].items()
    }


def add(path: Path, record: dict[str, Any]) -> None:
    """Add an entry to an evaluation.json, replaced atomically.

    An entry with the same IDENTITY is updated: its scores that the new one doesn't have stay,
    unless its checkpoint was another file of the same name.
    """
    evaluations = read(path)
    same = [old for old in evaluations if _is_same(old, record)]
    for old in same:
        files = {each.get("checkpoint_sha256") for each in (old, record)} - {None}
        if len(files) < 2:
            record = {**old, **record, "scores": old["scores"] | record["scores"]}
    others = [old for old in evaluations if old not in same]
    content = {"format": FORMAT, "evaluations": [*others, record]}
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(_replace_nan(content), indent=1), encoding="utf-8")


def find_finished(
    path: Path, record: dict[str, Any], names: Collection[str]
) -> dict[str, Any] | None:
    """Return the entry of an evaluation.json for what `record` describes, if it has these scores.

    The checkpoint must be the same file, and so must the test images, if `record` has any.
    """
    for old in read(path):
        test = record["test_data"] in (None, old.get("test_data"))
        file = record["checkpoint_sha256"] == old.get("checkpoint_sha256")
        if _is_same(old, record) and test and file and set(names) <= old["scores"].keys():
            return old
    return None


def read_score(entry: dict[str, Any]) -> Score:
    """Return the score in an entry of evaluation.json; NaN for null."""
    score = Score(**entry)
    score.value, score.floor = (
        math.nan if each is None else each for each in (score.value, score.floor)
    )
    return score


def _is_same(old: dict[str, Any], record: dict[str, Any]) -> bool:
    return all(old.get(key) == record[key] for key in IDENTITY)


def _replace_nan(value: Any) -> Any:
    """Return the value with None for numbers that JSON does not have, NaN and infinity."""
    if isinstance(value, dict):
        return {key: _replace_nan(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_replace_nan(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


# --- TensorBoard ----------------------------------------------------------------------------------


def score_scalars(name: str, score: Score) -> dict[str, float]:
    """Return the TensorBoard tags of a score and of its floor, with their values.

    The extractor is in the tag, so that no curve mixes the scores of two. NaN is left out.
    """
    tag = f"evaluation/{name}/{score.extractor.replace('@', '-')}"
    values = {tag: score.value, f"{tag}/floor": score.floor}
    return {name: value for name, value in values.items() if not math.isnan(value)}


def write_scalars(folder: Path, made: dict[str, Score], step: int) -> None:
    """Write the scores of a checkpoint to TensorBoard's files in `folder`."""
    with SummaryWriter(str(folder), filename_suffix=".evaluation") as writer:
        for name, score in made.items():
            for tag, value in score_scalars(name, score).items():
                writer.add_scalar(tag, value, step)

"""How an evaluation is told: a table, evaluation.json, and TensorBoard."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from torch.utils.tensorboard import SummaryWriter

from began_cli.errors import UserError
from began_cli.evaluation import scores
from began_cli.files import replacing

FORMAT = 1
WIDTH = 110  # of the table where there is no terminal to say
IDENTITY = ("checkpoint", "extractor", "n", "seed", "k", "kid_subset", "bins", "data")


@dataclass(slots=True)
class Score:
    """A score and what real images score against real ones."""

    extractor: str  # `name@hash`: scores of two extractors are not to be compared
    value: float
    floor: float
    floor_n: int  # images in each of the floor's two sets
    std: float | None = None


def console() -> Console:
    """The terminal; where there is none, wide enough for whole rows of the table."""
    there = Console(highlight=False)
    return there if there.is_terminal else Console(highlight=False, width=max(there.width, WIDTH))


def table(on: Console, made: dict[str, Score], n: int, seed: int) -> None:
    """Every score with its extractor, floor (real against real), N and seed, a row each."""
    sheet = Table(box=None, pad_edge=False, header_style="bold")
    sheet.add_column("score", overflow="fold")
    for heading in ("value", "floor", "N", "seed", "better"):
        sheet.add_column(heading, justify="right", overflow="fold")
    for name, score in made.items():
        value = f"{score.value:.4g}" + (f" ± {score.std:.1g}" if score.std is not None else "")
        floor = f"{score.floor:.4g}" + (f" (N {score.floor_n:,})" if score.floor_n != n else "")
        # Rich would read the brackets as a style.
        row = (
            f"{name}\\[{score.extractor}]",
            value,
            floor,
            f"{n:,}",
            str(seed),
            scores.BETTER[name],
        )
        sheet.add_row(*row)
    on.print(sheet)


def histogram(on: Console, made: list[int], real: list[int]) -> None:
    """The share of each class among the generator's images and among real ones, in per cent."""
    sheet = Table(box=None, pad_edge=False, header_style="bold")
    sheet.add_column("class")
    for label in range(len(made)):
        sheet.add_column(str(label), justify="right")
    for name, counts in (("generated, %", made), ("real, %", real)):
        sheet.add_row(name, *(f"{100 * count / sum(counts):.1f}" for count in counts))
    on.print(sheet)


def read(path: Path) -> list[dict[str, Any]]:
    """The evaluations in an evaluation.json, none if there is no file.

    Raises UserError if it is something else: it would be lost.
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


def scores_at(path: Path, step: int) -> dict[str, dict[str, Any]]:
    """The scores of a step in an evaluation.json, each with its extractor, N and floor."""
    return {
        f"{name}[{score['extractor']}] N={record['n']} seed={record['seed']}": score
        for record in read(path)
        if record.get("step") == step
        for name, score in record["scores"].items()
    }


def add(path: Path, record: dict[str, Any]) -> None:
    """Puts an evaluation into an evaluation.json, which a reader finds whole at any time.

    One of the same checkpoint, extractor, N, seed, data and options is brought up to date: scores
    that were not asked for this time stay. All others stay as they are.
    """
    evaluations = read(path)
    same = [old for old in evaluations if all(old.get(k) == record[k] for k in IDENTITY)]
    for old in same:
        record = {**record, "scores": old["scores"] | record["scores"]}
    kept = [old for old in evaluations if old not in same]
    content = {"format": FORMAT, "evaluations": [*kept, record]}
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(finite(content), indent=1), encoding="utf-8")


def finite(value: Any) -> Any:
    """The same with null for numbers that JSON does not have."""
    if isinstance(value, dict):
        return {key: finite(each) for key, each in value.items()}
    if isinstance(value, list):
        return [finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def board(folder: Path, made: dict[str, Score], step: int) -> None:
    """Scalars `evaluation/NAME/EXTRACTOR-HASH` at the checkpoint's step.

    The extractor is in the tag, so that no curve mixes the scores of two.
    """
    with SummaryWriter(str(folder), filename_suffix=".evaluation") as writer:
        for name, score in made.items():
            tag = f"evaluation/{name}/{score.extractor.replace('@', '-')}"
            writer.add_scalar(tag, score.value, step)
            writer.add_scalar(f"{tag}/floor", score.floor, step)

"""Runs that were trained and scored, as a table in Markdown.

    python scripts/table_of_runs.py RUN|FOLDER … --columns COLUMN …

A row for each run, or each run below a folder, in order of the columns that are settings; at last
what real images score. A COLUMN is

    a setting      seed, loss.gamma, optimizer.lr_g …
    a score        fid, kid, precision, recall, coverage, modes … of the newest evaluation
    a measure      k_t, diversity, loss_real, images_per_second … of the last log
    step, images   how far the run came: steps, and real images that D has seen
    ratio          L(G(z)) / L(x) of the last log
                   (the last log is that of the checkpoint which was scored, where one was)
    rarest, rare   share of the rarest class in %; how many classes have less than 1 %
    seeds          makes one row of the runs that are alike in the settings shown and in how far
                   they came: how many have the scores asked for, their means ± standard deviations
"""

import argparse
import math
from pathlib import Path
from typing import Any, NamedTuple

from benchmark import plainly
from omegaconf import DictConfig, OmegaConf
from reproduce_table import SCORES, evaluation, logs_of, saved_settings, shown, spread

from began_cli.commands.compare import found
from began_cli.errors import UserError

SEEDS = "seeds"


class Run(NamedTuple):
    """What a run's files say: its settings, its numbers by column, what real images score."""

    folder: Path
    settings: DictConfig
    numbers: dict[str, float]
    floors: dict[str, float]
    extractors: dict[str, str]  # that the scores are by, and on how many images

    def setting(self, name: str) -> Any:
        """None if the run does not have it, or if a score is called that (precision)."""
        return None if name in SCORES else OmegaConf.select(self.settings, name)

    def value(self, name: str) -> Any:
        """What stands in a column; None if the run does not have it."""
        number = self.numbers.get(name)
        return self.setting(name) if number is None else number


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", metavar="RUN|FOLDER")
    parser.add_argument("--columns", nargs="+", required=True, metavar="COLUMN")
    args = parser.parse_args()
    with plainly():
        print(table(runs_of(args.runs), args.columns))


def runs_of(given: list[str]) -> list[Run]:
    """Each run that is meant, once."""
    folders = {folder.resolve(): folder for each in given for folder in found(each)}
    return [read(folder) for folder in folders.values()]


def table(runs: list[Run], names: list[str]) -> str:
    """The table; refuses a column that no run has, and scores that do not compare."""
    for name in names:
        values = [value for run in runs if (value := run.value(name)) is not None]
        if name != SEEDS and not values:
            raise UserError(f"--columns {name}: no run, or no run's newest evaluation, has it")
        if any(isinstance(value, DictConfig) for value in values):
            raise UserError(f"--columns {name}: a group of settings; one of them is {name}.name")
        by = {run.extractors[name]: run.folder for run in runs if name in run.extractors}
        if len(by) > 1:
            said = ", ".join(f"{folder} by {extractor}" for extractor, folder in by.items())
            raise UserError(f"--columns {name}: scores that do not compare: {said}")
    settings = [name for name in names if any(run.setting(name) is not None for run in runs)]
    scores = {name for name in names if any(name in run.floors for run in runs)}
    rows: dict[tuple[Any, ...], list[Run]] = {}
    for i, run in enumerate(runs):
        alike = tuple(ranked(run.setting(name)) for name in settings)
        if SEEDS not in names:
            rows[*alike, i] = [run]
        elif scores <= set(run.numbers):
            rows.setdefault((*alike, run.numbers.get("step", 0.0)), []).append(run)
    lines = [names, ["---"] * len(names)]
    lines += [[cell(rows[key], name) for name in names] for key in sorted(rows)]
    floors = next((run.floors for run in runs if run.floors), {})
    if scores:
        real = [shown(floors[name]) if name in floors else "" for name in names]
        lines.append([f"real images {real[0]}".strip(), *real[1:]])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def read(folder: Path) -> Run:
    run = Run(folder, saved_settings(folder) or OmegaConf.create(), {}, {}, {})
    entry = evaluation(folder)
    scored = entry.get("step", math.inf)
    logs = [log for log in logs_of(folder) if log["step"] <= scored]
    for name, number in (logs[-1] if logs else {}).items():
        if isinstance(number, int | float):  # null is one that is not finite
            run.numbers[name.removeprefix("train/")] = float(number)
    if run.numbers.get("loss_real") and run.numbers.get("loss_fake"):
        run.numbers["ratio"] = run.numbers["loss_fake"] / run.numbers["loss_real"]
    for name, score in entry.get("scores", {}).items():
        run.numbers[name], run.floors[name] = score["value"], score["floor"]
        extractor = score.get("extractor", entry.get("extractor"))
        run.extractors[name] = f"{extractor} on {entry.get('n')} images"
    for key, numbers in (("classes", run.numbers), ("real_classes", run.floors)):
        if key in entry:
            shares = [100 * count / sum(entry[key]) for count in entry[key]]
            numbers |= {"rarest": min(shares), "rare": float(sum(share < 1 for share in shares))}
    return run


def ranked(setting: Any) -> tuple[int, float, str]:
    """Numbers by size, then words."""
    is_number = isinstance(setting, int | float)
    return (0, setting, "") if is_number else (1, 0.0, str(setting))


def cell(runs: list[Run], name: str) -> str:
    """What stands in a row of those runs, which are alike in their settings."""
    if name == SEEDS:
        return str(len(runs))
    values = [value for run in runs if (value := run.value(name)) is not None]
    if not values:
        return "-"
    return spread(values) if isinstance(values[0], float) else word(values[0])


def word(value: Any) -> str:
    """A setting's value."""
    if isinstance(value, float):
        return shown(value)
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:,}" if isinstance(value, int) else str(value)


if __name__ == "__main__":
    main()

"""Print a table, in Markdown, of runs that were trained and scored.

    python scripts/table_of_runs.py RUN|FOLDER … --columns COLUMN …

A row for each run, or each run below a folder, sorted by the columns that are settings. The last
row is what real images score. A COLUMN is

    a setting      seed, loss.gamma, optimizer.lr_g …
    a score        fid, kid, precision, recall, coverage, modes … of the newest evaluation
    a measure      k_t, diversity, loss_real, images_per_second … of the last log
    step, images   length of the run: steps, and real images seen by the discriminator
    ratio          L(G(z)) / L(x) of the last log
                   (if the run was scored, the last log is that of the scored checkpoint)
    rarest, rare   share of the rarest class in %; number of classes with less than 1 %
    seeds          one row for all runs with the same settings in the other columns and the same
                   length: number of runs that have the scores, mean ± standard deviation
"""

import math
from pathlib import Path
from typing import Any, NamedTuple

from common import (
    class_shares,
    format_number,
    format_spread,
    make_parser,
    read_evaluation,
    read_logs,
    read_settings,
    report_errors,
)
from omegaconf import DictConfig, OmegaConf
from reproduce_table import SCORES

from began_cli.comparison.runs import find_runs
from began_cli.comparison.tables import rank
from began_cli.errors import UserError

SEEDS = "seeds"


class Run(NamedTuple):
    """The settings of a run, its numbers by column, and the scores of real images."""

    folder: Path
    settings: DictConfig
    numbers: dict[str, float]
    floors: dict[str, float]
    extractors: dict[str, str]  # by score: extractor and number of images

    def setting(self, name: str) -> Any:
        """Return a setting, None if the run lacks it or a score has that name (precision)."""
        return None if name in SCORES else OmegaConf.select(self.settings, name)

    def value(self, name: str) -> Any:
        """Return the value for a column, None if the run has none."""
        number = self.numbers.get(name)
        return self.setting(name) if number is None else number


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("runs", nargs="+", metavar="RUN|FOLDER")
    parser.add_argument("--columns", nargs="+", required=True, metavar="COLUMN")
    args = parser.parse_args()
    with report_errors():
        print(make_table(read_runs(args.runs), args.columns))


def read_runs(given: list[str]) -> list[Run]:
    """Read the runs that are given, or below a folder that is; each of them once."""
    folders = {folder.resolve(): folder for each in given for folder in find_runs(each)}
    return [read_run(folder) for folder in folders.values()]


def make_table(runs: list[Run], names: list[str]) -> str:
    """Return the table. Raise UserError if no run has a column, or scores are not comparable."""
    for name in names:
        check_column(runs, name)
    settings = [name for name in names if any(run.setting(name) is not None for run in runs)]
    scores = {name for name in names if any(name in run.floors for run in runs)}
    rows: dict[tuple[Any, ...], list[Run]] = {}
    for i, run in enumerate(runs):
        key = tuple(rank(run.setting(name)) for name in settings)
        if SEEDS not in names:
            rows[*key, i] = [run]
        elif scores <= set(run.numbers):
            rows.setdefault((*key, run.numbers.get("step", 0.0)), []).append(run)
    lines = [names, ["---"] * len(names)]
    lines += [[format_cell(rows[key], name) for name in names] for key in sorted(rows)]
    floors = next((run.floors for run in runs if run.floors), {})
    if scores:
        real = [format_number(floors[name]) if name in floors else "" for name in names]
        lines.append([f"real images {real[0]}".strip(), *real[1:]])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def check_column(runs: list[Run], name: str) -> None:
    """Raise UserError if no run has the column, or its scores are not comparable."""
    values = [value for run in runs if (value := run.value(name)) is not None]
    if name != SEEDS and not values:
        raise UserError(f"--columns {name}: no run, or no run's newest evaluation, has it")
    if any(isinstance(value, DictConfig) for value in values):
        raise UserError(f"--columns {name}: a group of settings; one of them is {name}.name")
    folders = {run.extractors[name]: run.folder for run in runs if name in run.extractors}
    if len(folders) > 1:
        listed = ", ".join(f"{folder} by {extractor}" for extractor, folder in folders.items())
        raise UserError(f"--columns {name}: scores that do not compare: {listed}")


def read_run(folder: Path) -> Run:
    run = Run(folder, read_settings(folder) or OmegaConf.create(), {}, {}, {})
    entry = read_evaluation(folder)
    scored = entry.get("step", math.inf)
    logs = [log for log in read_logs(folder) if log["step"] <= scored]
    for name, number in (logs[-1] if logs else {}).items():
        if isinstance(number, int | float):  # null stands for one that is not finite
            run.numbers[name.removeprefix("train/")] = float(number)
    if run.numbers.get("loss_real") and run.numbers.get("loss_fake"):
        run.numbers["ratio"] = run.numbers["loss_fake"] / run.numbers["loss_real"]
    for name, score in entry.get("scores", {}).items():
        run.numbers[name], run.floors[name] = score["value"], score["floor"]
        extractor = score.get("extractor", entry.get("extractor"))
        run.extractors[name] = f"{extractor} on {entry.get('n')} images"
    for key, numbers in (("classes", run.numbers), ("real_classes", run.floors)):
        if key in entry:
            shares = class_shares(entry[key])
            numbers |= {"rarest": min(shares), "rare": float(sum(share < 1 for share in shares))}
    return run


def format_cell(runs: list[Run], name: str) -> str:
    """Return a cell of a row of runs, which have the same settings."""
    if name == SEEDS:
        return str(len(runs))
    values = [value for run in runs if (value := run.value(name)) is not None]
    if not values:
        return "-"
    return format_spread(values) if isinstance(values[0], float) else format_setting(values[0])


def format_setting(value: Any) -> str:
    if isinstance(value, float):
        return format_number(value)
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:,}" if isinstance(value, int) else str(value)


if __name__ == "__main__":
    main()

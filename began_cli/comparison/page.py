"""Render the page of a comparison from page.html.j2."""

import base64
import dataclasses
import itertools
import math
from dataclasses import dataclass, field
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from began_cli.comparison import plots, tables
from began_cli.comparison.records import CURVES, FAILED, FINISHED, NOTHING, STOPPED, Column, Run
from began_cli.comparison.tables import UNKNOWN, Group

SIGNS = {FINISHED: "✓", STOPPED: "◐", FAILED: "✗", NOTHING: "○"}


@dataclass(slots=True)
class Entry:
    """A run with its number on the page, and the settings that tell it from the others."""

    run: Run
    group: Group
    number: int
    label: str
    look: plots.Look

    @property
    def dashes(self) -> str:
        """The dashes of a line two pixels wide, for SVG."""
        return " ".join(f"{1.5 * part:g}" for part in self.look.dashes)


@dataclass(slots=True)
class Plots:
    """The plots of a section, (SVG, description), and the runs in its legend."""

    svgs: list[tuple[str, str]] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)


class Cell:
    """A cell of a table: its text, and the number to sort by, with every digit."""

    def __init__(self, text: str, value: float | None = None) -> None:
        self.text = text
        self.value = value if value is not None and math.isfinite(value) else None
        is_text = self.value is None and text not in (UNKNOWN, "") and not text[0].isdigit()
        self.is_number = not is_text


def render(
    title: str, runs: list[Run], groups: list[Group], warnings: list[str], samples: str
) -> str:
    """Return the page as HTML: the same bytes for the same comparison.

    `runs` and `groups` are those of `tables.group_runs`; `samples` describes the sample images.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters["base64"] = lambda data: base64.b64encode(data).decode()
    entries = number_runs(runs, groups)
    columns, curves = tables.list_columns(runs), tables.list_curves(runs)
    headings = tables.name_columns(columns)
    above = [headings[column].removeprefix(column.score) for column in columns]
    above += ["last logged"] * len(curves)
    settings = [*tables.find_differing(runs), "seed"]
    shared = tables.find_shared(runs).items()
    return environment.get_template("page.html.j2").render(
        title=title,
        summary=summarise(runs),
        warnings=warnings,
        scored=bool(columns),
        spans=[(text, len(list(same))) for text, same in itertools.groupby(above)],
        measures=[column.score for column in columns] + [CURVES[curve] for curve in curves],
        group_rows=[group_row(group, columns, curves) for group in groups],
        floors=floor_row(runs, columns, curves),
        precision_recall=plot_precision_recall(entries),
        samples=samples,
        sheets=rows_of_sheets(entries),
        curves=plot_curves(entries),
        run_headings=[("run", True), ("status", False), *((name, False) for name in settings)],
        run_rows=[(entry, run_row(entry, settings, columns, curves)) for entry in entries],
        signs=SIGNS,
        shared=[(name, tables.format_setting(value)) for name, value in shared],
    )


def number_runs(runs: list[Run], groups: list[Group]) -> list[Entry]:
    """Return the runs, numbered from 1, with a colour per group and dashes per seed."""
    numbers = {id(run): i for i, run in enumerate(runs, 1)}
    seeds = list(dict.fromkeys(run.seed for run in runs))
    entries: list[Entry] = []
    for i, group in enumerate(groups):
        for run in group.runs:
            has_seed = len(seeds) > 1 and run.settings
            label = group.label + (f", seed={run.seed}" if has_seed else "")
            look = plots.choose_look(i, len(groups), seeds.index(run.seed))
            entries.append(Entry(run, group, numbers[id(run)], label, look))
    return sorted(entries, key=lambda entry: entry.number)


def summarise(runs: list[Run]) -> str:
    """Return how many runs are in which state, and in which settings they differ."""
    names = tables.find_differing(runs)
    if len({run.seed for run in runs if run.settings}) > 1:
        names.append("seed")
    differences = f" They differ in {', '.join(names) or 'no setting'}." if len(runs) > 1 else ""
    return f"{count_runs(len(runs))}: {count_states(runs)}.{differences}"


def count_runs(n: int) -> str:
    return "1 run" if n == 1 else f"{n} runs"


def count_states(runs: list[Run]) -> str:
    """Return, for example, `2 finished, 1 failed`."""
    states = [run.state for run in runs]
    return ", ".join(f"{states.count(state)} {state}" for state in SIGNS if state in states)


# --- tables ---------------------------------------------------------------------------------------


def group_row(group: Group, columns: list[Column], curves: list[str]) -> list[Cell]:
    """Return a row of the table of scores: means over the seeds of a group."""
    n = len(group.counted)
    means = [tables.mean_score(group, column) for column in columns]
    means += [tables.mean_last(group, curve) for curve in curves]
    seeds = f"{n} of {len(group.runs)}" if n < len(group.runs) else f"{n}"
    row = [Cell(group.label), Cell(seeds, n)]
    for mean in means:
        row.append(Cell(f"{mean} (n={mean.n})" if 0 < mean.n < n else f"{mean}", mean.mean))
    return row


def floor_row(runs: list[Run], columns: list[Column], curves: list[str]) -> list[Cell]:
    """Return the row of real images against real ones; empty if no run has such scores."""
    floors = [tables.mean_floor(runs, column) for column in columns]
    if not any(math.isfinite(value) for value in floors):
        return []
    row = [Cell("real against real"), Cell(""), *map(number_cell, floors)]
    return row + [Cell("") for _ in curves]


def run_row(
    entry: Entry, settings: list[str], columns: list[Column], curves: list[str]
) -> list[Cell]:
    """Return a row of the table of runs: number, settings, scores and last measures."""
    run, row = entry.run, [Cell(str(entry.number), entry.number)]
    for name in settings:
        value = run.settings.get(name)
        number = value if isinstance(value, int | float) else None
        row.append(Cell(tables.format_setting(value), number))
    values = [run.scores[each].value if each in run.scores else math.nan for each in columns]
    return row + [number_cell(value) for value in (*values, *map(run.last, curves))]


def number_cell(value: float) -> Cell:
    return Cell(tables.format_number(value), value)


# --- pictures -------------------------------------------------------------------------------------


def rows_of_sheets(entries: list[Entry]) -> list[tuple[str, list[Entry]]]:
    """Return the runs that have samples, a row per seed: different settings stand side by side."""
    with_sheet = [entry for entry in entries if entry.run.sheet is not None]
    seeds = sorted({entry.run.seed for entry in with_sheet})
    return [(seed, [entry for entry in with_sheet if entry.run.seed == seed]) for seed in seeds]


def plot_curves(entries: list[Entry]) -> Plots:
    """Draw a plot per measure, a line per run."""
    drawn = Plots(entries=[entry for entry in entries if any(entry.run.curves.values())])
    for curve in tables.list_curves([entry.run for entry in entries]):
        lines = [(e.look, e.run.curves[curve]) for e in entries if e.run.curves.get(curve)]
        drawn.svgs.append(
            (
                plots.plot_curves(CURVES[curve], lines),
                f"{CURVES[curve]} over steps, {count_runs(len(lines))}; "
                "the last values are under Runs",
            )
        )
    return drawn


def plot_precision_recall(entries: list[Entry]) -> Plots:
    """Draw a plot per extractor and number of images, a point per run."""
    runs = [entry.run for entry in entries]
    columns = tables.list_columns(runs)
    headings = tables.name_columns(columns)
    drawn = Plots()
    for recall in (column for column in columns if column.score == "recall"):
        precision = dataclasses.replace(recall, score="precision")
        shown = [e for e in entries if recall in e.run.scores and precision in e.run.scores]
        if not shown:
            continue
        points = [
            (e.look, str(e.number), e.run.scores[recall].value, e.run.scores[precision].value)
            for e in shown
        ]
        real = tables.mean_floor(runs, recall), tables.mean_floor(runs, precision)
        title = headings[recall].removeprefix("recall")
        description = f"Precision over recall {title}, a point per run; the numbers are under Runs"
        drawn.svgs.append((plots.plot_precision_recall(title, points, real), description))
        drawn.entries += [entry for entry in shown if entry not in drawn.entries]
    return drawn

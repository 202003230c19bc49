"""Group runs by their settings, average their scores over seeds, and write the CSV table."""

import csv
import io
import math
import statistics
from dataclasses import dataclass
from typing import Any

from began_cli.comparison.records import CURVES, FINISHED, Column, Run

UNKNOWN = "–"


@dataclass(slots=True)
class Group:
    """Runs that differ only in their seed."""

    label: str  # the settings that tell it from the other groups, such as `gamma=0.5`
    runs: list[Run]
    counted: list[Run]  # finished runs, one per seed: the means are taken over these


@dataclass(slots=True)
class Mean:
    """A mean over n values. The sample standard deviation is NaN if n < 2, the mean if n = 0."""

    mean: float
    std: float
    n: int

    def __str__(self) -> str:
        if self.n == 0:
            return UNKNOWN
        return format_number(self.mean) + (f" ± {format_number(self.std, 2)}" if self.n > 1 else "")


def find_differing(runs: list[Run]) -> list[str]:
    """Return the names of the settings, other than the seed, that differ between the runs.

    Runs with unknown settings are ignored.
    """
    known = [run.settings for run in runs if run.settings]
    names = dict.fromkeys(name for settings in known for name in settings if name != "seed")
    return [name for name in names if len({format_setting(each.get(name)) for each in known}) > 1]


def find_shared(runs: list[Run]) -> dict[str, Any]:
    """Return the settings, other than the seed, that have the same value in all runs."""
    known = [run.settings for run in runs if run.settings]
    excluded = {*find_differing(runs), "seed"}
    first = known[0] if known else {}
    return {name: value for name, value in first.items() if name not in excluded}


def sort_runs(runs: list[Run]) -> list[Run]:
    """Return the runs in order of the settings that differ, then of seed and name."""
    names = [*find_differing(runs), "seed"]

    def key(run: Run) -> tuple[Any, ...]:
        return (not run.settings, [rank(run.settings.get(name)) for name in names], run.name)

    return sorted(runs, key=key)


def group_runs(runs: list[Run]) -> tuple[list[Group], list[str]]:
    """Return the sorted runs in groups that differ only in the seed, and warnings.

    Of two runs with the same seed only the first counts: a standard deviation is never taken over
    repetitions of one run.
    """
    names = find_differing(runs)
    members: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        alone = () if run.settings else (run.name,)  # unknown settings are like no others
        values = (format_setting(run.settings.get(name)) for name in names)
        members.setdefault((*alone, *values), []).append(run)
    naming = _choose_names([group[0] for group in members.values() if group[0].settings], names)
    groups: list[Group] = []
    warnings: list[str] = []
    for group in members.values():
        counted: dict[Any, Run] = {}
        for run in group:
            if run.state != FINISHED:
                continue
            first = counted.setdefault(run.seed, run)
            if first is not run:
                warnings.append(
                    f"{first.name} and {run.name} have the same settings and seed: "
                    f"only {first.name} counts in the means"
                )
        groups.append(Group(_make_label(group[0], naming), group, list(counted.values())))
    return groups, warnings


def _choose_names(firsts: list[Run], names: list[str]) -> list[str]:
    """Return the names that each split groups which the names before it left together."""
    chosen: list[str] = []
    parts = min(1, len(firsts))
    for name in names:
        keys = (*chosen, name)
        values = {tuple(format_setting(run.settings.get(key)) for key in keys) for run in firsts}
        if len(values) > parts:
            chosen.append(name)
            parts = len(values)
    return chosen


def _make_label(run: Run, names: list[str]) -> str:
    if not run.settings or not names:
        return run.name if not run.settings else "all runs"
    short = [name.removesuffix(".name").rpartition(".")[2] for name in names]
    words = [s if short.count(s) == 1 else name for s, name in zip(short, names, strict=True)]
    values = [format_setting(run.settings.get(name)) for name in names]
    return ", ".join(f"{word}={value}" for word, value in zip(words, values, strict=True))


def list_columns(runs: list[Run]) -> list[Column]:
    """Return every column of scores, in the order of the evaluations."""
    return list(dict.fromkeys(column for run in runs for column in run.scores))


def name_columns(columns: list[Column]) -> dict[Column, str]:
    """Return a unique heading for each column, such as `fid[mnist-cnn@6b0b2a93] N=10,000`."""
    short = {c: f"{c.score}[{c.extractor}] N={c.n:,} {c.protocol}".rstrip() for c in columns}
    texts = list(short.values())
    return {
        c: text if texts.count(text) == 1 else " ".join(filter(None, (text, c.options, c.data)))
        for c, text in short.items()
    }


def list_curves(runs: list[Run]) -> list[str]:
    """Return the names of the curves that at least one run has."""
    return [name for name in CURVES if any(run.curves.get(name) for run in runs)]


def mean(values: list[float]) -> Mean:
    """Return the mean and sample standard deviation of the finite values."""
    numbers = [value for value in values if math.isfinite(value)]
    if not numbers:
        return Mean(math.nan, math.nan, 0)
    std = statistics.stdev(numbers) if len(numbers) > 1 else math.nan
    return Mean(statistics.fmean(numbers), std, len(numbers))


def mean_score(group: Group, column: Column) -> Mean:
    """Return the mean of a score over the seeds of a group."""
    return mean([run.scores[column].value for run in group.counted if column in run.scores])


def mean_last(group: Group, curve: str) -> Mean:
    """Return the mean of the last values of a curve over the seeds of a group."""
    return mean([run.last(curve) for run in group.counted])


def mean_floor(runs: list[Run], column: Column) -> float:
    """Return the score of real images against real ones, NaN if unknown."""
    return mean([run.scores[column].floor for run in runs if column in run.scores]).mean


def format_csv(runs: list[Run], groups: list[Group]) -> str:
    """Return a table with a line per run: state, seed, differing settings, scores, last measures.

    Numbers have all their digits, so that a program reads back the same values.
    """
    columns, curves, names = list_columns(runs), list_curves(runs), find_differing(runs)
    headings = name_columns(columns)
    group_of = {id(run): group for group in groups for run in group.runs}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    head = ["run", "group", "counted", "state", "status", "step", "seed", *names]
    writer.writerow([*head, *(headings[column] for column in columns), *curves])
    for run in runs:
        group = group_of[id(run)]
        counted = any(run is each for each in group.counted)
        cells = [run.name, group.label, "yes" if counted else "no", run.state, run.status, run.step]
        cells += [run.settings.get(name, "") for name in ("seed", *names)]
        for column in columns:
            cells.append(repr(run.scores[column].value) if column in run.scores else "")
        for curve in curves:
            value = run.last(curve)
            cells.append(repr(value) if math.isfinite(value) else "")
        writer.writerow(cells)
    return text.getvalue()


def format_setting(value: Any) -> str:
    """Return the value of a setting as text, UNKNOWN for None."""
    if isinstance(value, float):
        return f"{value:.15g}"  # 10 and 10.0 are one value
    return UNKNOWN if value is None else str(value)


def format_number(value: float, digits: int = 4) -> str:
    """Return a number with that many significant digits, but up to a million without exponent."""
    if not math.isfinite(value):
        return UNKNOWN
    return f"{value:.0f}" if 10**digits <= abs(value) < 1e6 else f"{value:.{digits}g}"


def rank(value: Any) -> tuple[int, float, str]:
    """Return a key that sorts settings: numbers by size, then words, then None."""
    if isinstance(value, int | float):
        return 0, float(value), ""
    return (2, 0.0, "") if value is None else (1, 0.0, str(value))

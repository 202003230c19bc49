"""Which settings differ, which runs differ in their seed alone, and means over seeds."""

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
    """Runs that differ in their seed alone."""

    label: str  # the settings that tell it from the other groups, such as `gamma=0.5`
    runs: list[Run]
    counted: list[Run]  # the finished ones, one a seed: those that means are taken over


@dataclass(slots=True)
class Mean:
    """A mean over n runs; the sample standard deviation is NaN for one run, all is for none."""

    mean: float
    std: float
    n: int

    def __str__(self) -> str:
        if self.n == 0:
            return UNKNOWN
        return short(self.mean) + (f" ± {short(self.std, 2)}" if self.n > 1 else "")


def differing(runs: list[Run]) -> list[str]:
    """The settings that not all runs have with the same value, the seed aside.

    A run whose settings are not known has no say in it.
    """
    known = [run.settings for run in runs if run.settings]
    names = dict.fromkeys(name for settings in known for name in settings if name != "seed")
    return [name for name in names if len({shown(each.get(name)) for each in known}) > 1]


def constants(runs: list[Run]) -> dict[str, Any]:
    """The settings that all runs share, with their values, the seed aside."""
    known = [run.settings for run in runs if run.settings]
    different = {*differing(runs), "seed"}
    shared = known[0] if known else {}
    return {name: value for name, value in shared.items() if name not in different}


def in_order(runs: list[Run]) -> list[Run]:
    """The runs by the settings that differ, numbers by size, then by seed and name."""
    names = [*differing(runs), "seed"]

    def key(run: Run) -> tuple[Any, ...]:
        values = [run.settings.get(name) for name in names]
        return (not run.settings, [_rank(value) for value in values], run.name)

    return sorted(runs, key=key)


def grouped(runs: list[Run]) -> tuple[list[Group], list[str]]:
    """The runs, which are in order, by their settings but for the seed; lines on what is doubtful.

    Two runs of one seed count as one, the first, so that no standard deviation is over repeats.
    """
    names = differing(runs)
    members: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        alone = () if run.settings else (run.name,)  # unknown settings are like no others
        key = (*alone, *(shown(run.settings.get(name)) for name in names))
        members.setdefault(key, []).append(run)
    telling = _telling([group[0] for group in members.values() if group[0].settings], names)
    groups: list[Group] = []
    doubts: list[str] = []
    for group in members.values():
        counted: dict[Any, Run] = {}
        for run in group:
            if run.state != FINISHED:
                continue
            first = counted.setdefault(run.seed, run)
            if first is not run:
                doubts.append(
                    f"{first.name} and {run.name} have the same settings and seed: "
                    f"means are taken over {first.name} alone"
                )
        groups.append(Group(_label(group[0], telling), group, list(counted.values())))
    return groups, doubts


def _telling(firsts: list[Run], names: list[str]) -> list[str]:
    """Names enough to tell the groups apart: such that each one tells two that were alike."""
    chosen: list[str] = []
    parts = min(1, len(firsts))
    for name in names:
        now = {tuple(shown(run.settings.get(each)) for each in (*chosen, name)) for run in firsts}
        if len(now) > parts:
            chosen.append(name)
            parts = len(now)
    return chosen


def _label(run: Run, names: list[str]) -> str:
    if not run.settings or not names:
        return run.name if not run.settings else "all runs"
    short = [name.removesuffix(".name").rpartition(".")[2] for name in names]
    words = [s if short.count(s) == 1 else name for s, name in zip(short, names, strict=True)]
    values = [shown(run.settings.get(name)) for name in names]
    return ", ".join(f"{word}={value}" for word, value in zip(words, values, strict=True))


def columns(runs: list[Run]) -> list[Column]:
    """Every column of scores, in the order in which the evaluations have them."""
    return list(dict.fromkeys(column for run in runs for column in run.scores))


def headings(columns: list[Column]) -> dict[Column, str]:
    """A heading for each column that no other has: `fid[mnist-cnn@6b0b2a93] N=10,000`."""
    short = {c: f"{c.score}[{c.extractor}] N={c.n:,}" for c in columns}
    said = list(short.values())
    return {
        c: text if said.count(text) == 1 else " ".join(filter(None, (text, c.options, c.data)))
        for c, text in short.items()
    }


def curve_names(runs: list[Run]) -> list[str]:
    """The curves that any run has."""
    return [name for name in CURVES if any(run.curves.get(name) for run in runs)]


def mean(values: list[float]) -> Mean:
    """The mean and sample standard deviation of those that are numbers."""
    numbers = [value for value in values if math.isfinite(value)]
    if not numbers:
        return Mean(math.nan, math.nan, 0)
    std = statistics.stdev(numbers) if len(numbers) > 1 else math.nan
    return Mean(statistics.fmean(numbers), std, len(numbers))


def score_mean(group: Group, column: Column) -> Mean:
    """A score over the seeds of a group."""
    return mean([run.scores[column].value for run in group.counted if column in run.scores])


def curve_mean(group: Group, curve: str) -> Mean:
    """A curve's last value over the seeds of a group."""
    return mean([run.last(curve) for run in group.counted])


def floor(runs: list[Run], column: Column) -> float:
    """What real images score against real ones, NaN if no run says."""
    return mean([run.scores[column].floor for run in runs if column in run.scores]).mean


def as_csv(runs: list[Run], groups: list[Group]) -> str:
    """A line a run: its state, seed, the settings that differ, its scores and last measures.

    Numbers are written in full, so that what reads them again has the same ones.
    """
    scored, curves, names = columns(runs), curve_names(runs), differing(runs)
    titles = headings(scored)
    of = {id(run): group for group in groups for run in group.runs}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    head = ["run", "group", "counted", "state", "status", "step", "seed", *names]
    writer.writerow([*head, *(titles[column] for column in scored), *curves])
    for run in runs:
        group = of[id(run)]
        counted = any(run is each for each in group.counted)
        cells = [run.name, group.label, "yes" if counted else "no", run.state, run.status, run.step]
        cells += [run.settings.get(name, "") for name in ("seed", *names)]
        for column in scored:
            cells.append(repr(run.scores[column].value) if column in run.scores else "")
        for curve in curves:
            value = run.last(curve)
            cells.append(repr(value) if math.isfinite(value) else "")
        writer.writerow(cells)
    return text.getvalue()


def shown(value: Any) -> str:
    """A setting's value as it is shown; – for one that a run does not have."""
    if isinstance(value, float):
        return f"{value:.15g}"  # 10 and 10.0 are one value
    return UNKNOWN if value is None else str(value)


def short(value: float, digits: int = 4) -> str:
    """A number in so many digits, but whole rather than with an exponent up to a million."""
    if not math.isfinite(value):
        return UNKNOWN
    return f"{value:.0f}" if 10**digits <= abs(value) < 1e6 else f"{value:.{digits}g}"


def _rank(value: Any) -> tuple[int, float, str]:
    if isinstance(value, int | float):
        return 0, float(value), ""
    return (2, 0.0, "") if value is None else (1, 0.0, str(value))

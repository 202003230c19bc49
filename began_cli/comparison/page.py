"""The page of a comparison: one HTML file that asks for nothing else, on a screen of any width."""

import base64
import itertools
import math
from dataclasses import dataclass
from html import escape

from began_cli.comparison import plots, tables
from began_cli.comparison.records import CURVES, FAILED, FINISHED, NOTHING, STOPPED, Column, Run
from began_cli.comparison.style import SCRIPT, STYLE
from began_cli.comparison.tables import UNKNOWN, Group, Mean

SIGNS = {FINISHED: "✓", STOPPED: "◐", FAILED: "✗", NOTHING: "○"}


@dataclass(slots=True)
class Comparison:
    """Everything that the page shows."""

    title: str
    runs: list[Run]
    groups: list[Group]
    warnings: list[str]
    samples: str  # what the sample grids are of


@dataclass(slots=True)
class Named:
    """A run as the page names it: by its number and by what tells it from the others."""

    run: Run
    number: int
    label: str
    look: plots.Look


def compose(c: Comparison) -> str:
    """The page. The same comparison gives the same bytes."""
    numbers = {id(run): i for i, run in enumerate(c.runs, 1)}
    seeds = list(dict.fromkeys(run.seed for run in c.runs))
    named: list[Named] = []
    for i, group in enumerate(c.groups):
        for run in group.runs:
            of_many = len(seeds) > 1 and run.settings
            label = group.label + (f", seed={run.seed}" if of_many else "")
            look = plots.look(i, len(c.groups), seeds.index(run.seed))
            named.append(Named(run, numbers[id(run)], label, look))
    named.sort(key=lambda each: each.number)
    parts = [
        f"<h1>{escape(c.title)}</h1>",
        _counts(c),
        *(f'<p class="warning" role="note">Warning: {escape(line)}</p>' for line in c.warnings),
        _scores(c),
        _fidelity_diversity(named),
        _samples(c, named),
        _curves(named),
        _runs(c, named),
        _constants(c.runs),
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<link rel="icon" href="data:,">\n'
        f"<title>{escape(c.title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(part for part in parts if part)
        + f"\n</main>\n<script>{SCRIPT}</script>\n</body>\n</html>\n"
    )


def _counts(c: Comparison) -> str:
    states = [run.state for run in c.runs]
    counts = [f"{states.count(state)} {state}" for state in SIGNS if state in states]
    names = tables.differing(c.runs)
    if len({run.seed for run in c.runs if run.settings}) > 1:
        names.append("seed")
    what = f" They differ in {', '.join(names) or 'no setting'}." if len(c.runs) > 1 else ""
    return f"<p>{_runs_of(len(c.runs))}: {', '.join(counts)}.{escape(what)}</p>"


def _runs_of(n: int) -> str:
    return "1 run" if n == 1 else f"{n} runs"


# --- tables ---------------------------------------------------------------------------------------


def _scores(c: Comparison) -> str:
    """A row a group, mean ± sample standard deviation over its seeds."""
    columns, curves = tables.columns(c.runs), tables.curve_names(c.runs)
    if not columns and not curves:
        return ""
    head = _heads([_head("settings"), _head("seeds", True)], columns, curves, [])
    rows = []
    for group in c.groups:
        means = [tables.score_mean(group, column) for column in columns]
        means += [tables.curve_mean(group, curve) for curve in curves]
        seeds = f"{len(group.counted)}"
        if len(group.counted) < len(group.runs):
            seeds += f" of {len(group.runs)}"
        cells = [_cell(group.label, row=True), _cell(seeds, len(group.counted))]
        cells += [_mean_cell(mean, len(group.counted)) for mean in means]
        rows.append(f"<tr>{''.join(cells)}</tr>")
    floors = [tables.floor(c.runs, column) for column in columns]
    foot = ""
    if any(math.isfinite(value) for value in floors):
        cells = [_cell("real against real", row=True), _cell("")]
        cells += [_number(value) for value in floors]
        foot = f"<tfoot><tr>{''.join([*cells, *(_cell('') for _ in curves)])}</tr></tfoot>"
    note = "Mean ± sample standard deviation over the seeds of the finished runs."
    if columns:
        note += " Real against real is about what a perfect generator would score."
    else:
        note += " No scores yet: began evaluate ckpt=RUN makes them."
    return f"<h2>Scores</h2>\n<p>{note}</p>\n" + _table(head, rows, foot, "Scores over seeds")


def _heads(first: list[str], columns: list[Column], curves: list[str], last: list[str]) -> str:
    """Two rows: what a score depends on, over all that share it; the names, to sort by."""
    titles = tables.headings(columns)
    over = [titles[column].removeprefix(column.score) for column in columns]
    over += ["last logged"] * len(curves)
    spans = [(text, len(list(same))) for text, same in itertools.groupby(over)]
    above = [
        f'<th scope="colgroup" colspan="{span}" class="over">{escape(text)}</th>'
        for text, span in spans
    ]
    names = [column.score for column in columns] + [CURVES[curve] for curve in curves]
    below = [*first, *(_head(name, True) for name in names), *last]
    before, after = f'<td colspan="{len(first)}"></td>', "<td></td>" * len(last)
    return f"<tr>{before}{''.join(above)}{after}</tr>\n<tr>{''.join(below)}</tr>"


def _mean_cell(mean: Mean, seeds: int) -> str:
    text = str(mean) + (f" (n={mean.n})" if 0 < mean.n < seeds else "")
    return _cell(text, mean.mean)


def _runs(c: Comparison, named: list[Named]) -> str:
    """A row a run: how far it came, the settings that differ, its own scores and last measures."""
    names = tables.differing(c.runs)
    columns, curves = tables.columns(c.runs), tables.curve_names(c.runs)
    first = [_head("run", True), _head("status"), *(_head(name) for name in (*names, "seed"))]
    head = _heads(first, columns, curves, [_head("folder")])
    rows = []
    for each in named:
        run = each.run
        cells = [_cell(str(each.number), each.number, row=True)]
        status = f"{SIGNS[run.state]} {run.status}"
        kind = run.state.replace(" ", "-")
        cells += [f'<td class="{kind}" data-sort="{escape(run.state)}">{escape(status)}</td>']
        for name in (*names, "seed"):
            value = run.settings.get(name)
            number = value if isinstance(value, int | float) else None
            cells.append(_cell(tables.shown(value), number))
        values = [run.scores[x].value if x in run.scores else math.nan for x in columns]
        cells += [_number(value) for value in (*values, *(run.last(curve) for curve in curves))]
        cells.append(f'<td class="folder">{escape(run.name)}</td>')
        rows.append(f"<tr>{''.join(cells)}</tr>")
    return "<h2>Runs</h2>\n" + _table(head, rows, "", "Every run")


def _constants(runs: list[Run]) -> str:
    shared = tables.constants(runs)
    if not shared:
        return ""
    rows = [
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(tables.shown(value))}</td></tr>'
        for name, value in shared.items()
    ]
    return (
        f"<details>\n<summary>What all runs share: {len(rows)} settings</summary>\n"
        f'<div class="wide"><table class="plain">{"".join(rows)}</table></div>\n</details>'
    )


def _table(head: str, rows: list[str], foot: str, caption: str) -> str:
    body = "\n".join(rows)
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{caption}"><table>\n'
        f"<thead>{head}</thead>\n<tbody>\n{body}\n</tbody>\n{foot}</table></div>"
    )


def _head(name: str, number: bool = False) -> str:
    kind = ' class="number"' if number else ""
    return f'<th scope="col"{kind}><button type="button">{escape(name)}</button></th>'


def _number(value: float) -> str:
    return _cell(tables.short(value), value)


def _cell(text: str, value: float | None = None, row: bool = False) -> str:
    """A cell; `value` is the number to sort by, with every digit."""
    sort = f' data-sort="{value!r}"' if value is not None and math.isfinite(value) else ""
    if row:
        return f'<th scope="row"{sort}>{escape(text)}</th>'
    number = ' class="number"' if sort or text in (UNKNOWN, "") or text[0].isdigit() else ""
    return f"<td{number}{sort}>{escape(text)}</td>"


# --- pictures -------------------------------------------------------------------------------------


def _samples(c: Comparison, named: list[Named]) -> str:
    """The sheets, those of a seed in a row: the settings that differ stand side by side."""
    with_sheet = [each for each in named if each.run.sheet is not None]
    if not with_sheet:
        return ""
    parts = [f"<h2>Samples</h2>\n<p>{escape(c.samples)}</p>"]
    seeds = sorted({each.run.seed for each in with_sheet})
    for seed in seeds:
        if len(seeds) > 1:
            parts.append(f"<h3>seed {escape(str(seed))}</h3>")
        of = {id(run): group for group in c.groups for run in group.runs}
        figures = [
            _sheet(each, of[id(each.run)].label) for each in with_sheet if each.run.seed == seed
        ]
        parts.append(f'<div class="sheets">{"".join(figures)}</div>')
    return "\n".join(parts)


def _sheet(each: Named, label: str) -> str:
    run = each.run
    assert run.sheet is not None
    width, height = run.sheet_size
    data = base64.b64encode(run.sheet).decode()
    at = f"step {run.step:,}"
    return (
        f'<figure><img alt="Samples of run {each.number}: {escape(each.label)}, {at}" '
        f'width="{width}" height="{height}" src="data:image/png;base64,{data}">'
        f"<figcaption><b>{escape(label)}</b><br>run {each.number}, {at}</figcaption></figure>"
    )


def _curves(named: list[Named]) -> str:
    """A plot a measure, a line a run."""
    pictures = []
    for curve in tables.curve_names([each.run for each in named]):
        lines = [(e.look, e.run.curves[curve]) for e in named if e.run.curves.get(curve)]
        alt = f"{CURVES[curve]} over steps, {_runs_of(len(lines))}; the last values are under Runs"
        pictures.append(_plot(plots.curves(CURVES[curve], lines), alt))
    if not pictures:
        return ""
    drawn = [each for each in named if any(each.run.curves.values())]
    joined = "".join(pictures)
    return f'<h2>Curves</h2>\n{_legend(drawn)}\n<div class="plots">{joined}</div>'


def _fidelity_diversity(named: list[Named]) -> str:
    """A plot for each extractor and N, a point a run."""
    runs = [each.run for each in named]
    columns = tables.columns(runs)
    titles = tables.headings(columns)
    pictures, shown = [], []
    for across in (column for column in columns if column.score == "recall"):
        up = Column("precision", across.extractor, across.n, across.options, across.data)
        drawn = [e for e in named if across in e.run.scores and up in e.run.scores]
        if not drawn:
            continue
        points = [
            (e.look, str(e.number), e.run.scores[across].value, e.run.scores[up].value)
            for e in drawn
        ]
        real = tables.floor(runs, across), tables.floor(runs, up)
        by = titles[across].removeprefix("recall")
        alt = f"Precision over recall {by}, a point a run; the numbers are under Runs"
        pictures.append(_plot(plots.fidelity_diversity(by, points, real), alt))
        shown += [each for each in drawn if each not in shown]
    if not pictures:
        return ""
    return (
        "<h2>Fidelity and diversity</h2>\n<p>Up: images like real ones. Right: all kinds of them. "
        f'The star is real against real.</p>\n{_legend(shown)}\n<div class="plots">'
        f"{''.join(pictures)}</div>"
    )


def _plot(svg: str, alt: str) -> str:
    return f'<div class="plot" role="img" aria-label="{escape(alt)}">{svg}</div>'


def _legend(named: list[Named]) -> str:
    entries = []
    for each in named:
        dashes = " ".join(f"{1.5 * part:g}" for part in each.look.dashes)
        dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
        entries.append(
            '<li><svg viewBox="0 0 28 6" width="28" height="6" aria-hidden="true">'
            f'<path d="M0 3H28" stroke="{each.look.colour}" stroke-width="2"{dashed}/></svg>'
            f"{each.number}: {escape(each.label)}</li>"
        )
    return f'<ul class="legend">{"".join(entries)}</ul>'

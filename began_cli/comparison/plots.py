"""Draw the plots of a comparison with matplotlib, as SVG for the inside of an HTML page.

Text and axes take the colour of the text around the plot, light or dark. No font is embedded.
"""

import colorsys
import io
import math
import re
import statistics
from contextlib import AbstractContextManager
from dataclasses import dataclass

from matplotlib import style
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

PALETTE = (
    *("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd"),
    *("#a0695c", "#e377c2", "#7f7f7f", "#bcbd22", "#17becf"),
)
DASHES = ((), (5, 2), (1.5, 1.5), (6, 2, 1.5, 2))  # lengths on and off, in line widths
INK = "#010203"  # replaced by the colour of the page's text; nothing else has this colour
POINTS = 400  # most points of a curve: more than a screen shows
FAR = 100  # times the median: a curve that reaches this far makes the axis logarithmic
SIZE = (4.6, 2.9)  # inches
STYLE = {
    **{name: INK for name in ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color")},
    **{"ytick.color": INK, "font.size": 10, "axes.titlesize": 10, "lines.linewidth": 1.4},
    **{"axes.spines.top": False, "axes.spines.right": False, "axes.grid": True},
    **{"grid.color": INK, "grid.alpha": 0.15, "svg.fonttype": "none"},
    **{"figure.facecolor": "none", "axes.facecolor": "none"},
    **{"axes.formatter.useoffset": False, "figure.constrained_layout.use": True},
}


@dataclass(frozen=True, slots=True)
class Look:
    """The look of a run in a plot: the colour of its group, the dashes of its seed."""

    colour: str
    dashes: tuple[float, ...]


def choose_look(group: int, groups: int, seed: int) -> Look:
    """Return the look of a run, given the index of its group and the index of its seed."""
    if groups <= len(PALETTE):
        return Look(PALETTE[group], DASHES[seed % len(DASHES)])
    rgb = colorsys.hls_to_rgb(group / groups, 0.47, 0.65)
    digits = "".join(f"{round(255 * part):02x}" for part in rgb)
    return Look(f"#{digits}", DASHES[seed % len(DASHES)])


def plot_curves(title: str, lines: list[tuple[Look, list[tuple[float, float]]]]) -> str:
    """Return an SVG of a measure against the step: a line per run, of (step, value).

    NaN leaves a gap. The axis is logarithmic if one diverging run would flatten all the others.
    """
    values = [value for _, points in lines for _, value in points if math.isfinite(value)]
    far = bool(values) and min(values) > 0 and max(values) > FAR * statistics.median(values)
    with _style(title):
        figure = Figure(figsize=SIZE)
        axes = figure.subplots()
        axes.set_yscale("log" if far else "linear")
        for look, points in lines:
            thin = _thin_out(points)
            axes.plot(
                [step for step, _ in thin],
                [value for _, value in thin],
                color=look.colour,
                dashes=look.dashes or (None, None),
                marker="." if len(thin) == 1 else "",
            )
        axes.set_title(f"{title} (logarithmic)" if far else title, loc="left")
        axes.set_xlabel("step")
        axes.ticklabel_format(style="plain", axis="x")
        axes.locator_params(axis="x", nbins=5)
        return _to_svg(figure)


def plot_precision_recall(
    title: str, points: list[tuple[Look, str, float, float]], real: tuple[float, float]
) -> str:
    """Return an SVG of precision against recall: a point per run, (look, label, recall, precision).

    `real` is the recall and precision of real images, marked by a star unless it is NaN.
    """
    near = {"textcoords": "offset points", "fontsize": 9}
    with _style(title):
        figure = Figure(figsize=SIZE)
        axes = figure.subplots()
        for look, label, recall, precision in points:
            axes.plot(recall, precision, "o", color=look.colour, markersize=5)
            axes.annotate(label, (recall, precision), xytext=(4, 4), **near)
        if not any(math.isnan(value) for value in real):
            axes.plot(*real, "*", color=INK, markersize=9)
            axes.annotate("real", real, xytext=(-8, -12), **near)
        axes.set_title(title, loc="left", parse_math=False)  # a name from a file
        axes.set_xlabel("recall (diversity)")
        axes.set_ylabel("precision (fidelity)")
        axes.margins(0.15)
        return _to_svg(figure)


def _style(title: str) -> AbstractContextManager[None]:
    """Return a context to draw in. The title makes ids unique on the page and reproducible."""
    return style.context(["default", STYLE | {"svg.hashsalt": title}])


def _to_svg(figure: Figure) -> str:
    """Return a figure as an element of a page: no prologue, style, size, or unused ids."""
    text = io.StringIO()
    FigureCanvasSVG(figure).print_svg(text, metadata={"Date": None})
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<svg [^>]*?(viewBox=\"[^\"]*\")[^>]*>", r'<svg \1 aria-hidden="true">', svg)
    svg = re.sub(r' id="[A-Za-z0-9.]+_\d+"', "", svg)
    return svg.replace(INK, "currentColor").strip()


def _thin_out(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return at most POINTS points, each the mean of equally many neighbours."""
    k = math.ceil(len(points) / POINTS)
    parts = [points[i : i + k] for i in range(0, len(points), max(1, k))]
    return [
        (sum(step for step, _ in part) / len(part), sum(value for _, value in part) / len(part))
        for part in parts
    ]

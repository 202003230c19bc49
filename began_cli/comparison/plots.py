"""The pictures of a comparison, as SVG to stand inside a page: drawn by matplotlib, no file asked.

Their letters and axes have the colour of the text around them, light or dark.
"""

import colorsys
import io
import math
import re
import statistics
from dataclasses import dataclass

from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

PALETTE = (
    *("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd"),
    *("#a0695c", "#e377c2", "#7f7f7f", "#bcbd22", "#17becf"),
)
DASHES = ((), (5, 2), (1.5, 1.5), (6, 2, 1.5, 2))  # on and off, in widths of the line
INK = "#010203"  # stands for the colour of the page's text; nothing else has it
POINTS = 400  # of a curve: more than a screen shows
FAR = 100  # times the median
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
    """How a run is drawn: the colour of its group, the dashes of its seed."""

    colour: str
    dashes: tuple[float, ...]


def look(group: int, groups: int, seed: int) -> Look:
    """Of a run of the group number `group` of `groups`, and of the seed number `seed`."""
    if groups <= len(PALETTE):
        return Look(PALETTE[group], DASHES[seed % len(DASHES)])
    rgb = colorsys.hls_to_rgb(group / groups, 0.47, 0.65)
    hexes = "".join(f"{round(255 * part):02x}" for part in rgb)
    return Look(f"#{hexes}", DASHES[seed % len(DASHES)])


def curves(title: str, lines: list[tuple[Look, list[tuple[float, float]]]]) -> str:
    """An SVG of a measure over steps, a line a run, (step, value); NaN is a gap.

    Logarithmic if a run that went far away would press the others onto the axis.
    """
    values = [value for _, points in lines for _, value in points if math.isfinite(value)]
    far = bool(values) and min(values) > 0 and max(values) > FAR * statistics.median(values)
    with _Figure(title) as drawing:
        drawing.axes.set_yscale("log" if far else "linear")
        for drawn, points in lines:
            thin = _thinned(points)
            drawing.axes.plot(
                [step for step, _ in thin],
                [value for _, value in thin],
                color=drawn.colour,
                dashes=drawn.dashes or (None, None),
                marker="." if len(thin) == 1 else "",
            )
        drawing.axes.set_title(f"{title} (logarithmic)" if far else title, loc="left")
        drawing.axes.set_xlabel("step")
        drawing.axes.ticklabel_format(style="plain", axis="x")
        drawing.axes.locator_params(axis="x", nbins=5)
    return drawing.svg


def fidelity_diversity(
    title: str, points: list[tuple[Look, str, float, float]], real: tuple[float, float]
) -> str:
    """An SVG of precision over recall: a point a run, (look, label, recall, precision).

    `real` is the recall and precision of real images, marked by a star unless it is NaN.
    """
    with _Figure(title) as drawing:
        for drawn, label, recall, precision in points:
            drawing.axes.plot(recall, precision, "o", color=drawn.colour, markersize=5)
            drawing.axes.annotate(
                label, (recall, precision), xytext=(4, 4), textcoords="offset points", fontsize=9
            )
        if not any(math.isnan(value) for value in real):
            drawing.axes.plot(*real, "*", color=INK, markersize=9)
            drawing.axes.annotate(
                "real", real, xytext=(-8, -12), textcoords="offset points", fontsize=9
            )
        drawing.axes.set_title(title, loc="left")
        drawing.axes.set_xlabel("recall (diversity)")
        drawing.axes.set_ylabel("precision (fidelity)")
        drawing.axes.margins(0.15)
    return drawing.svg


class _Figure:
    """Within its block `axes` is drawn on; after it `svg` is the picture, the same every time."""

    axes: Axes
    svg: str

    def __init__(self, salt: str) -> None:
        # Without a salt of its own two pictures on a page could name different parts alike.
        self._style = style.context(["default", STYLE | {"svg.hashsalt": salt}])

    def __enter__(self) -> "_Figure":
        self._style.__enter__()
        self._figure = Figure(figsize=SIZE)
        self.axes = self._figure.subplots()
        return self

    def __exit__(self, *exception: object) -> None:
        try:
            if exception[0] is None:
                text = io.StringIO()
                FigureCanvasSVG(self._figure).print_svg(text, metadata={"Date": None})
                self.svg = _inline(text.getvalue())
        finally:
            self._style.__exit__(None, None, None)


def _inline(svg: str) -> str:
    """An SVG file as a part of a page: no prologue, links, size or names that nothing refers to."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<svg [^>]*?(viewBox=\"[^\"]*\")[^>]*>", r'<svg \1 aria-hidden="true">', svg)
    svg = re.sub(r' id="[A-Za-z0-9.]+_\d+"', "", svg)
    return svg.replace(INK, "currentColor").strip()


def _thinned(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most POINTS of them, each the mean of as many neighbours."""
    k = math.ceil(len(points) / POINTS)
    parts = [points[i : i + k] for i in range(0, len(points), max(1, k))]
    return [
        (sum(step for step, _ in part) / len(part), sum(value for _, value in part) / len(part))
        for part in parts
    ]

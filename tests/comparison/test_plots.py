"""The plots are what was asked for, stand alone, and have the colours of the page."""

import itertools
import math
import re

from began_cli.comparison import plots

LOOK = plots.Look("#1f77b4", ())


def vertices(svg: str, colour: str = LOOK.colour) -> list[int]:
    """The number of points of each line of that colour."""
    paths = re.findall(r'<path d="([^"]*)"[^>]*stroke: (#\w+)', svg)
    return [len(re.findall("[ML]", d)) for d, stroke in paths if stroke == colour]


def test_no_two_groups_or_seeds_look_alike():
    for groups in (10, 11, 40):
        looks = [plots.choose_look(i, groups, seed) for i in range(groups) for seed in range(4)]
        assert len(set(looks)) == 4 * groups
        assert all(re.fullmatch("#[0-9a-f]{6}", look.colour) for look in looks)


def test_an_axis_is_logarithmic_where_one_curve_goes_far():
    near = [(1.0, 1.0), (2.0, 1.5), (3.0, 2.0)]
    svg = plots.plot_curves("k_t", [(LOOK, near)])
    assert ">k_t</text>" in svg
    for far, title in ((3.0, "k_t"), (9e9, "k_t (logarithmic)"), (-9e9, "k_t")):
        assert f">{title}</text>" in plots.plot_curves("k_t", [(LOOK, near), (LOOK, [(1, far)])])


def test_nan_is_a_gap_and_a_curve_without_values_is_none():
    whole = [(float(step), float(step % 3)) for step in range(6)]
    (parts,) = vertices(plots.plot_curves("k_t", [(LOOK, whole)]))
    assert parts == 6
    broken = [(step, math.nan if step == 2 else value) for step, value in whole]
    svg = plots.plot_curves("k_t", [(LOOK, broken)])
    assert sum(vertices(svg)) == 5
    assert re.findall(r'<path d="(M[^"]*)"[^>]*#1f77b4', svg)[0].count("M") == 2
    assert plots.plot_curves("k_t", [(LOOK, [])])


def test_long_curves_are_thinned_to_means_of_neighbours():
    points = [(float(i), float(i % 2)) for i in range(1000)]
    assert vertices(plots.plot_curves("k_t", [(LOOK, points)]))[0] < plots.POINTS
    thin = plots._thin_out(points)
    assert len(thin) == 334
    assert thin[0] == (1.0, 1 / 3)  # of 0, 1, 0 at steps 0, 1, 2
    assert thin[-1] == (999.0, 1.0)
    assert plots._thin_out(points[:400]) == points[:400]


def test_points_have_their_labels_and_real_images_a_star():
    points = [(LOOK, str(i), i / 10, 0.5) for i in range(1, 4)]
    svg = plots.plot_precision_recall("[a$b$c]", points, (0.9, 0.8))
    assert re.findall(r"<text[^>]*>([123]|real)</text>", svg) == ["1", "2", "3", "real"]
    assert ">[a$b$c]</text>" in svg  # a name, not mathematics
    assert "real" not in plots.plot_precision_recall("x", points, (0.9, math.nan))


def test_a_plot_is_reproducible_and_shares_no_id_with_another():
    line = [(LOOK, [(1.0, 2.0), (2.0, 3.0)])]
    drawn = [plots.plot_curves(title, line) for title in ("k_t", "M_global")]
    assert drawn[0] == plots.plot_curves("k_t", line)
    first, second = (set(re.findall(r' id="([^"]*)"', svg)) for svg in drawn)
    assert first
    assert not first & second
    for svg, word in itertools.product(drawn, ("http://www.w3.org/1999/02", plots.INK, "<style")):
        assert word not in svg
    assert all("currentColor" in svg for svg in drawn)

"""Runs grouped, averaged over seeds, labelled, and written as a table."""

import csv
import io
import statistics
from pathlib import Path

from sweep import CNN, OTHER

from began_cli.comparison import records, tables
from began_cli.comparison.records import Column, Run, Score

FID = Column("fid", CNN, 10, "", "abababab")


def make_run(name: str, state: str = records.FINISHED, fid: float | None = None, **values) -> Run:
    settings = {key.replace("__", "."): value for key, value in values.items()}
    scores = {} if fid is None else {FID: Score(fid, 0.25)}
    return Run(Path(name), name, settings, state=state, scores=scores)


def test_runs_that_differ_in_their_seed_alone_are_one_group():
    runs = [
        make_run("a", loss__gamma=0.5, optimizer__lr=0.1, seed=2, steps=9),
        make_run("b", loss__gamma=0.5, optimizer__lr=0.1, seed=1, steps=9),
        make_run("c", loss__gamma=10.0, optimizer__lr=0.1, seed=1, steps=9),
        make_run("d", loss__gamma=2.0, optimizer__lr=0.1, seed=1, steps=9),
        make_run("e", loss__gamma=2.0, optimizer__lr=0.1, seed=3, steps=9, state=records.STOPPED),
        make_run("f", state=records.NOTHING),
    ]
    assert tables.find_differing(runs) == ["loss.gamma"]
    assert tables.find_shared(runs) == {"optimizer.lr": 0.1, "steps": 9}
    runs = tables.sort_runs(runs)
    assert "".join(each.name for each in runs) == "badecf"  # numbers by size, the unknown last
    groups, warnings = tables.group_runs(runs)
    assert [group.label for group in groups] == ["gamma=0.5", "gamma=2", "gamma=10", "f"]
    assert ["".join(r.name for r in group.runs) for group in groups] == ["ba", "de", "c", "f"]
    assert ["".join(r.name for r in group.counted) for group in groups] == ["ba", "d", "c", ""]
    assert warnings == []


def test_a_label_has_the_settings_that_tell_groups_apart_and_no_more():
    runs = [
        make_run("a", loss__name="began", loss__gamma=0.5, model__width=4, optimizer__lr=0.1),
        make_run("b", loss__name="began", loss__gamma=0.7, model__width=4, optimizer__lr=0.1),
        make_run("c", loss__name="bgan", model__width=8, optimizer__lr=0.2),
    ]
    groups, _ = tables.group_runs(runs)
    labels = [group.label for group in groups]
    assert labels == ["loss=began, gamma=0.5", "loss=began, gamma=0.7", "loss=bgan, gamma=–"]


def test_two_runs_of_one_seed_count_once():
    runs = [make_run("a", fid=1.0, seed=1), make_run("b", fid=9.0, seed=1)]
    (group,), (warning,) = tables.group_runs([*runs, make_run("c", fid=2.0, seed=2)])
    assert warning.startswith("a and b have the same settings and seed")
    assert [run.name for run in group.counted] == ["a", "c"]
    assert str(tables.mean_score(group, FID)) == "1.5 ± 0.71"  # by hand: 0.5 sqrt(2)


def test_means_are_over_the_runs_of_a_group_that_have_the_score():
    runs = [make_run("a", fid=10.125, seed=1), make_run("b", fid=13.5, seed=2)]
    runs += [make_run("c", seed=3), make_run("d", fid=99.0, seed=4, state=records.STOPPED)]
    (group,), _ = tables.group_runs(runs)
    mean = tables.mean_score(group, FID)
    assert (mean.mean, mean.std, mean.n) == (11.8125, statistics.stdev([10.125, 13.5]), 2)
    assert str(mean) == "11.81 ± 2.4"  # by hand: 3.375 / sqrt(2) = 2.386
    assert tables.mean_floor(runs, FID) == 0.25


def test_numbers_are_short():
    values = (1234.56, 123456.7, 2.5e6, 0.00012345, float("nan"))
    texts = [tables.format_number(value) for value in values]
    assert texts == ["1235", "123457", "2.5e+06", "0.0001234", "–"]
    assert str(tables.mean([500.0, 726.27])) == "613.1 ± 160"  # by hand: 226.27 / sqrt(2)
    assert str(tables.mean([float("nan"), 2.0])) == "2"
    assert str(tables.mean([])) == "–"


def test_settings_are_sorted_by_size_then_by_letter():
    values = ["b", None, 10, 2.5, "a", True]
    assert sorted(values, key=tables.rank) == [True, 2.5, 10, "a", "b", None]


def test_options_of_a_score_keep_columns_apart():
    columns = [Column("recall", CNN, 10, f"k={k}", "abab") for k in (3, 5)]
    assert list(tables.name_columns(columns).values()) == [
        f"recall[{CNN}] N=10 k=3 abab",
        f"recall[{CNN}] N=10 k=5 abab",
    ]
    assert tables.name_columns([FID]) == {FID: f"fid[{CNN}] N=10"}


def test_a_protocol_is_named():
    lucic = Column("fid", CNN, 10, "", "abababab", "lucic")
    assert list(tables.name_columns([FID, lucic]).values()) == [
        f"fid[{CNN}] N=10",
        f"fid[{CNN}] N=10 lucic",
    ]


def test_the_table_has_every_digit_and_a_column_for_each_extractor_and_number_of_images():
    columns = [FID, Column("fid", OTHER, 10, "", ""), Column("fid", CNN, 11, "", "")]
    runs = [make_run(name, seed=i, loss__gamma=0.1 * i) for i, name in enumerate("abcd")]
    for run, column, value in zip(runs, columns, (1 / 3, 2.5, 3.5), strict=False):
        run.scores = {column: Score(value, 0.25)}
        run.curves = {"train/k_t": [(2.0, 9.0), (4.0, value / 7)]}
    groups, _ = tables.group_runs(runs)
    rows = list(csv.DictReader(io.StringIO(tables.format_csv(runs, groups))))
    names = [f"fid[{CNN}] N=10", f"fid[{OTHER}] N=10", f"fid[{CNN}] N=11"]
    assert [[row[name] for name in names] for row in rows] == [
        *([repr(1 / 3), "", ""], ["", "2.5", ""], ["", "", "3.5"], ["", "", ""]),
    ]
    last = [row["train/k_t"] for row in rows]
    assert [float(value) for value in last[:3]] == [1 / 3 / 7, 2.5 / 7, 0.5]
    assert last[3] == ""
    assert [float(row["loss.gamma"]) for row in rows] == [0.1 * i for i in range(4)]

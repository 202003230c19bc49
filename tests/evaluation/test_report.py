import json
import math

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from began_cli.errors import UserError
from began_cli.evaluation import report
from began_cli.evaluation.features import Extractor
from began_cli.evaluation.scores import Options, Score

MINE = Extractor("mine", "0123456789abcdef", lambda images: images)


def record(made, seed=0, step=4, **more):
    options = Options(seed=seed)
    entry = report.make_record("step-4.pt", step, MINE, 60, options, {"count": 5}, made, ["note"])
    return entry | more


def score(value, std=None):
    return Score(MINE.label, value, 0.5, 30, std)


def test_a_record_holds_all_that_the_scores_depend_on():
    entry = record({"fid": score(2.0)}, seed=3)
    assert {**entry, "began": None} == {
        "checkpoint": "step-4.pt",
        "checkpoint_sha256": None,
        "step": 4,
        "protocol": None,
        "extractor": "mine@01234567",
        "extractor_sha256": "0123456789abcdef",
        "n": 60,
        "seed": 3,
        "k": 5,
        "kid_subset": 1000,
        "bins": 100,
        "cells": 3,
        "data": {"count": 5},
        "test_data": None,
        "scores": {
            "fid": {
                "extractor": "mine@01234567",
                "value": 2.0,
                "floor": 0.5,
                "floor_n": 30,
                "std": None,
            }
        },
        "notes": ["note"],
        "began": None,
    }


def test_an_entry_of_the_same_evaluation_is_updated_and_others_stay(tmp_path):
    path = tmp_path / "evaluation.json"
    assert report.read(path) == []
    report.add(path, record({"fid": score(2.0), "kid": score(0.1)}))
    report.add(path, record({"fid": score(7.0)}, seed=1))
    report.add(path, record({"fid": score(3.0)}))
    old, new = report.read(path)
    assert (old["seed"], old["scores"]["fid"]["value"]) == (1, 7.0)
    assert {name: each["value"] for name, each in new["scores"].items()} == {"fid": 3.0, "kid": 0.1}


def test_scores_of_another_file_of_the_same_name_do_not_stay(tmp_path):
    path = tmp_path / "evaluation.json"
    report.add(path, record({"fid": score(2.0), "kid": score(0.1)}, checkpoint_sha256="a"))
    report.add(path, record({"fid": score(3.0)}, checkpoint_sha256="b"))
    (entry,) = report.read(path)
    assert list(entry["scores"]) == ["fid"]
    report.add(path, record({"is": score(3.0)}))  # during training: the file is not written yet
    (entry,) = report.read(path)
    assert list(entry["scores"]) == ["fid", "is"]


def test_an_evaluation_is_finished_if_all_that_it_depends_on_is_the_same(tmp_path):
    path = tmp_path / "evaluation.json"
    assert report.find_finished(path, record({}), ["fid"]) is None
    whole = {"checkpoint_sha256": "a", "test_data": {"sha256": "t"}}
    report.add(path, record({"fid": score(2.0), "c_t": score(math.nan)}, **whole))
    found = report.find_finished(path, record({}, **whole), ["fid", "c_t"])
    assert found is not None
    assert report.read_score(found["scores"]["fid"]) == score(2.0)
    assert math.isnan(report.read_score(found["scores"]["c_t"]).value)
    assert report.find_finished(path, record({}, **whole | {"test_data": None}), ["fid"]) == found
    for other in ({"checkpoint_sha256": "b"}, {"test_data": {"sha256": "u"}}, {"protocol": "50k"}):
        assert report.find_finished(path, record({}, **whole | other), ["fid"]) is None
    assert report.find_finished(path, record({}, seed=1, **whole), ["fid"]) is None
    assert report.find_finished(path, record({}, **whole), ["fid", "kid"]) is None


def test_scores_of_a_step(tmp_path):
    path = tmp_path / "evaluation.json"
    report.add(path, record({"fid": score(2.0)}))
    report.add(path, record({"fid": score(9.0)}, step=8, checkpoint="step-8.pt"))
    assert report.find_scores(path, 6) == {}
    ((name, found),) = report.find_scores(path, 4).items()
    assert name == "fid[mine@01234567] N=60 seed=0"
    assert found["value"] == 2.0
    report.add(path, record({"fid": score(5.0)}, protocol="lucic"))
    assert list(report.find_scores(path, 4)) == [name, f"{name} protocol=lucic"]


def test_numbers_that_json_does_not_have_are_null(tmp_path):
    path = tmp_path / "evaluation.json"
    report.add(path, record({"fid": score(math.nan), "kid": score(math.inf)}))
    assert "NaN" not in path.read_text()
    (entry,) = json.loads(path.read_text())["evaluations"]
    assert [each["value"] for each in entry["scores"].values()] == [None, None]


@pytest.mark.parametrize("text", ["{", "[]", '{"format": 2, "evaluations": []}'])
def test_a_damaged_file_is_not_overwritten(tmp_path, text):
    path = tmp_path / "evaluation.json"
    path.write_text(text)
    with pytest.raises(UserError, match="move it away"):
        report.add(path, record({"fid": score(2.0)}))
    assert path.read_text() == text


def test_the_tags_name_the_extractor(tmp_path):
    assert report.score_scalars("fid", score(2.0)) == {
        "evaluation/fid/mine-01234567": 2.0,
        "evaluation/fid/mine-01234567/floor": 0.5,
    }
    report.write_scalars(tmp_path, {"fid": score(2.0)}, 4)
    board = EventAccumulator(str(tmp_path)).Reload()
    for tag, value in (("fid/mine-01234567", 2.0), ("fid/mine-01234567/floor", 0.5)):
        (event,) = board.Scalars(f"evaluation/{tag}")
        assert (event.step, event.value) == (4, value)


def test_the_table(capfd):
    made = {"fid": score(2.0), "kid": score(0.12345, 0.02)}
    report.print_table(report.open_console(), made, 30, 7)
    _, fid, kid = [line.split() for line in capfd.readouterr().out.splitlines()]
    assert fid == ["fid[mine@01234567]", "2", "0.5", "30", "7", "lower"]
    assert kid == ["kid[mine@01234567]", "0.1235", "±", "0.02", "0.5", "30", "7", "lower"]
    report.print_table(report.open_console(), made, 60, 7)
    assert "0.5 (N 30)" in capfd.readouterr().out
    made = {"authpct": Score(MINE.label, 41.0, math.nan, 0)}
    report.print_table(report.open_console(), made, 60, 7)
    row = capfd.readouterr().out.splitlines()[1].split()
    assert row[1:] == ["41", "unknown", "60", "7", "as", "the", "floor"]
    assert report.score_scalars("authpct", made["authpct"]) == {
        "evaluation/authpct/mine-01234567": 41.0
    }


def test_the_classes_are_shares(capfd):
    report.print_classes(report.open_console(), [1, 3], [50, 50])
    lines = [line.split() for line in capfd.readouterr().out.splitlines()]
    assert lines[1][-2:] == ["25.0", "75.0"]
    assert lines[2][-2:] == ["50.0", "50.0"]

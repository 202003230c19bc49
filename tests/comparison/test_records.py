"""Reading metrics.jsonl and evaluation.json, complete or damaged."""

import json
import math
from pathlib import Path

import pytest
from sweep import CNN, write_scores

from began_cli.comparison import records
from began_cli.comparison.records import Column, Run


def test_logs_that_are_cut_short_or_of_another_program_are_skipped(tmp_path):
    log = {"step": 2, "images": 8, "train/k_t": 0.5}
    lines = [b"\xff", b"[]", b"{}", b"7", b"[" * 99999, json.dumps(log).encode(), b'{"step": 4, "i']
    (tmp_path / "metrics.jsonl").write_bytes(b"\n".join(lines))
    assert records.read_logs(tmp_path) == [log]
    assert records.read_logs(tmp_path / "nowhere") == []


def test_curves_have_nan_for_null_and_lack_what_is_not_logged():
    logs = [{"step": 2, "train/k_t": 0.5}, {"step": 4, "train/k_t": None, "train/lr_d": 1.0}]
    curves = records.collect_curves(logs)
    assert list(curves) == ["train/k_t"]
    assert curves["train/k_t"][0] == (2.0, 0.5)
    assert curves["train/k_t"][1][0] == 4.0
    assert math.isnan(curves["train/k_t"][1][1])
    run = Run(Path("a"), "a", {}, curves={"train/loss_real": [(1.0, 2.0), (2.0, 3.0)]})
    assert run.last("train/loss_real") == 3.0
    assert math.isnan(run.last("train/convergence"))


def test_a_score_is_read_with_all_that_it_depends_on(tmp_path):
    write_scores(tmp_path, fid=1.5, kid=2.5, recall=0.5, ndb=0.1)
    scores, warnings = records.read_scores(tmp_path, 4)
    assert warnings == []
    assert {column: score.value for column, score in scores.items()} == {
        Column("fid", CNN, 10, "", "abababab"): 1.5,
        Column("kid", CNN, 10, "kid_subset=4", "abababab"): 2.5,
        Column("recall", CNN, 10, "k=5", "abababab"): 0.5,
        Column("ndb", CNN, 10, "bins=3", "abababab"): 0.1,
    }
    assert {score.floor for score in scores.values()} == {0.25}


def test_a_protocol_has_columns_of_its_own(tmp_path):
    plain = write_scores(tmp_path, fid=1.0, c_t=2.0) | {"cells": 3}
    named = write_scores(tmp_path, fid=5.0) | {"protocol": "lucic"}
    (tmp_path / "evaluation.json").write_text(json.dumps({"evaluations": [plain, named]}))
    scores, _ = records.read_scores(tmp_path, 4)
    assert {(column.score, column.protocol): score.value for column, score in scores.items()} == {
        ("fid", ""): 1.0,
        ("c_t", ""): 2.0,
        ("fid", "lucic"): 5.0,
    }


def test_the_lowest_seed_of_an_evaluation_counts(tmp_path):
    evaluations = [write_scores(tmp_path, fid=float(seed)) | {"seed": seed} for seed in (7, 3, 5)]
    (tmp_path / "evaluation.json").write_text(json.dumps({"evaluations": evaluations}))
    scores, warnings = records.read_scores(tmp_path, 4)
    assert [each.value for each in scores.values()] == [3.0]
    assert warnings == []


def test_scores_of_an_earlier_checkpoint_are_left_out_with_a_warning(tmp_path):
    write_scores(tmp_path, step=2, fid=1.0)
    scores, (warning,) = records.read_scores(tmp_path, 4)
    assert scores == {}
    assert "ends at step 2 and the newest checkpoint is of step 4" in warning
    write_scores(tmp_path, step=4, fid=3.0)
    scores, warnings = records.read_scores(tmp_path, 4)
    assert [each.value for each in scores.values()] == [3.0]
    assert warnings == []


@pytest.mark.parametrize("text", ["[1, 2", '{"evaluations": 3}', "[]", "[" * 99999])
def test_an_evaluation_that_cannot_be_read_is_a_warning(tmp_path, text):
    (tmp_path / "evaluation.json").write_text(text)
    scores, (warning,) = records.read_scores(tmp_path, 4)
    assert scores == {}
    assert "cannot be read: its scores are left out" in warning


STEPS = {"steps": 9000, "watchdog": "stop"}
ALARM = {"step": 6, "train/k_t": 0.5, "watchdog": "samples <collapsed>"}
BROKEN = {"step": 6, "train/loss_real": None}


@pytest.mark.parametrize(
    ("step", "settings", "last", "state"),
    [
        (9000, STEPS, ALARM, ("finished", "finished at step 9,000")),
        (4, STEPS, {"step": 4}, ("stopped", "stopped at step 4 of 9,000")),
        (4, {}, {"step": 4}, ("stopped", "stopped at step 4")),
        (4, STEPS, BROKEN, ("failed", "failed at step 4 of 9,000: a value was not finite")),
        (None, STEPS, BROKEN, ("failed", "failed without a checkpoint: a value was not finite")),
        (4, STEPS, ALARM, ("failed", "failed at step 4 of 9,000: step 6: samples <collapsed>")),
        (4, STEPS | {"watchdog": "warn"}, ALARM, ("stopped", "stopped at step 4 of 9,000")),
        (None, STEPS, {"step": 4}, ("no checkpoint", "no checkpoint")),
    ],
)
def test_the_state_of_a_run(step, settings, last, state):
    first = {"step": 2, "train/loss_real": 1.0}
    assert records.describe_state(step, settings, [first, last]) == state


def test_a_run_without_logs_was_stopped_or_never_began():
    assert records.describe_state(4, STEPS, [])[0] == "stopped"
    assert records.describe_state(None, {}, [])[0] == "no checkpoint"

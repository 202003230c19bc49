"""Whole runs of `began train`."""

import json

import numpy as np
import pytest
import torch
from conftest import TINY
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from began_cli.generators import checkpoint
from began_cli.settings.fields import GROUPS


def lines(run) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("model", GROUPS["model"])
@pytest.mark.parametrize("loss", GROUPS["loss"])
def test_every_loss_on_every_model(began, digits, tmp_path, loss, model):
    run = tmp_path / "run"
    line = [f"loss={loss}", f"model={model}", f"dataset.root={digits}", f"hydra.run.dir={run}"]
    code, out, err = began("train", *line, *TINY, "steps=2", "log_every=1")
    assert code == 0, err
    assert "done: 2 steps" in out
    assert all(value == value for row in lines(run) for value in row.values())


def test_a_run_folder(began, digits, tmp_path):
    run = tmp_path / "run"
    line = [f"dataset.root={digits}", f"hydra.run.dir={run}", "loss=began", *TINY]
    line += ["steps=5", "log_every=2", "sample_every=2", "checkpoint_every=2"]
    assert began("train", *line)[0] == 0

    names = {path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file()}
    assert names >= {"config.yaml", "metrics.jsonl", "train.log", "samples/reals.png"}
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == [
        "step-00000004.pt",
        "step-00000005.pt",
    ]
    assert Image.open(run / "samples" / "step-00000005.png").size == (8 * 18 + 2, 8 * 18 + 2)

    rows = lines(run)
    assert [(row["step"], row["images"]) for row in rows] == [(2, 8), (4, 16), (5, 20)]
    scalars = {"loss_d", "loss_g", "loss_real", "loss_fake"}
    scalars |= {"k_t", "margin", "balance", "convergence"}
    scalars |= {"lr_g", "lr_d", "diversity", "images_per_second"}
    assert set(rows[0]) == {"step", "images", *(f"train/{name}" for name in scalars)}
    assert list(rows[0])[:2] == ["step", "images"]

    board = EventAccumulator(str(run)).Reload()
    assert {f"train/{name}" for name in scalars} <= set(board.Tags()["scalars"])
    assert set(board.Tags()["images"]) == {
        "samples",
        "interpolation",
        "reconstructions/real",
        "reconstructions/fake",
    }
    walk = board.Images("interpolation")[-1]
    assert (walk.width, walk.height) == (8 * 18 + 2, 4 * 18 + 2)  # 4 walks of 8 images
    assert set(board.Tags()["histograms"]) == {"loss_real", "loss_fake"}
    assert [event.value for event in board.Scalars("train/loss_real")] == pytest.approx(
        [row["train/loss_real"] for row in rows]
    )
    log = (run / "train.log").read_text()
    saved = checkpoint.read(str(run))[1]
    assert saved["data"]["count"] == 200
    assert saved["data"]["sha256"] in log
    assert str(digits) in log


def test_plateau_halves_says_so_and_resumes(began, digits, tmp_path):
    common = [
        "loss=began_paper",
        f"dataset.root={digits}",
        *TINY,
        "log_every=5",
        "optimizer.lr=0.02",
    ]
    common += ["schedule.window=3", "schedule.cooldown=0"]
    code, out, _ = began("train", *common, f"hydra.run.dir={tmp_path}/a", "steps=40")
    assert code == 0
    assert "learning rate 0.01" in out
    assert began("train", *common, f"hydra.run.dir={tmp_path}/b", "steps=17")[0] == 0
    assert began("train", f"resume={tmp_path}/b", "steps=40")[0] == 0
    whole, parts = (checkpoint.read(f"{tmp_path}/{name}")[1] for name in "ab")
    assert whole["schedule"] == parts["schedule"]
    for key, value in whole["generator"].items():
        assert torch.equal(parts["generator"][key], value)
    for row, other in zip(lines(tmp_path / "a"), lines(tmp_path / "b"), strict=True):
        assert row["train/lr_g"] == other["train/lr_g"]
    assert lines(tmp_path / "a")[-1]["train/lr_g"] < 0.02


def test_points_of_the_plane(began, tmp_path):
    line = ["dataset=ring", f"hydra.run.dir={tmp_path}/r", "steps=3", "model.width=8"]
    for loss in ("gan", "began"):
        line[1] = f"hydra.run.dir={tmp_path}/{loss}"
        code, out, err = began("train", f"loss={loss}", *line)
        assert code == 0, err
        assert "8 Gaussians" in out
        picture = Image.open(tmp_path / loss / "samples" / "step-00000003.png")
        assert picture.size == (512, 512)
        assert (np.asarray(picture) == (200, 30, 30)).all(axis=-1).any()  # a red point
    for command in ("sample", "interpolate"):
        code, _, err = began(command, f"ckpt={tmp_path}/gan", f"out={tmp_path}/o")
        assert code == 2
        assert "points of the plane" in err
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precisions_run_the_same_code(began, digits, tmp_path, precision):
    line = [
        f"dataset.root={digits}",
        f"hydra.run.dir={tmp_path}/r",
        f"precision={precision}",
        *TINY,
    ]
    code, out, err = began("train", "loss=began", "steps=2", "log_every=1", *line)
    assert code == 0, err
    assert precision in out
    saved = checkpoint.read(f"{tmp_path}/r")[1]
    floats = [w for w in saved["generator"].values() if w.is_floating_point()]
    assert all(w.dtype == torch.float32 for w in floats)


def test_the_score_at_the_end_is_that_of_began_evaluate(began, digits, tmp_path):
    line = [f"dataset.root={digits}", "steps=2", "evaluate_every=9", "evaluation.n=60", *TINY]
    assert began("train", *line, "dataset.image_size=32", f"hydra.run.dir={tmp_path}/a")[0] == 0
    file = tmp_path / "a" / "evaluation.json"
    in_loop = json.loads(file.read_text())["evaluations"][0]["scores"]["fid"]
    file.unlink()
    assert began("evaluate", f"ckpt={tmp_path}/a", "n=60", "scores=[fid]", "bins=2")[0] == 0
    alone = json.loads(file.read_text())["evaluations"][0]["scores"]["fid"]
    assert in_loop["value"] == pytest.approx(alone["value"], rel=1e-9)
    assert in_loop["floor"] == pytest.approx(alone["floor"], rel=1e-9)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("evaluation.score=foo",), "evaluation.score=foo: wants one of"),
        (("evaluation.n=1",), "evaluation.n=1"),
        (("evaluation.extractor=nothing",), "nothing"),
        (("dataset=ring",), "points, not images"),
        (("evaluation.extractor=pixels", "evaluation.score=is"), "no classes"),
    ],
)
def test_scores_that_cannot_be_had_are_told_before_anything_is_written(
    began, digits, tmp_path, more, words
):
    line = [] if "dataset=ring" in more else [f"dataset.root={digits}", *TINY]
    code, _, err = began(
        "train", *line, "evaluate_every=1", "steps=1", f"hydra.run.dir={tmp_path}/r", *more
    )
    assert (code, err.count("\n")) == (2, 1)
    assert words in err
    assert not (tmp_path / "r").exists()

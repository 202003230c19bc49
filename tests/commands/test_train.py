"""Whole runs of `began train`."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from conftest import TINY, settings
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
    scalars = {"loss_d", "loss_g", "loss_real", "loss_fake", "k_t", "balance", "convergence"}
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


def test_logged_losses_are_means_over_the_steps(began, digits, tmp_path):
    for name, every in (("one", 1), ("three", 3)):
        line = [f"dataset.root={digits}", f"hydra.run.dir={tmp_path / name}", f"log_every={every}"]
        assert began("train", "loss=began", *line, "steps=3", *TINY)[0] == 0
    each, (mean,) = lines(tmp_path / "one"), lines(tmp_path / "three")
    for name in ("train/loss_real", "train/convergence"):
        assert mean[name] == pytest.approx(sum(row[name] for row in each) / 3)
    assert mean["train/k_t"] == pytest.approx(each[-1]["train/k_t"])  # a state, not a mean


def test_a_run_folder_is_not_overwritten(began, tiny_run):
    before = {path: path.read_bytes() for path in tiny_run.rglob("*") if path.is_file()}
    code, _, err = began("train", "steps=1", f"hydra.run.dir={tiny_run}")
    assert code == 2
    assert f"resume={tiny_run}" in err
    assert before == {path: path.read_bytes() for path in tiny_run.rglob("*") if path.is_file()}


@pytest.mark.parametrize("model", ["began", pytest.param("dcgan", marks=pytest.mark.slow)])
@pytest.mark.parametrize("loss", GROUPS["loss"])
def test_a_resumed_run_is_the_same_run(began, digits, tmp_path, loss, model):
    """Mistake: RNG, k_t, the rates and the data's position not restored; bit for bit, logs too.

    In its second half BEGAN's rates halve and the others' decay; every batch passes in two parts.
    """
    common = [f"loss={loss}", f"model={model}", f"dataset.root={digits}", "log_every=3", *TINY]
    common += ["accumulate=2", "dataset.flip=true"]
    if loss == "began":
        common += ["loss.lambda_k=0.1", "schedule=plateau", "schedule.window=2"]
        common += ["schedule.threshold=0.99", "schedule.cooldown=0"]
    else:
        common += ["schedule=linear", "schedule.start=5", "schedule.end=9"]
    assert began("train", *common, f"hydra.run.dir={tmp_path}/a", "steps=8")[0] == 0
    assert began("train", *common, f"hydra.run.dir={tmp_path}/b", "steps=4")[0] == 0
    code, out, err = began("train", f"resume={tmp_path}/b", "steps=8")
    assert code == 0, err
    assert "going on from step 4" in out

    whole, parts = (checkpoint.read(f"{tmp_path}/{name}")[1] for name in "ab")
    for name in ("generator", "ema", "discriminator", "loss"):
        for key, value in whole[name].items():
            assert torch.equal(parts[name][key], value), key
    for name in ("optimizer_g", "optimizer_d"):
        for i, slots in whole[name]["state"].items():
            for key, value in slots.items():
                assert torch.equal(parts[name]["state"][i][key], value)
        rates = settings("train", *common).optimizer
        first_rate = rates.lr_g if name == "optimizer_g" else rates.lr_d
        assert whole[name]["param_groups"] == parts[name]["param_groups"]
        assert whole[name]["param_groups"][0]["lr"] < first_rate
    assert torch.equal(whole["latents"]["generator"], parts["latents"]["generator"])
    assert torch.equal(whole["rng"]["torch"], parts["rng"]["torch"])
    assert whole["batches"] == parts["batches"]
    rows = [
        [{k: v for k, v in row.items() if "second" not in k} for row in lines(tmp_path / name)]
        for name in "ab"
    ]
    assert rows[0] == rows[1]
    names = [(tmp_path / name / "samples" / "step-00000008.png").read_bytes() for name in "ab"]
    assert names[0] == names[1]


def test_resuming_as_another_run_is_refused_field_by_field(began, tiny_run):
    code, _, err = began("train", f"resume={tiny_run}", "optimizer.lr_g=0.5", "seed=9", "steps=6")
    assert code == 2
    assert "optimizer.lr_g was 0.002, not 0.5" in err
    assert "seed was 0, not 9" in err
    assert "steps" not in err
    code, _, err = began("train", f"resume={tiny_run}", "loss=began")
    assert code == 2
    assert "loss.name was bgan, not began" in err


def test_resuming_on_other_images_is_refused(began, tiny_run, tmp_path):
    code, _, err = began("train", f"resume={tiny_run}", "dataset.root=elsewhere", "steps=6")
    assert code == 2
    assert "200" in err
    assert "10000" in err


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_saves_and_leaves_and_the_run_goes_on(digits, tmp_path, name):
    run = tmp_path / "run"
    command = [sys.executable, "-m", "began_cli", "train", "steps=1000000", "log_every=5", *TINY]
    command += [f"dataset.root={digits}", f"hydra.run.dir={run}"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    for _ in range(600):
        if (run / "metrics.jsonl").exists() and lines(run):
            break
        time.sleep(0.1)
    process.send_signal(getattr(signal, name))
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 75
    assert f"stopped by {name}" in out
    step = checkpoint.read(str(run))[1]["step"]
    assert f"at step {step:,}" in out
    assert not list(run.rglob("*.tmp"))

    command[5] = f"steps={step + 3}"
    again = subprocess.run([*command, f"resume={run}"], capture_output=True, text=True, check=True)
    assert f"going on from step {step:,}" in again.stdout
    assert [row["step"] for row in lines(run)] == sorted({row["step"] for row in lines(run)})
    assert os.listdir(run).count("checkpoints") == 1


def test_margin_auto_is_settled_printed_and_stored(began, digits, tmp_path):
    line = [f"dataset.root={digits}", f"hydra.run.dir={tmp_path}/r", "loss=ebgan", *TINY]
    code, out, err = began("train", *line, "loss.margin=auto", "loss.margin_steps=20", "steps=2")
    assert code == 0, err
    saved = checkpoint.read(f"{tmp_path}/r")[1]
    margin = saved["config"]["loss"]["margin"]
    assert f"loss.margin={margin:g}" in out
    assert 1 < margin < 32  # random 16x16 images against a grey: near 0.58 * 16
    assert f"margin: {margin}" in (tmp_path / "r" / "config.yaml").read_text()

    line[1] = f"hydra.run.dir={tmp_path}/same"
    assert began("train", *line, f"loss.margin={margin}", "steps=2")[0] == 0
    same = checkpoint.read(f"{tmp_path}/same")[1]
    assert all(torch.equal(same["ema"][key], value) for key, value in saved["ema"].items())


def test_plateau_halves_says_so_and_resumes(began, digits, tmp_path):
    common = ["loss=began", f"dataset.root={digits}", *TINY, "log_every=5", "optimizer.lr=0.02"]
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
        red = [pixel for pixel in picture.getdata() if pixel == (200, 30, 30)]
        assert red
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
    assert all(w.dtype == torch.float32 for w in saved["generator"].values())


def test_scores_in_the_loop_keep_the_best_and_touch_nothing(began, digits, tmp_path):
    """The run is bit for bit that without scores; the best checkpoint is that of the best score."""
    line = [f"dataset.root={digits}", "steps=6", "log_every=3", "checkpoint_every=3", *TINY]
    line += ["loss=wgan_gp", "dataset.image_size=32"]
    scored = ["evaluate_every=2", "evaluation.n=50", "evaluation.score=precision"]
    assert began("train", *line, f"hydra.run.dir={tmp_path}/a")[0] == 0
    code, out, err = began("train", *line, *scored, f"hydra.run.dir={tmp_path}/b")
    assert code == 0, err
    assert out.count("precision[mnist-cnn@") == 3
    plain, watched = (checkpoint.read(f"{tmp_path}/{name}")[1] for name in "ab")
    for name in ("generator", "ema", "discriminator"):
        assert all(torch.equal(plain[name][key], value) for key, value in watched[name].items())
    assert torch.equal(plain["rng"]["torch"], watched["rng"]["torch"])

    told = json.loads((tmp_path / "b" / "evaluation.json").read_text())["evaluations"]
    values = {entry["step"]: entry["scores"]["precision"]["value"] for entry in told}
    assert sorted(values) == [2, 4, 6]
    best = max(values, key=lambda step: (values[step], -step))  # the first of equals
    path, state, _ = checkpoint.read(f"{tmp_path}/b/best")
    assert (path.name, state["step"]) == (f"best-step-{best:08d}.pt", best)
    assert watched["best"]["value"] == values[best]
    board = EventAccumulator(str(tmp_path / "b")).Reload()
    (tag,) = (
        t
        for t in board.Tags()["scalars"]
        if t.startswith("evaluation/precision/mnist-cnn-") and not t.endswith("floor")
    )
    assert [e.value for e in board.Scalars(tag)] == pytest.approx([values[s] for s in (2, 4, 6)])

    code, out, _ = began("sample", f"ckpt={tmp_path}/b/best", "n=1")
    assert code == 0
    assert f"best-step-{best:08d}.pt" in out
    code, _, err = began("sample", f"ckpt={tmp_path}/a/best", "n=1")
    assert code == 2
    assert "evaluate_every" in err


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

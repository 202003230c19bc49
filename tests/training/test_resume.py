"""A resumed run is the same run, whatever happened to its files."""

import json
import random

import numpy as np
import pytest
import torch
from conftest import TINY, settings

from began_cli.errors import UserError
from began_cli.generators import checkpoint
from began_cli.settings.fields import GROUPS
from began_cli.settings.parse import to_plain
from began_cli.training import resume
from began_cli.training.setup import claim_folder


def line(digits, run, *more: str) -> list[str]:
    return ["train", f"dataset.root={digits}", f"hydra.run.dir={run}", *TINY, *more]


def same_weights(a, b) -> bool:
    return all(
        torch.equal(a[name][key], b[name][key])
        for name in ("generator", "ema", "discriminator")
        for key in a[name]
    )


def lines(run) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


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
    if loss == "began_paper":
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
    code, _, err = began("train", f"resume={tiny_run}", "loss=began_paper")
    assert code == 2
    assert "loss.name was bgan, not began" in err


def test_resuming_on_other_images_is_refused(began, tiny_run, tmp_path):
    code, _, err = began("train", f"resume={tiny_run}", "dataset.root=elsewhere", "steps=6")
    assert code == 2
    assert "200" in err
    assert "10000" in err


def test_damaged_newest_is_reported_and_the_one_before_used(began, digits, tmp_path):
    run = tmp_path / "run"
    assert began(*line(digits, run, "steps=4", "checkpoint_every=2"))[0] == 0
    newest = run / "checkpoints" / "step-00000004.pt"
    newest.write_bytes(newest.read_bytes()[:1000])
    code, out, err = began("sample", f"ckpt={run}", "n=1")
    assert code == 0
    assert "step-00000004.pt" in err
    assert "step-00000002.pt" in out
    code, out, err = began("train", f"resume={run}", "steps=4")
    assert code == 0, err
    assert "going on from step 2" in out

    whole = tmp_path / "whole"
    assert began(*line(digits, whole, "steps=4"))[0] == 0
    assert same_weights(checkpoint.read(str(run))[1], checkpoint.read(str(whole))[1])


def test_all_damaged(began, tiny_run):
    for path in checkpoint.find_all(tiny_run):
        path.write_bytes(b"no")
    code, _, err = began("train", f"resume={tiny_run}")
    assert code == 2
    assert "not a checkpoint" in err


@pytest.mark.parametrize(
    "change",
    [
        {"ema": None},
        {"config": None},
        {"config": {}},
        {"format": torch.zeros(2)},
        {"rng": 3},
        {"monitor": {}},
        {"generator": {}},
    ],
)
def test_contents_that_do_not_fit(began, tiny_run, change):
    path = checkpoint.find_all(tiny_run)[-1]
    torch.save(checkpoint.load(path) | change, path)
    code, _, err = began("train", f"resume={tiny_run}", "steps=5")
    assert code == 2
    assert err.count("\n") == 1
    if {"ema", "config", "format"} & set(change):
        code, _, err = began("sample", f"ckpt={path}")
        assert code == 2
        assert path.name in err


def test_a_finished_run_is_left_as_it_is(began, digits, tmp_path):
    run = tmp_path / "run"
    assert began(*line(digits, run, "steps=7", "log_every=5"))[0] == 0
    before = (run / "metrics.jsonl").read_text()
    code, out, err = began("train", f"resume={run}")
    assert code == 0, err
    assert "done already, at step 7" in out

    assert (run / "metrics.jsonl").read_text() == before
    code, _, err = began("train", f"resume={run}", "steps=3")
    assert code == 2
    assert "is at step 7 already" in err


def test_a_loose_checkpoint_goes_on_in_a_folder_of_its_own(began, tiny_run, tmp_path):
    loose = tmp_path / "deep" / "loose.pt"
    loose.parent.mkdir()
    loose.write_bytes(checkpoint.find_all(tiny_run)[-1].read_bytes())
    code, _out, err = began("train", f"resume={loose}", "steps=6", "out=new")
    assert code == 0, err
    assert checkpoint.read(str(tmp_path / "new"))[1]["step"] == 6
    assert [path.name for path in loose.parent.iterdir()] == ["loose.pt"]


def test_going_on_from_an_older_checkpoint_sets_the_newer_aside(began, digits, tmp_path):
    run = tmp_path / "run"
    assert began(*line(digits, run, "steps=6", "checkpoint_every=3"))[0] == 0
    older = run / "checkpoints" / "step-00000003.pt"
    code, out, _ = began("train", f"resume={older}", "steps=5", "checkpoint_every=1")
    assert code == 0
    assert "set aside" in out
    aside = run / "checkpoints" / "step-00000006.superseded"
    assert aside.exists()
    assert began("train", f"resume={run}", "steps=6")[0] == 0
    assert not aside.exists()  # the run has come as far again


def test_a_refused_resume_sets_nothing_aside(began, digits, tmp_path):
    run = tmp_path / "run"
    assert began(*line(digits, run, "steps=6", "checkpoint_every=3"))[0] == 0
    older = run / "checkpoints" / "step-00000003.pt"
    names = sorted(path.name for path in older.parent.iterdir())
    assert began("train", f"resume={older}", "steps=6", "dataset.root=elsewhere")[0] == 2
    with claim_folder(run):
        assert began("train", f"resume={older}", "steps=6")[0] == 2
    assert sorted(path.name for path in older.parent.iterdir()) == names


def test_a_run_goes_on_from_another_folder(began, tiny_run, tmp_path, monkeypatch):
    images = tmp_path / "digits"
    run = tmp_path / "relative"
    assert began(*line(images.name, run, "steps=2"))[0] == 0
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    code, _, err = began("train", f"resume={run}", "steps=3")
    assert code == 0, err


def test_resume_auto(began, digits, tmp_path):
    """The run folder's own, else the newest of the same settings under outputs/, else none."""
    mine = line(digits, "outputs/x/1", "loss=gan", "resume=auto")
    assert "going on" not in began(*mine, "steps=2")[1]
    other = line(digits, "outputs/x/2", "loss=gan", "resume=auto")
    assert "going on from step 2 of" in began(*other, "steps=3")[1]
    assert not (tmp_path / "outputs" / "x" / "2").exists()
    assert "going on" not in began(*other, "steps=3", "seed=1")[1]
    assert (tmp_path / "outputs" / "x" / "2").exists()
    code, out, _ = began(*mine, "steps=3")
    assert code == 0
    assert "done already, at step 3" in out
    code, _, err = began(*mine, "steps=3", "optimizer.lr=0.5")
    assert code == 2
    assert "optimizer.lr" in err


def test_every_random_state_comes_back():
    def draw():
        return torch.rand(3).tolist(), np.random.rand(3).tolist(), random.random()

    cpu = torch.device("cpu")
    draw()
    state = resume.rng_state(cpu)
    first = draw()
    random.gauss(0, 1)  # Python and NumPy keep the second of two normal numbers
    np.random.randn()
    resume.set_rng_state(state, cpu)
    assert draw() == first


def test_settings_that_may_change_are_taken_and_others_refused():
    saved = to_plain(settings("train", "loss=began_paper", "steps=10", "seed=3"))
    typed = settings("train", "loss=began_paper", "steps=20", "log_every=7", "seed=4")
    merged = resume.merge_settings(typed, ["steps"], saved)
    assert (merged.steps, merged.log_every, merged.seed) == (20, saved["log_every"], 3)
    with pytest.raises(UserError, match="this would be another run: seed was 3, not 4"):
        resume.merge_settings(typed, ["steps", "seed"], saved)
    with pytest.raises(UserError, match="seed was 3"):
        resume.merge_settings(typed, ["recipe"], saved)


def test_a_run_keeps_its_precision_on_another_processor(began, tiny_run, monkeypatch):
    """`auto` was fp32 here; on a processor that computes in bf16 the run goes on in fp32."""
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    out = began("train", f"resume={tiny_run}", "steps=6")[1]
    assert ", cpu, fp32; 6 steps" in out
    assert began("train", f"resume={tiny_run}", "steps=8", "precision=bf16")[0] == 2
    out = began("train", "steps=1", "out=new", *TINY)[1]
    assert ", cpu, bf16; 1 step\n" in out


def test_a_run_of_before_a_setting_that_changes_no_result_goes_on(began, tiny_run, digits):
    """`graph` is younger than the first runs."""
    path = checkpoint.find_all(tiny_run)[-1]
    state = checkpoint.load(path)
    del state["config"]["graph"], state["computed"]
    torch.save(state, path)
    config = tiny_run / "config.yaml"
    config.write_text(config.read_text().replace("graph: auto\n", ""))
    tiny_run.rename(tiny_run.parent / "outputs")
    code, out, err = began(*line(digits, "outputs/new", "resume=auto", "steps=5"))
    assert (code, err) == (0, "")
    assert "going on from step 4" in out
    assert began("sample", "ckpt=outputs", "n=1")[0] == 0

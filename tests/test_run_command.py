"""One command with one set of settings, alone and in a sweep."""

import pickle

import pytest
import torch
from conftest import TINY

from began_cli import cli
from began_cli.run_command import Task, key_of, remove_empty


@pytest.mark.parametrize(
    ("word", "key"),
    [
        ("loss.gamma=0.5", "loss.gamma"),
        ("++out=a=b@c", "out"),
        ("~loss", "loss"),
        ("+recipe@here=x", "recipe"),
    ],
)
def test_the_name_in_a_word_of_the_line(word, key):
    assert key_of(word) == key


def test_only_new_and_empty_folders_are_removed(tmp_path):
    run = tmp_path / "old" / "new" / "run"
    run.mkdir(parents=True)
    remove_empty(run, {tmp_path / "old"})
    assert list(tmp_path.rglob("*")) == [tmp_path / "old"]
    run.mkdir(parents=True)
    (run.parent / "kept").write_text("")
    remove_empty(run, set())
    assert not run.exists()
    assert (run.parent / "kept").exists()


def test_failures_of_every_process_are_read_once(tmp_path):
    task = Task("train", [], True, set(), tmp_path / "sweep" / ".failures", cli.CONF)
    other = pickle.loads(pickle.dumps(task))
    task._note("a\n b")
    other._note("c")
    assert other.failures() == ["a b", "c"]
    assert list((tmp_path / "sweep").iterdir()) == []


def test_folders_that_were_there_stay(began, tmp_path, monkeypatch):
    for name in ("data", "outputs", "mine"):
        (tmp_path / name).mkdir()
    assert began("train", "dataset.fallback=false")[0] == 2
    assert began("train", "dataset=folder", "dataset.root=no", "hydra.run.dir=mine/run")[0] == 2
    assert began("train", "dataset=folder", "dataset.root=no", "hydra.run.dir=mine")[0] == 2
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["data", "mine", "outputs"]


def test_a_bug_is_a_traceback_and_not_a_user_error(began, monkeypatch, digits):
    monkeypatch.setattr("began_cli.training.loop.build_parts", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        began("train", "steps=1", f"dataset.root={digits}")


def test_a_sweep_run_again_skips_goes_on_and_grows(began, tmp_path, digits):
    line = [f"dataset.root={digits}", "steps=4", "checkpoint_every=2", *TINY]
    assert began("train", "-m", "loss=gan", "seed=1,2", *line)[0] == 0
    (sweep,) = (tmp_path / "outputs" / "sweep").iterdir()
    one, two = sorted(path for path in sweep.iterdir() if path.is_dir())
    whole = torch.load(one / "checkpoints" / "step-00000004.pt", weights_only=True)
    (one / "checkpoints" / "step-00000004.pt").unlink()  # as if broken off
    before = {path: path.stat().st_mtime_ns for path in two.rglob("*") if path.suffix == ".pt"}

    code, out, err = began("train", "-m", "loss=gan", "seed=1,2,3", *line)
    assert code == 0, err
    assert "going on from step 2" in out
    assert out.count("done already, at step 4") == 1
    assert len([path for path in sweep.iterdir() if path.is_dir()]) == 3
    assert before == {path: path.stat().st_mtime_ns for path in before}
    again = torch.load(one / "checkpoints" / "step-00000004.pt", weights_only=True)
    for name, weight in whole["generator"].items():
        assert torch.equal(again["generator"][name], weight)


def test_a_bug_in_one_run_of_a_sweep_is_told_at_once_and_stops_no_other(
    began, tmp_path, digits, monkeypatch
):
    from began_cli.commands import train

    real = train.main

    def breaks(cfg, typed):
        if cfg.seed == 1:
            raise ZeroDivisionError("a bug")
        real(cfg, typed)

    monkeypatch.setattr(train, "main", breaks)
    line = [f"dataset.root={digits}", "steps=1", *TINY]
    code, _, err = began("train", "-m", "seed=1,2", *line)
    assert code == 1
    assert "Traceback" in err
    assert err.splitlines()[-1].count("ZeroDivisionError: a bug") == 1
    assert len(list((tmp_path / "outputs").rglob("step-*.pt"))) == 1

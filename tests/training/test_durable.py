"""No run is lost: damage, full disks, signals, two processes, sudden death."""

import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import TINY

from began_cli.errors import UserError
from began_cli.generators import checkpoint
from began_cli.training.lock import only_process
from began_cli.training.signals import StopRequest


def line(digits, run, *more: str) -> list[str]:
    return ["train", f"dataset.root={digits}", f"hydra.run.dir={run}", *TINY, *more]


def same_weights(a, b) -> bool:
    return all(
        torch.equal(a[name][key], b[name][key])
        for name in ("generator", "ema", "discriminator")
        for key in a[name]
    )


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
    for path in checkpoint.all_of(tiny_run):
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
    path = checkpoint.all_of(tiny_run)[-1]
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

    def told(text):
        rows = [json.loads(row) for row in text.splitlines()]
        return [{k: v for k, v in row.items() if "second" not in k} for row in rows]

    assert told((run / "metrics.jsonl").read_text()) == told(before)
    code, _, err = began("train", f"resume={run}", "steps=3")
    assert code == 2
    assert "is at step 7 already" in err


def test_a_loose_checkpoint_goes_on_in_a_folder_of_its_own(began, tiny_run, tmp_path):
    loose = tmp_path / "deep" / "loose.pt"
    loose.parent.mkdir()
    loose.write_bytes(checkpoint.all_of(tiny_run)[-1].read_bytes())
    code, _out, err = began("train", f"resume={loose}", "steps=6", "out=new")
    assert code == 0, err
    assert checkpoint.read(str(tmp_path / "new"))[1]["step"] == 6
    assert [path.name for path in loose.parent.iterdir()] == ["loose.pt"]


def test_going_on_from_an_older_checkpoint_sets_the_newer_aside(began, digits, tmp_path):
    run = tmp_path / "run"
    assert began(*line(digits, run, "steps=6", "checkpoint_every=3"))[0] == 0
    older = run / "checkpoints" / "step-00000003.pt"
    code, out, _ = began("train", f"resume={older}", "steps=6", "checkpoint_every=1")
    assert code == 0
    assert "set aside" in out
    assert (run / "checkpoints" / "step-00000006.superseded").exists()


def test_a_refused_resume_sets_nothing_aside(began, digits, tmp_path):
    run = tmp_path / "run"
    assert began(*line(digits, run, "steps=6", "checkpoint_every=3"))[0] == 0
    older = run / "checkpoints" / "step-00000003.pt"
    names = sorted(path.name for path in older.parent.iterdir())
    assert began("train", f"resume={older}", "steps=6", "dataset.root=elsewhere")[0] == 2
    with only_process(run):
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


def test_stale_temporaries_are_removed(began, tiny_run):
    stale = tiny_run / "checkpoints" / ".step-00000009.pt.abc.tmp"
    stale.write_bytes(b"half")
    assert began("train", f"resume={tiny_run}", "steps=5")[0] == 0
    assert not stale.exists()


@pytest.mark.parametrize("call", ["open", "fsync", "replace"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_failing_writes(began, digits, tmp_path, monkeypatch, call, code):
    """At each call of a save: said, survived, and the run usable after it; or stopped, as set."""
    owner = checkpoint if call == "open" else os
    real = open if call == "open" else getattr(os, call)
    run = tmp_path / "run"

    def refuse(*args, **kwargs):
        if any("step-00000002" in str(a) for a in (*args, *kwargs.values())) or call == "fsync":
            calls.append(1)
            if len(calls) == 1:
                raise OSError(code, os.strerror(code))
        return real(*args, **kwargs)

    calls: list[int] = []
    more = ("steps=4", "checkpoint_every=2", "sample_every=100")
    with monkeypatch.context() as patch:
        patch.setattr(owner, call, refuse, raising=False)
        done, out, err = began(*line(digits, run, *more))
    assert done == 0, err
    assert "cannot write" in " ".join(out.split())
    assert [path.stem for path in checkpoint.all_of(run)] == ["step-00000004"]
    assert not list(run.rglob("*.tmp"))

    calls.clear()
    with monkeypatch.context() as patch:
        patch.setattr(owner, call, refuse, raising=False)
        done, _, err = began(*line(digits, tmp_path / "b", *more, "disk_full=stop"))
    assert done == 2
    assert err.count("\n") == 1
    assert "cannot write" in err


def test_one_process_a_run_folder(began, digits, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    with only_process(run):
        code, _, err = began(*line(digits, run, "steps=1"))
        assert code == 2
        assert f"pid {os.getpid()}" in err
        with pytest.raises(UserError), only_process(run):
            pass
    assert began(*line(digits, run, "steps=1"))[0] == 0


def test_a_dead_process_holds_no_lock(tmp_path):
    code = (
        "import os, signal, sys, pathlib\n"
        "from began_cli.training.lock import only_process\n"
        "with only_process(pathlib.Path(sys.argv[1])):\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)]).returncode == -9
    with only_process(tmp_path):
        pass


def test_earlier_handlers_are_chained_and_put_back():
    heard = []
    before = signal.signal(signal.SIGUSR1, lambda number, frame: heard.append(number))
    try:
        with StopRequest() as stop:
            os.kill(os.getpid(), signal.SIGUSR1)
            time.sleep(0.01)
            assert stop.name == "SIGUSR1"
            assert heard == []  # after the block: when the run has been saved
        assert heard == [signal.SIGUSR1]
        os.kill(os.getpid(), signal.SIGUSR1)
        time.sleep(0.01)
        assert len(heard) == 2
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_second_ctrl_c_stops_at_once():
    with pytest.raises(KeyboardInterrupt), StopRequest():  # noqa: PT012
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1)


KILLED = """
import os, random, signal, sys, threading, time
import torch
torch.set_num_threads(1)
from began_cli import cli

from began_cli.generators import checkpoint
seed, after = int(sys.argv[1]), float(sys.argv[2])
random.seed(seed)
die = lambda: os.kill(os.getpid(), signal.SIGKILL)
if seed % 2:  # during a save: between two of its calls
    calls = [random.randrange(1, 6)]
    for name in ("fsync", "replace"):
        def wrapped(*args, real=getattr(os, name)):
            calls[0] -= 1
            if calls[0] == 0:
                die()
            out = real(*args)
            return out
        setattr(os, name, wrapped)
else:
    from began_cli.gan.update import Update
    step = Update.__call__
    left = [random.randrange(1, 12)]
    def counted(self, *streams):
        left[0] -= 1
        if left[0] == 0:
            threading.Timer(random.random() * 0.02, die).start()
        return step(self, *streams)
    Update.__call__ = counted
sys.argv = ["began", *sys.argv[3:]]
cli.main()
"""


@pytest.mark.slow
def test_sigkill_at_30_random_moments(began, digits, tmp_path):
    """Ends with exactly the weights of a run that nobody disturbed, and no doubled log lines."""
    steps = 150
    common = ("loss=began", "loss.lambda_k=0.1", f"steps={steps}", "checkpoint_every=3")
    common += ("log_every=2", "sample_every=50")
    run = tmp_path / "run"
    kills = 0
    for attempt in range(200):
        mine = line(digits, run, *common, "resume=auto")
        done = subprocess.run(
            [sys.executable, "-c", KILLED, str(attempt), "0", *mine], capture_output=True, text=True
        )
        assert done.returncode in (-signal.SIGKILL, 0), done.stderr
        kills += done.returncode != 0
        if kills == 30 or done.returncode == 0:
            break
    assert kills == 30, kills
    assert began(*line(digits, run, *common, "resume=auto"))[0] == 0
    assert began(*line(digits, tmp_path / "calm", *common))[0] == 0
    a, b = (checkpoint.read(str(folder))[1] for folder in (run, tmp_path / "calm"))
    assert same_weights(a, b)
    assert a["loss"]["k_t"] == b["loss"]["k_t"]
    rows = [
        [
            {key: value for key, value in json.loads(text).items() if "second" not in key}
            for text in (folder / "metrics.jsonl").read_text().splitlines()
        ]
        for folder in (run, tmp_path / "calm")
    ]
    assert rows[0] == rows[1]
    assert not list(Path(run).rglob("*.tmp"))


@pytest.mark.slow
def test_sigterm_at_a_random_moment_loses_nothing(digits, tmp_path):
    for seed in range(5):
        run = tmp_path / str(seed)
        command = [sys.executable, "-m", "began_cli", *line(digits, run, "steps=1000000")]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        while not (run / "metrics.jsonl").exists():
            time.sleep(0.05)
        time.sleep(2 + random.Random(seed).random() * 2)
        start = time.perf_counter()
        process.terminate()
        process.communicate(timeout=30)
        assert process.returncode == 75
        assert time.perf_counter() - start < 5
        assert checkpoint.read(str(run))[1]["step"] > 0

"""No run is lost to full disks, signals or sudden death; scores change nothing."""

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
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from began_cli.gan.update import Update
from began_cli.generators import checkpoint
from began_cli.training.monitor import Monitor


def line(digits, run, *more: str) -> list[str]:
    return ["train", f"dataset.root={digits}", f"hydra.run.dir={run}", *TINY, *more]


def lines(run) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def same_weights(a, b) -> bool:
    return all(
        torch.equal(a[name][key], b[name][key])
        for name in ("generator", "ema", "discriminator")
        for key in a[name]
    )


@pytest.mark.parametrize("call", ["open", "fsync", "replace"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_failing_writes(began, digits, tmp_path, monkeypatch, call, code):
    """At each call of a save: said, survived, and the run usable after it; or stopped, as set."""
    owner = checkpoint if call == "open" else os
    real = getattr(owner, call, open)
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
    assert [path.stem for path in checkpoint.find_all(run)] == ["step-00000004"]
    assert not list(run.rglob("*.tmp"))

    calls.clear()
    with monkeypatch.context() as patch:
        patch.setattr(owner, call, refuse, raising=False)
        done, _, err = began(*line(digits, tmp_path / "b", *more, "disk_full=stop"))
    assert done == 2
    assert err.count("\n") == 1
    assert "cannot write" in err


KILLED = """
import os, random, signal, sys, threading, time
import torch
torch.set_num_threads(1)
from began_cli import cli

from began_cli.gan.update import Update
from began_cli.generators import checkpoint
from began_cli.training.monitor import Monitor
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
    common = ("loss=began_paper", "loss.lambda_k=0.1", f"steps={steps}", "checkpoint_every=3")
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


def test_the_watchdog_acts_on_a_full_disk_too(began, digits, tmp_path, monkeypatch):
    """A log that cannot be written hides no alarm."""

    def refuse(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Monitor, "log", refuse)
    more = ("loss=bgan", "optimizer.lr=1e20", "model=began", "log_every=2", "watchdog=stop")
    code, out, err = began(*line(digits, tmp_path / "run", *more, "steps=20"))
    assert code == 2
    assert "cannot write to" in out
    assert "is not finite; lower optimizer.lr=1e+20" in err


def test_a_fatal_alarm_is_the_last_line_of_the_metrics(began, digits, tmp_path):
    more = ("loss=bgan", "optimizer.lr=1e20", "model=began", "log_every=2", "watchdog=stop")
    run = tmp_path / "run"
    code, _, err = began(*line(digits, run, *more, "steps=20"))
    assert code == 2
    assert lines(run)[-1]["watchdog"] in err
    log = (run / "train.log").read_text().splitlines()
    logged = [i for i, text in enumerate(log) if f"step {lines(run)[-1]['step']}/20" in text]
    alarm = [i for i, text in enumerate(log) if "watchdog: " in text]
    assert logged[0] < alarm[0]


def test_nothing_is_compiled_after_the_trial(began, digits, tmp_path, monkeypatch):
    """Mistake: a trial with latents of stride 0, after which every run compiles G once more."""
    compiled, before, compile, step = [], [], torch.compile, Update.__call__

    def backend(module, inputs):
        compiled.append(module)
        return module.forward

    def counted(self, *streams):
        before.append(len(compiled))
        return step(self, *streams)

    monkeypatch.setattr(
        torch, "compile", lambda f, mode, dynamic: compile(f, backend=backend, dynamic=dynamic)
    )
    monkeypatch.setattr(Update, "__call__", counted)
    more = ("loss=gan", "model=mlp", "compile=default", "steps=3")
    code, out, err = began(*line(digits, tmp_path / "run", *more))
    assert (code, err) == (0, "")
    assert "compiled in" in out
    assert before[0] == len(compiled) > 0

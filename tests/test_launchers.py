"""Sweeps through Hydra's own launchers and sweepers: real ones, small, on this machine."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from began_cli import cli

ROOT = Path(__file__).parent.parent
TINY = ["loss=bgan", "dataset=mnist", "dataset.image_size=16", "dataset.width=4", "batch_size=8"]


def began(*line: str, **env: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "began_cli", "train", *line]
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | env
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=500)


def losses(run: Path) -> list[float]:
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["train/loss_d"] for line in lines]


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["joblib", "submitit_local", "ray"])
def test_a_launcher_runs_a_2_by_2_sweep_with_the_same_numbers(tmp_path, launcher):
    pytest.importorskip(f"hydra_plugins.hydra_{launcher.removesuffix('_local')}_launcher")
    line = [*TINY, "steps=6", "log_every=3", "seed=1,2", "loss.log_z=true,false"]
    found = {}
    for name in ("basic", launcher):
        done = began("-m", *line, f"hydra/launcher={name}", f"hydra.sweep.dir={name}")
        assert done.returncode == 0, done.stderr
        runs = sorted(path.parent for path in Path(name).rglob("metrics.jsonl"))
        assert len(runs) == 4
        found[name] = {run.name: losses(run) for run in runs}
    assert found["basic"] == found[launcher]
    again = began("-m", *line, f"hydra/launcher={launcher}", f"hydra.sweep.dir={launcher}")
    assert again.returncode == 0
    assert {run: losses(Path(launcher, run)) for run in found[launcher]} == found[launcher]


@pytest.mark.slow
def test_a_run_that_fails_elsewhere_is_reported_here(tmp_path):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    Path("images").mkdir()
    line = ["-m", "dataset=folder,mnist", "dataset.root=images", *TINY[2:], "steps=2"]
    done = began(*line, "dataset.channels=1", "loss=bgan", "hydra/launcher=joblib")
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("began train: 1 of the sweep's runs failed: [dataset=folder"), last
    assert "no images" in last


@pytest.mark.slow
def test_a_job_whose_time_is_up_is_saved_queued_again_and_goes_on(tmp_path):
    """The requeue of a scheduler, simulated by its signal."""
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    line = [*TINY, "steps=400", "log_every=100", "checkpoint_every=100000"]
    command = [sys.executable, "-m", "began_cli", "train", "-m", *line, "seed=1"]
    command += ["hydra/launcher=submitit_local", "hydra.sweep.dir=sweep"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment)
    while not [path for path in Path("sweep").rglob("metrics.jsonl") if path.read_text()]:
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    (lock,) = Path("sweep").rglob(".lock")
    os.kill(int(lock.read_text()), signal.SIGUSR2)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    (log,) = Path("sweep").rglob("train.log")
    text = log.read_text()
    assert "stopped by SIGUSR2" in text
    assert "going on from step" in text
    (metrics,) = Path("sweep").rglob("metrics.jsonl")
    assert json.loads(metrics.read_text().splitlines()[-1])["step"] == 400


@pytest.mark.slow
def test_optuna_improves_a_score_over_12_trials(tmp_path):
    """The learning rate of a few steps against FID; the best is better than the first."""
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    line = ["loss=bgan", "dataset=mnist", "dataset.width=4", "batch_size=16", "steps=30"]
    line += ["evaluate_every=30", "evaluation.n=256", "log_every=30", "hydra.sweep.dir=search"]
    line += ["hydra/sweeper=search", "hydra.sweeper.n_trials=12", "+hydra.sweeper.sampler.seed=3"]
    done = began("-m", *line, "optimizer.lr=tag(log,interval(1e-6,1e-2))")
    assert done.returncode == 0, done.stderr
    scores = {}
    for path in Path("search").rglob("evaluation.json"):
        (entry,) = json.loads(path.read_text())["evaluations"]
        (score,) = entry["scores"].values()
        scores[path.parent.name] = score["value"]
    assert len(scores) == 12
    found = yaml.safe_load(Path("search/optimization_results.yaml").read_text())
    assert found["best_value"] == pytest.approx(min(scores.values()))
    assert f"best score: {found['best_value']:.4g}, with optimizer.lr=" in done.stdout
    first = min(Path("search").rglob("train.log"), key=lambda path: path.stat().st_ctime_ns)
    assert found["best_value"] < scores[first.parent.name]


def test_a_search_without_a_score_is_refused(tmp_path):
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    done = began("-m", *TINY, "hydra/sweeper=search", "optimizer.lr=interval(1e-5,1e-3)")
    assert done.returncode != 0
    assert "evaluate_every=0: hydra/sweeper=search needs a score to go by" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("choice", ["launcher=slurm", "launcher=joblib", "sweeper=search"])
def test_a_missing_engine_names_its_extra(began, monkeypatch, choice):
    """As where the plugin is not installed: Hydra knows no such option."""
    from hydra.core.plugins import Plugins

    monkeypatch.setattr(Plugins.instance(), "discover", lambda *_: [])
    from hydra.core.config_store import ConfigStore

    store = ConfigStore.instance().repo["hydra"]
    group = choice.partition("=")[0]
    monkeypatch.setitem(store, group, {"basic.yaml": store[group]["basic.yaml"]})
    code, _, err = began("train", "-m", f"hydra/{choice}", "seed=1,2", "evaluate_every=9")
    assert code == 2
    assert "pip install 'began[" in err
    assert err.count("\n") == 1


# --- containers and job scripts -------------------------------------------------------------------


def test_the_dockerfile_copies_what_is_there_and_starts_began():
    lines = (ROOT / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
    words = [line.split() for line in lines if line.strip() and not line.startswith("#")]
    assert words[0][0] == "FROM"
    for line in words:
        if line[0] == "COPY" and not line[1].startswith("--from"):
            assert all((ROOT / name).exists() for name in line[1:-1]), line
    assert ["ENTRYPOINT", '["began"]'] in words


SRUN = """#!/bin/bash
echo "srun $*" >> "$CALLS"
[ -n "$SRUN_EXIT" ] && exit "$SRUN_EXIT"
trap 'echo saved >> "$CALLS"; exit 1' USR1
for i in $(seq 100); do sleep 0.1; done
"""
SCONTROL = """#!/bin/sh
echo "scontrol $*" >> "$CALLS"
"""


@pytest.mark.parametrize("end", ["0", "1", "signal"])
def test_the_slurm_script_queues_again_only_what_was_stopped(tmp_path, end):
    """Run by bash, with an srun and scontrol that write down how they were called."""
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    calls = tmp_path / "calls"
    environment = os.environ | {
        **{"PATH": f"{tmp_path}:{os.environ['PATH']}", "CALLS": str(calls)},
        **{"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "a", "SLURM_NNODES": "2"},
        **{"SLURM_GPUS_ON_NODE": "4", "SRUN_EXIT": "" if end == "signal" else end},
    }
    line = ["bash", str(ROOT / "scripts" / "train.slurm"), "loss=began", "out=run"]
    process = subprocess.Popen(line, env=environment, stderr=subprocess.PIPE, text=True)
    if end == "signal":
        while not calls.exists() or "srun" not in calls.read_text():
            time.sleep(0.02)
        time.sleep(0.2)
        process.send_signal(signal.SIGUSR1)
    _, err = process.communicate(timeout=30)
    lines = calls.read_text()
    assert "torchrun --nnodes 2 --nproc-per-node 4" in lines
    assert "-m began_cli train resume=auto loss=began out=run" in lines
    if end == "signal":
        assert lines.splitlines()[-2:] == ["saved", "scontrol requeue 7"], err
        assert process.returncode == 0
    else:
        assert "requeue" not in lines
        assert process.returncode == int(end)


def test_the_presets_are_among_the_options():
    assert {path.stem for path in (cli.CONF / "hydra" / "launcher").iterdir()} == {"slurm"}
    assert {path.stem for path in (cli.CONF / "hydra" / "sweeper").iterdir()} == {"search"}

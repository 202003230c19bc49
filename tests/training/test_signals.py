"""Signals that stop a run."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from conftest import TINY

from began_cli.generators import checkpoint
from began_cli.training.signals import StopRequest


def lines(run) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


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
    def interrupt_twice() -> None:
        with StopRequest():
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)

    with pytest.raises(KeyboardInterrupt):
        interrupt_twice()


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

"""The reports of a run: metrics.jsonl, TensorBoard, train.log, the terminal."""

import json
import math

import pytest
import torch
from conftest import TINY

from began_cli.gan.measures import Measures
from began_cli.training.monitor import Monitor, NoMonitor, cut_back


def lines(run) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_logged_losses_are_means_over_the_steps(began, digits, tmp_path):
    for name, every in (("one", 1), ("three", 3)):
        line = [f"dataset.root={digits}", f"hydra.run.dir={tmp_path / name}", f"log_every={every}"]
        assert began("train", "loss=began", *line, "steps=3", *TINY)[0] == 0
    each, (mean,) = lines(tmp_path / "one"), lines(tmp_path / "three")
    for name in ("train/loss_real", "train/convergence"):
        assert mean[name] == pytest.approx(sum(row[name] for row in each) / 3)
    assert mean["train/k_t"] == pytest.approx(each[-1]["train/k_t"])  # a state, not a mean


@pytest.mark.parametrize("value", [1e25, float("inf"), float("nan")])
def test_values_beyond_tensorboard_s_bins_are_no_traceback(tmp_path, value):
    """A run that flies apart has finite values of 1e25 before it has none."""
    far = torch.full((4,), value)
    with Monitor(tmp_path, 10, {}, 0) as monitor:
        monitor.start(0, 0)
        monitor.add(Measures({"loss_d": far[0]}, far, far), 1)
        monitor.log(1, 4, monitor.means(4, diversity=1.0))
    assert '"train/loss_d"' in (tmp_path / "metrics.jsonl").read_text()


def feed(monitor, *losses):
    for i, loss in enumerate(losses):
        scalars = {"loss_d": torch.tensor(loss), "k_t": torch.tensor(10.0 * loss)}
        monitor.add(Measures(scalars, torch.zeros(4), torch.zeros(4)), i + 1)


def test_means_over_the_steps_and_states_as_they_are_now(tmp_path):
    with Monitor(tmp_path, 10, {}, 0) as monitor:
        monitor.start(0, 0)
        feed(monitor, 1.0, 2.0, 6.0)
        values = monitor.means(12, diversity=0.5)
    assert (values["loss_d"], values["k_t"], values["diversity"]) == (3.0, 60.0, 0.5)
    assert list(values)[-1] == "images_per_second"


def test_a_fatal_alarm_stands_in_its_line_and_in_no_other(tmp_path):
    with Monitor(tmp_path, 10, {}, 0) as monitor:
        monitor.start(0, 0)
        feed(monitor, 1.0)
        monitor.log(1, 4, monitor.means(4))
        feed(monitor, math.nan)
        monitor.log(2, 8, monitor.means(8), "lower optimizer.lr")
    first, second = lines(tmp_path)
    assert "watchdog" not in first
    assert second["watchdog"] == "lower optimizer.lr"
    assert second["train/loss_d"] is None


def test_sums_come_back_with_the_state(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    with Monitor(tmp_path / "a", 10, {}, 0) as monitor:
        monitor.start(0, 0)
        feed(monitor, 1.0, 2.0)
        state = monitor.state_dict()
    with Monitor(tmp_path / "b", 10, {}, 0) as monitor:
        monitor.start(2, 8)
        monitor.load_state_dict(state, torch.device("cpu"))
        feed(monitor, 6.0)
        assert monitor.means(12)["loss_d"] == 3.0


def test_redirected_output_tells_the_step_before_the_first_log(tmp_path, monkeypatch, capsys):
    clock = [0.0]
    monkeypatch.setattr("began_cli.training.monitor.time.perf_counter", lambda: clock[0])
    one = Measures({"loss_d": torch.tensor(1.0)}, torch.zeros(4), torch.zeros(4))
    told = []
    with Monitor(tmp_path, 1000, {}, 0) as monitor:
        monitor.start(0, 0)
        for step in range(1, 61):
            clock[0] = 2.0 * step
            monitor.add(one, step)
            told += [step] * bool(capsys.readouterr().out)
        assert told == [3, 13, 53]  # after 6 s, and then ever later
        clock[0] += 4
        monitor.log(61, 244, monitor.means(244))
        capsys.readouterr()
        monitor.add(one, 62)
    assert capsys.readouterr().out == ""  # a log says more


def test_metrics_are_cut_back_to_a_step_and_to_whole_lines(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n[]\n{"step": 3}\n{"step": ')
    cut_back(path, 2)
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n'


def test_other_processes_report_nothing(tmp_path, capsys):
    with NoMonitor() as monitor:
        monitor.start(0, 0)
        monitor.say("a line")
        monitor.warn("a warning", title="watchdog")
    assert capsys.readouterr() == ("", "")
    assert not list(tmp_path.iterdir())

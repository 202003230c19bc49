"""`began train dry_run=true`."""

import io
import re

import pytest
import torch
from conftest import TINY, settings

from began_cli.data import sources
from began_cli.data.sources import Source
from began_cli.gan.flops import count_flops
from began_cli.training import dry_run
from began_cli.training.setup import build_parts


def test_it_says_what_a_run_would_cost_and_writes_nothing(began, digits, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    line = ["train", "dry_run=true", f"dataset.root={digits}", "loss=wgan", *TINY]
    code, out, err = began(*line)
    assert (code, err) == (0, "")
    words = " ".join(out.split())
    for word in ("200 images", "parameters G", "GFLOPs", "images/s", "for 5,000 steps", "about"):
        assert word in words
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("loss", ["ebgan", "began", "bgan_discrete"])
def test_it_runs_for_losses_with_more_to_do(began, digits, loss):
    line = ["train", "dry_run=true", f"dataset.root={digits}", f"loss={loss}", *TINY]
    line += ["loss.margin=following", "accumulate=2"] if loss == "ebgan" else []
    code, _, err = began(*line)
    assert (code, err) == (0, "")


def test_work_is_that_of_a_step_for_an_image(began, digits):
    line = [f"dataset.root={digits}", "loss=wgan", *TINY]
    out = began("train", "dry_run=true", *line)[1]
    counted = float(re.search(r"([\d.e-]+) GFLOPs", out)[1])
    cfg = settings("train", *line)
    update, batches, stream = build_parts(cfg, sources.load(cfg.dataset), torch.device("cpu"))
    x, z = batches(), stream()
    one_d = count_flops(lambda: update.discriminator(x)) / len(x)
    one_g = count_flops(lambda: update.generator(z)) / len(x)
    # four critic's steps of 6D + G, then 6D + 3G, less what first layers save, for 5 batches
    assert counted * 1e9 == pytest.approx((30 * one_d + 7 * one_g) / 5, rel=0.1)


def test_sizes_and_times_in_words():
    assert dry_run.size(10) == "10 bytes"
    assert dry_run.size(3 * 2**20) == "3 MiB"
    assert dry_run.size(2**41) == "2.05e+03 GiB"
    assert [dry_run.duration(s) for s in (9, 600, 9000)] == ["9 s", "10 min", "2.5 h"]


class Machine:
    """A clock that goes on by the operations of each step at `speed` a second."""

    def __init__(self, monkeypatch, speed):
        self.speed, self.now, self.steps = speed, 0.0, []
        monkeypatch.setattr(dry_run, "clock", lambda: self.now)
        monkeypatch.setattr(dry_run, "build_parts", self.build_parts)

    def build_parts(self, cfg, source, device):
        flops = dry_run.count(cfg, source).flops

        def step(batches, latents):
            self.now += flops / self.speed
            self.steps.append((cfg.batch_size, cfg.model.width))

        return step, None, None


LARGE = ["recipe=faces128", "dataset.root=x"]


@pytest.mark.parametrize("gflops", [2, 20, 100, 2000, 100_000])
def test_the_budget_holds_on_any_machine(monkeypatch, gflops):
    cfg = settings("train", *LARGE)
    source = Source(torch.zeros(4, 3, 128, 128, dtype=torch.uint8), "")
    machine = Machine(monkeypatch, gflops * 1e9)
    work = dry_run.count(cfg, source)
    timing = dry_run.measure(cfg, source, torch.device("cpu"), work)
    smallest = 2 * dry_run.count(dry_run.smaller_settings(cfg)[0], source).flops / machine.speed
    assert machine.now <= max(dry_run.BUDGET * 1.01, smallest)
    assert timing.seconds == pytest.approx(work.flops / machine.speed)
    whole = (cfg.batch_size, cfg.model.width)
    affordable = machine.steps[-1] == whole
    assert affordable == (timing.cfg == cfg) == (gflops >= 2000)
    assert machine.steps.count(whole) in (range(3, 23) if affordable else (0,))


def test_the_smaller_settings_are_of_ever_larger_steps_that_training_accepts():
    for line in (LARGE, ["loss=bgan", "loss.pack=2", "accumulate=4"], ["dataset=ring"]):
        cfg = settings("train", *line)
        smaller = dry_run.smaller_settings(cfg)
        for each in smaller:
            each.check()
        sizes = [(each.batch_size, each.model.width) for each in smaller]
        assert sizes == sorted(sizes)
        assert smaller[-1] == cfg


def test_a_time_scaled_by_operations_is_near_the_measured_one(monkeypatch, digits):
    monkeypatch.setattr(dry_run, "BUDGET", 300.0)  # on a busy machine too
    cfg = settings("train", f"dataset.root={digits}", "loss=began_paper", "dataset.width=32")
    source, cpu = sources.load(cfg.dataset), torch.device("cpu")
    work = dry_run.count(cfg, source)
    measured = dry_run.measure(cfg, source, cpu, work)
    assert measured.cfg == cfg
    steps = dry_run.smaller_settings(cfg)
    monkeypatch.setattr(dry_run, "smaller_settings", lambda _: steps[:-1])
    scaled = dry_run.measure(cfg, source, cpu, work)
    assert scaled.cfg.batch_size < cfg.batch_size
    assert measured.seconds / 4 < scaled.seconds < 4 * measured.seconds


def test_a_scaled_speed_is_reported_as_such(began, digits, monkeypatch):
    monkeypatch.setattr(dry_run, "BUDGET", 0.0)
    line = ["train", "dry_run=true", f"dataset.root={digits}", "loss=began_paper", *TINY]
    code, out, err = began(*line, "batch_size=64", "compile=default")
    assert (code, err) == (0, "")
    assert "measured with batch_size=2, model.width=1," in " ".join(out.split())
    assert "not tried here" in out


def test_counting_on_the_meta_device_agrees_with_a_real_step():
    cfg = settings("train", "loss=wgan_gp", "accumulate=2", "optimizer=adamw", *TINY)
    source = Source(torch.zeros(8, 1, 16, 16, dtype=torch.uint8), "")
    work = dry_run.count(cfg, source)
    update, batches, latents = build_parts(cfg, source, torch.device("cpu"))
    assert work.flops == count_flops(lambda: update(batches, latents))
    assert work.images == cfg.batch_size * update.loss.n_critic
    file = io.BytesIO()
    torch.save(update.state_dict(), file)
    assert work.checkpoint == pytest.approx(file.tell(), rel=0.5)  # names and padding, of so few
    assert work.parameters[0] == sum(w.numel() for w in update.generator.parameters())

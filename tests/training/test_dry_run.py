"""`began train dry_run=true`."""

import re

import pytest
import torch
from conftest import TINY, settings

from began_cli.data import sources
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
    line += ["loss.margin=auto", "accumulate=2"] if loss == "ebgan" else []
    code, out, err = began(*line)
    assert (code, err) == (0, "")
    assert ("margin" in out) == (loss == "ebgan")


def test_work_is_that_of_a_step_for_an_image(began, digits):
    line = [f"dataset.root={digits}", "loss=wgan", *TINY]
    out = began("train", "dry_run=true", *line)[1]
    told = float(re.search(r"([\d.e-]+) GFLOPs", out)[1])
    cfg = settings("train", *line)
    update, batches, stream = build_parts(cfg, sources.load(cfg.dataset), torch.device("cpu"))
    x, z = batches(), stream()
    one_d = count_flops(lambda: update.discriminator(x)) / len(x)
    one_g = count_flops(lambda: update.generator(z)) / len(x)
    # four critic's steps of 6D + G, then 6D + 3G, less what first layers save, for 5 batches
    assert told * 1e9 == pytest.approx((30 * one_d + 7 * one_g) / 5, rel=0.1)


def test_sizes_and_times_in_words():
    assert dry_run.size(10) == "10 bytes"
    assert dry_run.size(3 * 2**20) == "3 MiB"
    assert dry_run.size(2**41) == "2.05e+03 GiB"
    assert [dry_run.duration(s) for s in (9, 600, 9000)] == ["9 s", "10 min", "2.5 h"]

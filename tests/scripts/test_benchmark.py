"""The schemes that the benchmark compares compute the same."""

import json
import subprocess
import sys
from pathlib import Path

import benchmark
import pytest
import torch
from common import compose_settings

from began_cli.training.setup import build_parts

SCRIPTS = Path(benchmark.__file__).parent
CPU = torch.device("cpu")
LINE = [
    "loss=began_paper",
    "dataset=mnist",
    "dataset.image_size=16",
    "dataset.width=8",
    "batch_size=8",
]


def schemes(*more: str):
    cfg = compose_settings([*LINE, *more])
    ours = build_parts(cfg, benchmark.make_noise(cfg), CPU)
    theirs = benchmark.Reference(ours.update, cfg.loss.gamma, cfg.loss.lambda_k, cfg.optimizer.lr)
    theirs.k_t = cfg.loss.k_0
    return ours, theirs


def test_gradients_of_the_fast_step_are_the_three_pass_references():
    """In single precision, composed up-sampling and all: 1e-5 of each weight's largest."""
    ours, theirs = schemes("loss.k_0=0.4")
    x, z = ours.batches(), ours.latents()
    ours.update(lambda: x, lambda: z)
    theirs.three_passes(x, z)
    for name in ("generator", "discriminator"):
        pairs = zip(
            getattr(ours.update, name).parameters(), getattr(theirs, name).parameters(), strict=True
        )
        for a, b in pairs:
            assert (a.grad - b.grad).norm() <= 1e-5 * b.grad.norm()


@pytest.mark.slow
def test_200_steps_end_with_the_same_k_t_and_m():
    ours, theirs = schemes("loss.lambda_k=0.01", "optimizer.lr=1e-4")
    for _ in range(200):
        x, z = ours.batches(), ours.latents()
        measures = ours.update(lambda x=x: x, lambda z=z: z).scalars
        theirs.three_passes(x, z)
    assert measures["k_t"].item() > 0.01  # it has moved
    assert measures["k_t"].item() == pytest.approx(theirs.k_t, rel=1e-3)
    assert measures["convergence"].item() == pytest.approx(theirs.m, rel=1e-3)


@pytest.mark.slow
def test_work_is_0_61_of_three_passes_at_64_pixels():
    """By hand, in units of an n -> n convolution at 1 pixel: D 28,160, of which 5,376 are composed
    convolutions at 16/36; G 11,072, likewise; and the first layers' data gradients spared."""
    result = benchmark.measure_step(1, ["batch_size=1"], steps=1)
    d, g, composed, first = 28_160, 11_072, 5_376 * 20 / 36, 192
    ours = 6 * (d - composed) + 3 * (g - composed) - first
    theirs = 9 * d + 3 * g - 2 * first
    assert result["began's work over three passes'"] == pytest.approx(ours / theirs, abs=0.001)
    assert round(ours / theirs, 2) == 0.61


@pytest.mark.slow
@pytest.mark.parametrize("what", ["startup", "loop"])
def test_benchmarks_print_json(what, tmp_path):
    line = [sys.executable, str(SCRIPTS / "benchmark.py"), what, "--rounds", "1", "--json"]
    line += ["steps=2", "dataset.image_size=16"] if what == "loop" else []
    done = subprocess.run(line, capture_output=True, text=True, cwd=tmp_path, check=True)
    assert json.loads(done.stdout.strip().splitlines()[-1])

import math

import numpy as np
import pytest
import torch
from PIL import Image

from began_cli.evaluation.energies import draw_energies, measure_energies, wasserstein


def test_wasserstein_of_equal_and_unequal_samples():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=30), rng.normal(1, 2, size=30)
    matched = np.abs(np.sort(a) - np.sort(b)).mean()  # the best matching is the sorted one
    assert wasserstein(torch.tensor(a), torch.tensor(b)) == pytest.approx(matched)
    c = rng.exponential(size=12)
    many = math.lcm(30, 12)  # each value as often as it takes to match them one to one
    matched = np.abs(np.sort(a.repeat(many // 30)) - np.sort(c.repeat(many // 12))).mean()
    assert wasserstein(torch.tensor(a), torch.tensor(c)) == pytest.approx(matched)
    assert wasserstein(torch.tensor(a), torch.tensor(a) + 3) == pytest.approx(3)
    assert wasserstein(torch.tensor(a), torch.tensor(a)) == 0


class MeanError:
    """A loss whose energy of an image is the mean absolute error of its reconstruction."""

    def values(self, output, images):
        return (images - output).abs().flatten(1).mean(1)


def test_energies_of_several_batches_are_in_order():
    x = torch.tensor([0.5, -1.0, 0.25]).view(3, 1, 1, 1).expand(3, 1, 2, 2)
    energies = measure_energies(lambda v: v / 2, MeanError(), iter(x.split(2)))
    assert energies.dtype == torch.float64
    assert energies.tolist() == [0.25, 0.5, 0.125]


def test_draw_energies(tmp_path):
    draw_energies(torch.rand(50), torch.rand(50) + 1, 1.0, "began", tmp_path / "e.png")
    assert Image.open(tmp_path / "e.png").size == (600, 350)

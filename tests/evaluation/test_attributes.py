import math

import numpy as np
import pytest
import torch

from began_cli.evaluation.attributes import MODES, compare_shares, number_modes
from began_cli.evaluation.coverage import modes_and_kl

# background, skin, hair colour, hair, rear hair, beard, eyes, eyebrows, mouth, clothes, its colour
FIRST = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
LAST = [4, 4, 4, 3, 4, 5, 4, 4, 4, 4, 9]


def count_modes(labels: torch.Tensor) -> dict[str, float]:
    """Return the number of combinations among labels (N, 11), and their KL."""
    return modes_and_kl(number_modes(labels), MODES)


def draw_evenly(n: int) -> torch.Tensor:
    """Return labels (N, 11) of a sampler that draws every value of every attribute evenly."""
    rng = np.random.default_rng(0)
    columns = [rng.integers(0, last + 1, n) for last in LAST]
    return torch.from_numpy(np.stack(columns, 1))


def test_a_combination_is_background_skin_hair_colour_and_hair():
    labels = torch.tensor([FIRST, LAST, [1, 2, 3, 2, 4, 5, 0, 1, 2, 3, 9]])
    assert number_modes(labels).tolist() == [0, 499, 1 * 100 + 2 * 20 + 3 * 4 + 2]


def test_the_other_attributes_do_not_count():
    labels = draw_evenly(200)
    labels[:, :4] = torch.tensor([1, 0, 4, 2])
    assert count_modes(labels) == {"modes": 1.0, "modes_kl": pytest.approx(math.log(500))}


def test_three_images_of_one_combination_and_one_of_another():
    counted = count_modes(torch.tensor([FIRST, FIRST, LAST, FIRST]))
    assert counted["modes"] == 2
    by_hand = 0.75 * math.log(500 * 0.75) + 0.25 * math.log(500 * 0.25)
    assert counted["modes_kl"] == pytest.approx(by_hand)


def test_every_combination_once_is_even():
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in (5, 5, 5, 4)), indexing="ij"), -1)
    labels = torch.zeros(500, 11, dtype=torch.long)
    labels[:, :4] = torch.from_numpy(grid.reshape(500, 4))
    assert count_modes(labels) == {"modes": 500.0, "modes_kl": pytest.approx(0)}


def test_the_kl_of_an_even_sampler_is_that_of_its_size():
    n = 20_000
    counted = count_modes(draw_evenly(n))
    assert counted["modes"] == 500
    assert counted["modes_kl"] == pytest.approx(499 / (2 * n), rel=0.2)


def test_shares_missing_and_rare_values():
    real = torch.zeros(12, 11, dtype=torch.long)
    real[:, 3] = torch.tensor([0, 0, 0, 0, 0, 0, 1, 1, 1, 2, 2, 2])  # no undercut
    samples = torch.zeros(16, 11, dtype=torch.long)
    samples[:, 3] = torch.tensor([0] * 14 + [3] + [1])
    hair = compare_shares(samples, real)["hair"]
    assert hair.real == {"bun": 0.5, "side parting": 0.25, "spiky": 0.25, "undercut": 0}
    assert hair.samples == {
        "bun": 0.875,
        "side parting": 0.0625,
        "spiky": 0,
        "undercut": 0.0625,
    }
    assert hair.missing == ["spiky"]
    assert hair.rare == ["side parting"]  # 1/16 is below a third of 1/4


def test_a_third_of_the_real_share_is_not_rare():
    real = torch.zeros(8, 11, dtype=torch.long)
    real[:6, 3] = 1  # 3/4 side parting
    samples = torch.zeros(4, 11, dtype=torch.long)
    samples[0, 3] = 1  # 1/4
    assert compare_shares(samples, real)["hair"].rare == []


def test_an_even_sampler_lacks_nothing():
    shares = compare_shares(draw_evenly(5000), draw_evenly(5000).flip(0))
    assert len(shares) == 11
    for attribute in shares.values():
        assert sum(attribute.samples.values()) == pytest.approx(1)
        assert sum(attribute.real.values()) == pytest.approx(1)
        assert attribute.missing == []
        assert attribute.rare == []


def test_the_rarest_value_is_so_for_its_real_share():
    real = torch.tensor([FIRST, FIRST, FIRST, LAST])  # background: 3/4 blue, 1/4 peach
    samples = torch.tensor([FIRST, LAST])  # 1/2 and 1/2
    assert compare_shares(samples, real)["background"].rarest == ("blue", pytest.approx(2 / 3))

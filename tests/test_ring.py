"""A check in two dimensions that needs no picture: does a loss find the modes of a ring?"""

import pytest
import reproduce_ring
import torch


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["gan", "bgan", "wgan_gp"])
def test_seven_of_eight_modes_within_three_minutes(tmp_path, loss):
    torch.set_num_threads(1)
    found, near, _, seconds = reproduce_ring.train(loss, 3, 0, tmp_path, [])
    assert found >= 7
    assert near > 0.5
    assert seconds <= 181
    assert (tmp_path / f"{loss}.png").exists()


def test_modes_are_counted():
    """Two modes of four with points near them; one point in a hundred makes a mode."""
    points = torch.tensor([[0.75, 0.0]] * 98 + [[0.0, 0.75]] + [[0.0, 0.0]]).view(100, 2, 1, 1)
    assert reproduce_ring.count_modes(points, 4, 0.75, 0.02) == (2, pytest.approx(0.99))

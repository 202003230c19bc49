"""The parts of a step put together, by hand."""

import torch

from began_cli import ranks
from began_cli.gan.measures import Fakes, Reals, combine


def make_fakes(values: list[float], loss: float, loss_g: float) -> Fakes:
    images = torch.zeros(len(values), 1, 2, 2)
    return Fakes(images, torch.tensor(values), torch.tensor(loss), torch.tensor(loss_g))


def make_reals(values: list[float], loss: float, penalty: float | None = None) -> Reals:
    shown = None if penalty is None else torch.tensor(penalty)
    return Reals(torch.tensor(values), torch.tensor(loss), shown)


def test_values_follow_one_another_and_losses_are_averaged():
    fakes = [make_fakes([1, 2], 1.0, 10.0), make_fakes([3, 4], 2.0, 30.0)]
    reals = [make_reals([5, 6], 3.0, 7.0), make_reals([7, 8], 6.0, 8.0)]
    real, fake, means = combine(fakes, reals)
    assert real.tolist() == [5, 6, 7, 8]
    assert fake.tolist() == [1, 2, 3, 4]
    assert means.tolist() == [4.5, 1.5, 20, 7.5]  # real, fake, L_G, penalty


def test_no_penalty_is_zero():
    assert combine([make_fakes([1], 2.0, 3.0)], [make_reals([1], 4.0)])[2].tolist() == [4, 2, 3, 0]


def test_processes_have_neighbouring_images_of_each_part(monkeypatch):
    """Part 0 is images 0 and 1 here and 2 and 3 there; part 1 is 4 and 5, 6 and 7."""
    monkeypatch.setattr(ranks, "size", lambda: 2)
    there = [2.0, 3, 6, 7, 12, 13, 14, 16, 17, 18, 2, 4, 6, 8]  # real, fake (3 a part), means
    monkeypatch.setattr(ranks, "gather", lambda here: torch.stack([here, torch.tensor(there)]))
    fakes = [make_fakes([9, 10, 11], 1.0, 2.0), make_fakes([13, 14, 15], 3.0, 4.0)]
    reals = [make_reals([0, 1], 5.0), make_reals([4, 5], 7.0)]
    real, fake, means = combine(fakes, reals)
    assert real.tolist() == [0, 1, 2, 3, 4, 5, 6, 7]
    assert fake.tolist() == [9, 10, 11, 12, 13, 14, 13, 14, 15, 16, 17, 18]
    assert means.tolist() == [(6 + 2) / 2, (2 + 4) / 2, (3 + 6) / 2, (0 + 8) / 2]

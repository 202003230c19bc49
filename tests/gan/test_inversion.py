import math

import numpy as np
import pytest
import torch
from torch import nn

from began_cli.gan import inversion, latents

DIM, SIDE = 6, 4


class Linear(nn.Module):
    """Images A z with orthonormal columns A, so that the nearest latents are known: A^T x."""

    def __init__(self) -> None:
        super().__init__()
        basis = torch.linalg.qr(torch.randn(SIDE * SIDE, DIM)).Q
        self.basis = nn.Parameter(basis)

    def forward(self, z):
        return (z @ self.basis.T).view(-1, 1, SIDE, SIDE)


@pytest.mark.parametrize("error", ["l1", "l2"])
def test_finds_the_latents_of_a_linear_generator(error):
    generator = Linear()
    wanted = latents.from_seeds(range(5), DIM)
    targets = generator(wanted).detach()
    starts = inversion.random_starts(3, 5, DIM)
    found = inversion.invert(generator, targets, starts, 400, 0.1, error)
    assert found.errors.shape == (3, 5)
    assert (found.latents - wanted).abs().max() < 0.02
    assert found.best.max() < 0.01


def test_latents_stay_in_the_cube_by_projection():
    """Of a target outside, the nearest point of the cube: A is orthonormal, so clamp(A^T x)."""
    generator = Linear()
    wanted = torch.tensor([[1.5, -2.0, 0.3, 0.9, -0.9, 3.0]])
    targets = generator(wanted).detach()
    starts = inversion.random_starts(2, 1, DIM)
    found = inversion.invert(generator, targets, starts, 400, 0.1, "l2")
    assert (found.latents - wanted.clamp(-1, 1)).abs().max() < 0.01
    assert found.latents.abs().max() <= 1


def test_the_search_compares_one_range_and_takes_steps():
    """Mistake: latent search compares 0-255 pixels with [-1, 1] output, and runs 0 steps."""
    generator = Linear()
    starts = inversion.random_starts(1, 1, DIM)
    pixels = torch.full((1, 1, SIDE, SIDE), 200, dtype=torch.uint8)
    with pytest.raises(TypeError, match="to_float"):
        inversion.invert(generator, pixels, starts, 10, 0.1, "l1")
    target = generator(latents.from_seeds([3], DIM)).detach()
    before = inversion.distance(generator(starts[0]), target, "l1").item()
    found = inversion.invert(generator, target, starts, 30, 0.1, "l1")
    assert found.steps == 30
    assert found.best.item() < before
    assert not torch.equal(found.latents, starts[0])


def test_distance_by_numpy():
    made, targets = torch.randn(3, 2, 4, 4), torch.randn(3, 2, 4, 4)
    apart = (made - targets).numpy().reshape(3, -1)
    l1, l2 = np.abs(apart).mean(1), (apart**2).mean(1)
    assert inversion.distance(made, targets, "l1").numpy() == pytest.approx(l1, rel=1e-5)
    assert inversion.distance(made, targets, "l2").numpy() == pytest.approx(l2, rel=1e-5)


def test_the_generator_is_left_as_it_was():
    """No gradient, no changed weight, no moved average of batch normalisation."""
    generator = nn.Sequential(nn.Linear(DIM, 8), nn.BatchNorm1d(8), nn.Linear(8, 16)).eval()
    generator.append(nn.Unflatten(1, (1, SIDE, SIDE)))
    before = {name: value.clone() for name, value in generator.state_dict().items()}
    starts = inversion.random_starts(2, 3, DIM)
    kept = starts.clone()
    inversion.invert(generator, torch.randn(3, 1, SIDE, SIDE), starts, 20, 0.1, "l1")
    assert all(torch.equal(before[name], value) for name, value in generator.state_dict().items())
    assert all(weight.grad is None for weight in generator.parameters())
    assert torch.equal(starts, kept)


def test_each_image_gets_its_own_best_start():
    """The first image's second start is its answer, the second image's first: no step moves it."""
    generator = Linear()
    wanted = latents.from_seeds([1, 2], DIM)
    starts = torch.stack(
        [torch.stack([-wanted[0], wanted[1]]), torch.stack([wanted[0], -wanted[1]])]
    )
    found = inversion.invert(generator, generator(wanted).detach(), starts, 1, 1e-9, "l2")
    assert (found.latents - wanted).abs().max() < 1e-6
    assert found.errors.argmin(dim=0).tolist() == [1, 0]
    assert torch.equal(found.best, found.errors.min(dim=0).values)


def test_it_ends_early_when_nothing_is_gained():
    flat = Linear()
    flat.basis.data.zero_()
    starts = inversion.random_starts(1, 2, DIM)
    found = inversion.invert(flat, torch.ones(2, 1, SIDE, SIDE), starts, 2000, 0.1, "l1")
    assert found.steps == inversion.CHECK_EVERY * (inversion.PATIENCE + 1)
    there = inversion.invert(flat, torch.zeros(2, 1, SIDE, SIDE), starts, 2000, 0.1, "l1")
    assert there.steps == inversion.CHECK_EVERY  # every pixel is right at the first look


def test_the_baseline_is_the_best_of_a_thousand_samples():
    generator = Linear()
    targets = generator(latents.from_seeds([8, 9], DIM)).detach()
    rng = torch.Generator().manual_seed(1)
    z = torch.empty(1001, DIM).uniform_(-1, 1, generator=rng)[1:].numpy()
    made = z @ generator.basis.detach().numpy().T
    expected = [np.abs(made - t.numpy().ravel()).mean(1).min() for t in targets]
    given = inversion.baseline(generator, targets, DIM, "l1")
    assert given.tolist() == pytest.approx(expected, rel=1e-4)


def test_a_search_never_sets_out_from_a_seeds_latents():
    starts = inversion.random_starts(4, 8, DIM).flatten(0, 1)
    named = latents.from_seeds(range(2000), DIM)
    assert torch.cdist(starts, named).min() > 1e-3
    assert starts.abs().max() <= 1
    assert math.isclose(starts.var().item(), 1 / 3, rel_tol=0.3)  # of U[-1, 1]

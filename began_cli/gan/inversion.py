"""Inversion: the latents whose images are nearest to given ones (1703.10717, section 4.3).

The paper finds z_r by Adam on |x_r - G(z_r)|. It names no rate, number of steps or start.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from began_cli.gan.latents import LatentStream

BASELINE = 1000  # random samples, the best of which an inversion has to beat
CHUNK = 250  # of them at a time
ENOUGH = 0.2 / 127.5  # a mean error of a fifth of a grey level: pixels round it away
CHECK_EVERY = 25  # steps between two checks of the errors
PATIENCE = 8  # checks without a gain of one part in a thousand before the search ends


class Inversion(NamedTuple):
    """The result of a search for N images."""

    latents: Tensor  # (N, latent_dim) in [-1, 1], from the best start of each image
    errors: Tensor  # (starts, N), the final error of each start
    steps: int  # taken

    @property
    def best(self) -> Tensor:
        """Final error from the best start of each image, (N,)."""
        return self.errors.min(dim=0).values


def distance(made: Tensor, targets: Tensor, error: str) -> Tensor:
    """Return the mean over pixels of |made - target| (l1), or of its square (l2), per image: (N,).

    Both are floats (N, C, H, W) in [-1, 1]. Raise TypeError for uint8 images: their range differs.
    """
    if torch.uint8 in (made.dtype, targets.dtype):
        raise TypeError("pixels 0..255 have no distance to images in [-1, 1]; see images.to_float")
    apart = made - targets
    return (apart.abs() if error == "l1" else apart.square()).flatten(1).mean(1)


def invert(
    generator: nn.Module,
    targets: Tensor,
    starts: Tensor,
    steps: int,
    lr: float,
    error: str,
    tell: Callable[[int, float], object] = lambda step, error: None,
) -> Inversion:
    """Find the latents whose images are nearest to `targets` (N, C, H, W) in [-1, 1].

    Adam starts from `starts` (R, N, latent_dim), all in one batch. Its rate falls from `lr` to 0
    along half a cosine; after each step the latents are clipped to [-1, 1]. The search ends early
    when every error is too small to see, or none falls any more. Now and then `tell` is given the
    step and the mean error of the best starts. Put the generator in evaluation mode before; its
    weights collect no gradients.
    """
    restarts = len(starts)
    wanted = targets.repeat(restarts, 1, 1, 1)
    z = starts.flatten(0, 1).clamp(-1, 1).requires_grad_()
    optimizer = torch.optim.Adam([z], lr=lr)
    enough = ENOUGH if error == "l1" else ENOUGH**2
    best, waited, step = math.inf, 0, 0
    for step in range(1, steps + 1):
        optimizer.param_groups[0]["lr"] = lr * 0.5 * (1 + math.cos(math.pi * (step - 1) / steps))
        errors = distance(generator(z), wanted, error)
        (z.grad,) = torch.autograd.grad(errors.sum(), z)
        optimizer.step()
        with torch.no_grad():
            z.clamp_(-1, 1)
        if step % CHECK_EVERY == 0:
            nearest = errors.detach().view(restarts, -1).min(dim=0).values
            total = nearest.sum().item()
            tell(step, total / len(targets))
            waited = 0 if total < 0.999 * best else waited + 1
            best = min(best, total)
            if waited >= PATIENCE or bool((nearest < enough).all()):
                break
    with torch.no_grad():
        errors = distance(generator(z), wanted, error).view(restarts, -1)
    found = z.detach().unflatten(0, (restarts, -1))
    nearest = errors.argmin(dim=0)
    return Inversion(found[nearest, torch.arange(len(targets), device=z.device)], errors, step)


def describe(errors: Tensor, baseline: float) -> str:
    """Describe the errors (starts,) of an image's search beside that of the best random sample."""
    best, worst = errors.min().item(), errors.max().item()
    text = (
        f"error {best:.4f}, {best / max(baseline, 1e-12):.0%} of the best of "
        f"{BASELINE:,} samples ({baseline:.4f})"
    )
    if len(errors) > 1:
        text += f"; over {len(errors)} starts {best:.4f} to {worst:.4f}"
    return text


def random_starts(restarts: int, n: int, dim: int) -> Tensor:
    """Return starts (restarts, n, dim), uniform in [-1, 1], on the CPU, the same every time."""
    return _draw_apart(0, restarts * n, dim).view(restarts, n, dim)


@torch.no_grad()
def baseline(generator: nn.Module, targets: Tensor, dim: int, error: str) -> Tensor:
    """Return each target's error to the nearest of 1,000 random samples, (N,): no search at all."""
    best = torch.full((len(targets),), math.inf, device=targets.device)
    for z in _draw_apart(1, BASELINE, dim).split(CHUNK):
        made = generator(z.to(targets.device))
        for i, target in enumerate(targets):
            nearest = distance(made, target.expand_as(made), error).min()
            best[i] = torch.minimum(best[i], nearest)
    return best


def _draw_apart(stream: int, n: int, dim: int) -> Tensor:
    """Return latents (n, dim) that no seed has: a search must not start at its answer.

    The latents of a seed are the first of its random stream, so the first are left out here.
    """
    return LatentStream(n + 1, dim, stream, torch.device("cpu"))()[1:]

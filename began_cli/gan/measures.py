"""What passes between the parts of a step, and what a step tells."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from began_cli import ranks
from began_cli.gan.losses import Reconstruction


@dataclass(slots=True)
class Measures:
    """What one step tells, on the device: scalars by name, and the value of each image (N,)."""

    scalars: dict[str, Tensor]
    real: Tensor
    fake: Tensor


class Criticism(NamedTuple):
    """What the discriminator says of images: a value each (N,), and its output."""

    values: Tensor
    output: Tensor | Reconstruction


class Fakes(NamedTuple):
    """One part's fakes, detached: images, values (N,), the fake part of L_D, L_G."""

    images: Tensor
    values: Tensor
    loss: Tensor
    loss_g: Tensor


class Reals(NamedTuple):
    """One part's real images, detached: values (N,), the real part of L_D, its penalty."""

    values: Tensor
    loss: Tensor
    penalty: Tensor | None


def put_together(fakes: list[Fakes], reals: list[Reals]) -> tuple[Tensor, Tensor, Tensor]:
    """The values of the step's real and fake images, everyone's, in the order of the batch, and
    the means of the losses' real part, fake part, L_G and penalty."""
    real = torch.stack([part.values for part in reals])
    fake = torch.stack([part.values for part in fakes])
    losses = [
        torch.stack([part.loss for part in reals]),
        torch.stack([part.loss for part in fakes]),
        torch.stack([part.loss_g for part in fakes]),
        torch.stack(
            [part.loss.new_zeros(()) if part.penalty is None else part.penalty for part in reals]
        ),
    ]
    means = torch.stack(losses).mean(1)
    if ranks.size() > 1:
        rows = ranks.gather(torch.cat([real.flatten(), fake.flatten(), means]))
        n = real.numel()
        real, fake, means = rows.split([n, fake.numel(), len(means)], 1)
        parts = len(reals)
        real, fake = (t.unflatten(1, (parts, -1)).transpose(0, 1) for t in (real, fake))
        means = means.mean(0)
    return real.flatten(), fake.flatten(), means

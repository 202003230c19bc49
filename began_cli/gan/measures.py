"""Values that pass between the parts of a step, and the measures of a step."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from began_cli import ranks
from began_cli.gan.losses import Reconstruction


@dataclass(slots=True)
class Measures:
    """Measures of one step, on the device: scalars by name, and one value an image, (N,)."""

    scalars: dict[str, Tensor]
    real: Tensor
    fake: Tensor


class Criticism(NamedTuple):
    """The discriminator's output for images, and the loss's value of each, (N,)."""

    values: Tensor
    output: Tensor | Reconstruction


class Fakes(NamedTuple):
    """The fakes of one part of a batch, detached, with the fake part of L_D and L_G."""

    images: Tensor
    values: Tensor
    loss: Tensor
    loss_g: Tensor


class Reals(NamedTuple):
    """The real images of one part of a batch: values (N,), the real part of L_D, its penalty."""

    values: Tensor
    loss: Tensor
    penalty: Tensor | None


def combine(fakes: list[Fakes], reals: list[Reals]) -> tuple[Tensor, Tensor, Tensor]:
    """Combine the parts of a step, and those of all processes, in the order of the batch.

    Return the values of the real images (N,), those of the fakes, and the means of the real part
    of L_D, its fake part, L_G and the penalty, (4,).
    """
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

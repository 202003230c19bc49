"""Find a margin for EBGAN on new data."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from began_cli.gan.losses import Ebgan


def find_margin(
    autoencoder: nn.Module,
    loss: Ebgan,
    optimizer: Optimizer,
    batches: Callable[[], Tensor],
    steps: int,
) -> float:
    """Train the autoencoder alone; return its mean energy over the last tenth of the steps.

    With that margin D raises the energy of a fake until it is that of a real image under a good D.
    `batches()` returns images (N, C, H, W) in [-1, 1].
    """
    counted = max(1, steps // 10)
    total = torch.zeros((), device=next(autoencoder.parameters()).device)
    for step in range(steps):
        x = batches()
        energy = loss.real(loss.values(autoencoder(x), x))
        optimizer.zero_grad()
        energy.backward()
        optimizer.step()
        if step >= steps - counted:
            total += energy.detach()
    return total.item() / counted

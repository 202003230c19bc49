"""Energies of images by an autoencoder critic, and the distance of their distributions."""

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, nn

from began_cli.gan.losses import Loss


@torch.no_grad()
def measure_energies(critic: nn.Module, loss: Loss, batches: Iterable[Tensor]) -> Tensor:
    """Return the energies (N,) of images, float64 on the CPU.

    `batches` are images in [-1, 1] on the critic's device.
    """
    energies = [loss.values(critic(batch), batch).double().cpu() for batch in batches]
    return torch.cat(energies)


def wasserstein(a: Tensor, b: Tensor) -> float:
    """Return the Wasserstein-1 distance of samples (N,) and (M,): the area between their CDFs."""
    a, b = a.double().sort().values, b.double().sort().values
    steps = torch.cat([a, b]).sort().values
    below_a = torch.searchsorted(a, steps[:-1], right=True) / len(a)
    below_b = torch.searchsorted(b, steps[:-1], right=True) / len(b)
    return ((below_a - below_b).abs() * steps.diff()).sum().item()


def draw_energies(real: Tensor, fake: Tensor, distance: float, loss: str, path: Path) -> None:
    """Draw the histograms of real and generated images' energies over the same bins, as a PNG."""
    from matplotlib.figure import Figure  # slow to import, and nothing else here needs it

    figure = Figure(figsize=(6, 3.5), dpi=100, layout="constrained")
    axes = figure.subplots()
    bins = torch.histogram(torch.cat([real, fake]), bins=40).bin_edges.tolist()
    for energies, name, colour in ((real, "real", "#e67800"), (fake, "generated", "#2060b0")):
        label = f"{len(energies):,} {name}, mean {energies.mean():.4g}"
        axes.hist(energies.tolist(), bins, density=True, alpha=0.55, color=colour, label=label)
    axes.set_xlabel(f"energy of an image (loss={loss})")
    axes.set_ylabel("density")
    axes.set_title(f"Wasserstein-1 distance {distance:.4g}")
    axes.legend()
    figure.savefig(path, format="png")

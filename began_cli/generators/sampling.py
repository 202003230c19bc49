"""Sample images from a trained generator."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from began_cli import images
from began_cli.gan import latents

CHUNK = 64  # images at a time


@torch.no_grad()
def generate(network: nn.Module, z: Tensor) -> Iterator[Tensor]:
    """Yield the images of latents z (N, latent_dim), chunk by chunk: uint8 (≤ 64, C, H, W), CPU.

    Every pass has CHUNK rows, the last one padded with zeros: the arithmetic, and so every pixel of
    an image, does not depend on how many images are asked for.
    """
    device = next(network.parameters()).device
    for rows in z.split(CHUNK):
        full = torch.zeros(CHUNK, z.shape[1])
        full[: len(rows)] = rows
        yield images.to_uint8(network(full.to(device)))[: len(rows)].cpu()


def generate_all(network: nn.Module, z: Tensor) -> Tensor:
    """Return the images of latents z (N, latent_dim): uint8 (N, C, H, W) on the CPU."""
    return torch.cat(list(generate(network, z)))


def find_strongest(network: nn.Module, z: Tensor, n: int) -> list[int]:
    """Return the n axes of the latent z that change its image most, the strongest first.

    An axis is moved from -1 to 1; the change is the mean over all pixels.
    """
    walk = latents.traverse(z, range(len(z)), 2)
    low, high = generate_all(network, walk.flatten(0, 1)).float().chunk(2)
    change = (high - low).abs().flatten(1).mean(1)
    return change.argsort(descending=True, stable=True)[:n].tolist()

"""Latents z ~ U[-1, 1]^latent_dim, and ways between them."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from began_cli import ranks
from began_cli.block import Block

# Drawn ahead for another device than the CPU, at most: batches, and single numbers.
BLOCK_DRAWS, BLOCK_NUMBERS = 256, 2**20


class LatentStream:
    """A seeded stream of latents on the device; each call returns (n, dim).

    They are drawn on the CPU, so that they are the same on any device. With several processes each
    gets an equal share of every one of the `parts` of a batch.
    """

    def __init__(self, n: int, dim: int, seed: int, device: torch.device, parts: int = 1) -> None:
        self.shape, self.device, self.parts = (n, dim), device, parts
        self.generator = torch.Generator().manual_seed(seed)
        self._block = None if device.type == "cpu" else self._new_block()

    def __call__(self) -> Tensor:
        (z,) = self._draw() if self._block is None else self._block()
        return z

    def _draw(self) -> tuple[Tensor]:
        z = torch.empty(self.shape).uniform_(-1, 1, generator=self.generator)
        return (ranks.share(z, self.parts),)

    def _new_block(self) -> Block:
        draws = min(BLOCK_DRAWS, max(1, BLOCK_NUMBERS // math.prod(self.shape)))
        return Block(self._draw, self.generator.get_state, self.device, draws)

    def fix(self, count: int) -> None:
        """From now on, draw as a captured step does, `count` times a step; see `Block.fix`."""
        self._block = self._block or self._new_block()
        self._block.fix(count)

    def prepare(self, count: int) -> None:
        """Get ready for the `count` draws of a captured step."""
        assert self._block is not None
        self._block.reserve(count)

    def skip(self, count: int) -> None:
        """Note that a replayed graph has drawn `count` times."""
        assert self._block is not None
        self._block.skip(count)

    def state_dict(self) -> dict[str, Tensor]:
        state = self.generator.get_state() if self._block is None else self._block.state
        return {"generator": state}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.generator.set_state(state["generator"].cpu())
        if self._block is not None:
            self._block.forget()


def from_seeds(seeds: Sequence[int], dim: int) -> Tensor:
    """Return latents (len(seeds), dim) on the CPU; each row depends on its own seed alone."""
    rows = [torch.rand(dim, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return torch.stack(rows) * 2 - 1


def lerp(a: Tensor, b: Tensor, steps: int, ease: bool = False) -> Tensor:
    """Return the straight line from a to b, both (…, dim): (steps, …, dim), its ends exactly a, b.

    With `ease` the steps are smaller near the ends.
    """
    return torch.stack([torch.lerp(a, b, t) for t in _times(steps, ease)])


def slerp(a: Tensor, b: Tensor, steps: int, ease: bool = False) -> Tensor:
    """Return the great circle from a to b, (…, dim); the norm goes linearly from |a| to |b|."""
    norm_a, norm_b = a.norm(dim=-1, keepdim=True), b.norm(dim=-1, keepdim=True)
    unit_a, unit_b = a / norm_a.clamp(min=1e-12), b / norm_b.clamp(min=1e-12)
    angle = torch.acos((unit_a * unit_b).sum(-1, keepdim=True).clamp(-1, 1))
    path = []
    for t in _times(steps, ease):
        turned = (torch.sin((1 - t) * angle) * unit_a + torch.sin(t * angle) * unit_b) / torch.sin(
            angle
        )
        # Nearly parallel latents: the great circle is the line.
        unit = torch.where(torch.sin(angle) < 1e-4, torch.lerp(unit_a, unit_b, t), turned)
        path.append(unit * torch.lerp(norm_a, norm_b, t))
    path[0], path[-1] = a, b
    return torch.stack(path)


def traverse(z: Tensor, axes: Sequence[int], steps: int, ease: bool = False) -> Tensor:
    """Return walks of z (dim,) along single axes from -1 to 1: (steps, len(axes), dim)."""
    path = z.expand(steps, len(axes), -1).clone()
    for row, axis in enumerate(axes):
        path[:, row, axis] = torch.tensor(_times(steps, ease)) * 2 - 1
    return path


def _times(steps: int, ease: bool) -> list[float]:
    """Return `steps` times from 0 to 1: evenly spaced, or along 3t^2 - 2t^3 with `ease`."""
    t = torch.linspace(0, 1, steps)
    return (t * t * (3 - 2 * t) if ease else t).tolist()

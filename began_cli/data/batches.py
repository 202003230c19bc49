"""A seeded stream of batches to the device."""

import torch
from torch import Tensor

from began_cli.images import to_float


class Batches:
    """Calls give (batch_size, C, H, W) in [-1, 1] on `device`, shuffled without replacement.

    The order of epoch e depends on the seed and e alone, so a position is two numbers. Batches run
    on across the end of an epoch. There is no per-image work: one gather, one scaling.
    """

    def __init__(self, images: Tensor, batch_size: int, seed: int, device: torch.device) -> None:
        self.images, self.batch_size, self.seed, self.device = images, batch_size, seed, device
        self.epoch, self.position = 0, 0
        self._order = self._shuffled(0)

    def __call__(self) -> Tensor:
        n = len(self.images)
        taken = self._order[self.position : self.position + self.batch_size]
        self.position += self.batch_size
        while self.position >= n:
            self.position -= n
            self.epoch += 1
            self._order = self._shuffled(self.epoch)
            missing = self.batch_size - len(taken)
            taken = torch.cat([taken, self._order[:missing]]) if missing else taken
        batch = self.images.index_select(0, taken)
        if batch.device != self.device:
            batch = batch.pin_memory() if self.device.type == "cuda" else batch
            batch = batch.to(self.device, non_blocking=True)
        return to_float(batch)

    def _shuffled(self, epoch: int) -> Tensor:
        generator = torch.Generator().manual_seed(hash_seed(self.seed, epoch))
        order = torch.randperm(len(self.images), generator=generator)
        return order.to(self.images.device, non_blocking=True)

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.epoch, self.position = state["epoch"], state["position"]
        self._order = self._shuffled(self.epoch)


def hash_seed(seed: int, n: int) -> int:
    """A 63-bit seed for the n-th part of what `seed` starts (splitmix64's finaliser)."""
    z = (seed * 0x9E3779B97F4A7C15 + n + 1) * 0x9E3779B97F4A7C15 % 2**64
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
    return (z ^ z >> 31) >> 1

"""A seeded stream of batches to the device."""

from collections.abc import Callable

import torch
from torch import Tensor

from began_cli import ranks
from began_cli.images import to_float

# Images gathered between two calls of `forget`; the system may map 2 MiB around each.
FORGET_EVERY = 128


class Batches:
    """Each call returns (batch_size, C, H, W) in [-1, 1] on `device`, without replacement.

    The order of epoch e, and with `flip` which images are mirrored left to right, depend on the
    seed and e alone, so that a position is two numbers. Batches run on across the end of an epoch.
    There is no work per image: one gather, one scaling. Images in main memory reach a GPU through
    two pinned buffers; the next batch is copied while one is in use. With several processes each
    gets an equal share of every one of the `parts` of a batch.
    """

    def __init__(
        self,
        images: Tensor,
        batch_size: int,
        seed: int,
        device: torch.device,
        flip: bool = False,
        forget: Callable[[], None] | None = None,
        parts: int = 1,
    ) -> None:
        """`batch_size` counts the images of all processes. `forget` releases the pages of
        memory-mapped images; it is called now and then."""
        self.images, self.batch_size, self.seed, self.device = images, batch_size, seed, device
        self.flip, self.forget, self._gathered, self.parts = flip, forget, 0, parts
        self.epoch, self.position = 0, 0
        self._order, self._mirrored = self._shuffled(0)
        self._ahead: Ahead | None = None
        if images.device != device:
            self._ahead = Ahead(images, batch_size // ranks.size(), device)
        self._next: tuple[Tensor, Tensor | None] | None = None
        self._given = (0, 0)  # epoch and position after the last batch returned

    def __call__(self) -> Tensor:
        if self._ahead is None:
            taken, mirrored = self._take()
            batch = self.images.index_select(0, taken)
            self._given = (self.epoch, self.position)
        else:
            batch, mirrored = self._next or self._fetch(self._ahead)
            self._given = (self.epoch, self.position)
            batch = self._ahead.ready(batch)
            self._next = self._fetch(self._ahead)
        return self._finished(batch, mirrored)

    def _fetch(self, ahead: "Ahead") -> tuple[Tensor, Tensor | None]:
        """Start to copy the next batch, and which of its images to mirror."""
        taken, mirrored = self._take()
        mirrored = None if mirrored is None else mirrored.to(self.device, non_blocking=True)
        return ahead.start(taken), mirrored

    def _take(self) -> tuple[Tensor, Tensor | None]:
        """Return the rows of the next batch's images, and which of them to mirror."""
        n, wanted = len(self.images), self.batch_size
        parts = []
        while wanted:
            taken = slice(self.position, self.position + wanted)
            parts.append((self._order[taken], self._mirrored[taken] if self.flip else None))
            done = len(parts[-1][0])
            wanted -= done
            self.position += done
            if self.position == n:
                self.position, self.epoch = 0, self.epoch + 1
                self._order, self._mirrored = self._shuffled(self.epoch)
        order = parts[0][0] if len(parts) == 1 else torch.cat([part[0] for part in parts])
        mirrored = [part[1] for part in parts if part[1] is not None]
        taken = ranks.share(order, self.parts)
        return taken, ranks.share(torch.cat(mirrored), self.parts) if mirrored else None

    def _finished(self, batch: Tensor, mirrored: Tensor | None) -> Tensor:
        self._gathered += len(batch)
        if self.forget is not None and self._gathered >= FORGET_EVERY:
            self.forget()
            self._gathered = 0
        if mirrored is not None:
            batch = torch.where(mirrored.view(-1, 1, 1, 1), batch.flip(3), batch)
        return to_float(batch)

    def _shuffled(self, epoch: int) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(hash_seed(self.seed, epoch))
        n, held = len(self.images), self.images.device
        order = torch.randperm(n, generator=generator)
        mirrored = torch.randint(2, (n,), generator=generator).bool()
        return order.to(held, non_blocking=True), mirrored.to(held, non_blocking=True)

    def state_dict(self) -> dict[str, int]:
        """Return the position after the last batch returned, not that of one fetched ahead."""
        return {"epoch": self._given[0], "position": self._given[1]}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self._given = self.epoch, self.position = state["epoch"], state["position"]
        self._order, self._mirrored = self._shuffled(self.epoch)
        self._next = None


class Ahead:
    """Gather images in main memory, and copy them to the device while it works.

    Two pinned buffers take turns: one is filled while the other is copied.
    """

    def __init__(self, images: Tensor, batch_size: int, device: torch.device) -> None:
        self.images, self.device = images, device
        cuda = device.type == "cuda"
        shape = (batch_size, *images.shape[1:])
        self.buffers = [torch.empty(shape, dtype=images.dtype, pin_memory=cuda) for _ in range(2)]
        self.stream = torch.cuda.Stream(device) if cuda else None
        self.copied = [torch.cuda.Event() for _ in range(2)] if cuda else []
        self.turn = 0

    def start(self, taken: Tensor) -> Tensor:
        """Start to copy the images of these rows; the result may be used after `ready`."""
        i = self.turn = 1 - self.turn
        if self.stream is None:
            torch.index_select(self.images, 0, taken, out=self.buffers[i])
            return self.buffers[i].to(self.device)
        self.copied[i].synchronize()  # the copy before last: long done
        torch.index_select(self.images, 0, taken, out=self.buffers[i])
        with torch.cuda.stream(self.stream):
            batch = self.buffers[i].to(self.device, non_blocking=True)
            self.copied[i].record(self.stream)
        return batch

    def ready(self, batch: Tensor) -> Tensor:
        """Return the batch, safe to use on the current stream."""
        if self.stream is not None:
            current = torch.cuda.current_stream(self.device)
            current.wait_stream(self.stream)
            batch.record_stream(current)
        return batch


def hash_seed(seed: int, n: int) -> int:
    """Return a 63-bit seed for the n-th use of `seed` (splitmix64's finaliser)."""
    z = (seed * 0x9E3779B97F4A7C15 + n + 1) * 0x9E3779B97F4A7C15 % 2**64
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
    return (z ^ z >> 31) >> 1

"""A seeded stream of batches to the device."""

from collections.abc import Callable

import torch
from torch import Tensor

from began_cli import ranks
from began_cli.block import Block, pinned
from began_cli.images import to_float

Taken = tuple[Tensor, Tensor | None]  # images of a batch, and which of them to mirror
BLOCK_DRAWS = 256  # batches whose images are chosen ahead for another device than the CPU

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
        self._next: Taken | None = None
        self._given = (0, 0)  # epoch and position after the last batch returned
        resident = self._ahead is None and device.type != "cpu"
        self._block = self._new_block() if resident else None
        self._inputs: list[Taken] = []  # copied ahead for a captured step
        self._used = 0  # of them, in this step

    def __call__(self) -> Tensor:
        if self._inputs:
            batch, mirrored = self._inputs[self._used]
            self._used += 1
        elif self._ahead is not None:
            batch, mirrored = self._arrived(self._ahead)
            self._next = self._fetch(self._ahead)
        else:
            taken, *flips = self._take() if self._block is None else self._block()
            self._given = (self.epoch, self.position)
            batch, mirrored = self.images.index_select(0, taken), flips[0] if flips else None
            self._let_go()
        return self._finished(batch, mirrored)

    def _arrived(self, ahead: "Ahead") -> "Taken":
        """Return the next batch, copied to the device, and which of its images to mirror."""
        batch, mirrored = self._next or self._fetch(ahead)
        self._next, self._given = None, (self.epoch, self.position)
        self._let_go()
        return ahead.ready(batch), mirrored

    def _fetch(self, ahead: "Ahead") -> "Taken":
        """Start to copy the next batch, and which of its images to mirror."""
        taken, *flips = self._take()
        mirrored = None
        if flips:
            mirrored = pinned(flips[0], self.device).to(self.device, non_blocking=True)
        return ahead.start(taken), mirrored

    def _new_block(self) -> Block:
        return Block(self._take, lambda: (self.epoch, self.position), self.device, BLOCK_DRAWS)

    def fix(self, count: int) -> None:
        """From now on, return batches as a captured step needs them, `count` a step.

        Those of resident images are gathered in the step; see `Block.fix`. Others are copied to the
        same `count` places before it.
        """
        if self._ahead is None:
            self._block = self._block or self._new_block()
            self._block.fix(count)
            return
        self._inputs = []
        n, shape = self.batch_size // ranks.size(), self.images.shape[1:]
        for _ in range(count):
            batch = torch.empty(n, *shape, dtype=self.images.dtype, device=self.device)
            mirrored = batch.new_empty(n, dtype=torch.bool) if self.flip else None
            self._inputs.append((batch, mirrored))

    def prepare(self, count: int) -> None:
        """Get the `count` batches of a captured step ready."""
        if self._ahead is None:
            assert self._block is not None
            self._block.reserve(count)
            return
        self._used = 0
        for place in self._inputs:
            for held, new in zip(place, self._arrived(self._ahead), strict=True):
                if held is not None and new is not None:
                    held.copy_(new)

    def skip(self, count: int) -> None:
        """Note that a replayed graph has taken `count` batches."""
        if self._ahead is None:
            assert self._block is not None
            self._block.skip(count)
        else:
            self._next = self._fetch(self._ahead)  # while the device works

    def _take(self) -> tuple[Tensor, ...]:
        """Return the rows of the next batch's images, and with `flip` which of them to mirror."""
        n, wanted = len(self.images), self.batch_size
        parts = []
        while wanted:
            taken = slice(self.position, self.position + wanted)
            parts.append([self._order[taken]] + ([self._mirrored[taken]] if self.flip else []))
            done = len(parts[-1][0])
            wanted -= done
            self.position += done
            if self.position == n:
                self.position, self.epoch = 0, self.epoch + 1
                self._order, self._mirrored = self._shuffled(self.epoch)
        whole = parts[0] if len(parts) == 1 else map(torch.cat, zip(*parts, strict=True))
        return tuple(ranks.share(each, self.parts) for each in whole)

    def _finished(self, batch: Tensor, mirrored: Tensor | None) -> Tensor:
        if mirrored is not None:
            batch = torch.where(mirrored.view(-1, 1, 1, 1), batch.flip(3), batch)
        return to_float(batch)

    def _let_go(self) -> None:
        """Release the pages of the images gathered, now and then."""
        self._gathered += self.batch_size // ranks.size()
        if self.forget is not None and self._gathered >= FORGET_EVERY:
            self.forget()
            self._gathered = 0

    def _shuffled(self, epoch: int) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(hash_seed(self.seed, epoch))
        n = len(self.images)
        order = torch.randperm(n, generator=generator)
        return order, torch.randint(2, (n,), generator=generator).bool()

    def state_dict(self) -> dict[str, int]:
        """Return the position after the last batch returned, not that of one fetched ahead."""
        epoch, position = self._given if self._block is None else self._block.state
        return {"epoch": epoch, "position": position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self._given = self.epoch, self.position = state["epoch"], state["position"]
        self._order, self._mirrored = self._shuffled(self.epoch)
        self._next = None
        if self._block is not None:
            self._block.forget()


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

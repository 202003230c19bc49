"""A stream's next draws, made on the CPU many at a time, and held on the device.

The numbers are those of one draw after another: the same on any device.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class Block:
    """Each call returns the tensors of the next draw, on the device.

    A step that is captured in a CUDA graph reads at the same addresses each time. After `fix` the
    place of the next draw is therefore a number on the device, and before each step `reserve` must
    be called.
    """

    def __init__(
        self,
        draw: Callable[[], tuple[Tensor, ...]],
        state: Callable[[], Any],
        device: torch.device,
        draws: int,
    ) -> None:
        """`draw()` makes the next draw on the CPU, and `state()` returns what the stream would then
        save. `draws` are held at a time."""
        self._draw, self._state, self.device, self.draws = draw, state, device, draws
        self.fixed = False
        self._index = torch.zeros(1, dtype=torch.int64, device=device)
        self._held: list[Tensor] = []  # each (draws, …)
        self.forget()

    def __call__(self) -> list[Tensor]:
        if self.fixed:
            drawn = [held.index_select(0, self._index).squeeze(0) for held in self._held]
            self._index.add_(1)
        else:
            self.reserve(1)
            drawn = [held[self._taken] for held in self._held]
        self._taken += 1
        return drawn

    def reserve(self, count: int) -> None:
        """Draw, if need be, so that `count` draws can be taken."""
        if self._taken + count <= len(self._drawn):
            return
        del self._drawn[: self._taken], self._states[: self._taken]
        self._taken = 0
        while len(self._drawn) < max(self.draws, count):
            self._drawn.append(self._draw())
            self._states.append(self._state())
        new = [pinned(torch.stack(each), self.device) for each in zip(*self._drawn, strict=True)]
        if not self.fixed or [t.shape for t in new] != [t.shape for t in self._held]:
            self._held = [torch.empty_like(each, device=self.device) for each in new]
        for held, each in zip(self._held, new, strict=True):
            held.copy_(each, non_blocking=True)
        self._index.zero_()

    def fix(self, count: int) -> None:
        """From now on, read where a captured step does; `count` draws a step, 0 to end that."""
        self.draws, self.fixed = max(self.draws, count), count > 0
        self._index.fill_(self._taken)

    def skip(self, count: int) -> None:
        """Note that a replayed graph has taken `count` draws."""
        self._taken += count

    def forget(self) -> None:
        """Drop what was drawn ahead, after the stream was put elsewhere."""
        self._drawn: list[tuple[Tensor, ...]] = []
        self._states, self._taken = [self._state()], 0

    @property
    def state(self) -> Any:
        """The state of the stream after the last draw that was taken."""
        return self._states[self._taken]


def pinned(host: Tensor, device: torch.device) -> Tensor:
    """Return a tensor in pinned memory if the device is a GPU, which then copies it by itself."""
    return host.pin_memory() if device.type == "cuda" else host

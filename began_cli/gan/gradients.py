"""Gradients of one step, summed over the processes at its end."""

import torch
import torch.distributed as dist
from torch import Tensor

from began_cli import ranks


class Gradients:
    """The gradients of some weights.

    With several processes they are views into one flat buffer, which is summed over the processes
    after the last backward pass: each process divides its loss by their number. docs/scaling.md
    estimates what sending them in buckets during the pass would gain.
    """

    def __init__(self, weights: list[Tensor]) -> None:
        self.weights = weights
        self.keep = False
        self._flat: Tensor | None = None
        self._views: list[Tensor] = []
        if ranks.size() > 1:
            self._flat = weights[0].new_zeros(sum(weight.numel() for weight in weights))
            offset = 0
            for weight in weights:
                self._views.append(self._flat.as_strided(weight.size(), weight.stride(), offset))
                offset += weight.numel()

    def keep_in_place(self, keep: bool) -> None:
        """Keep the gradients where they are in memory, as CUDA graphs need it, or stop to.

        They are allocated now: one that a graph's backward pass made would be in that graph's
        memory, which the next pass overwrites.
        """
        self.keep = keep
        if keep and self._flat is None:
            for weight in self.weights:
                weight.grad = torch.zeros_like(weight)

    def clear(self) -> None:
        """Set the gradients to zero or None before a step."""
        if self._flat is not None:
            self._flat.zero_()
            for weight, view in zip(self.weights, self._views, strict=True):
                weight.grad = view
            return
        if self.keep:
            torch._foreach_zero_([w.grad for w in self.weights if w.grad is not None])
            return
        for weight in self.weights:
            weight.grad = None

    def scale(self, factor: Tensor) -> None:
        """Multiply the gradients of the passes so far by a factor."""
        torch._foreach_mul_([w.grad for w in self.weights if w.grad is not None], factor)

    def sum_over_processes(self) -> None:
        """Replace the gradients by their sums over all processes, after the last backward pass."""
        if self._flat is not None:
            dist.all_reduce(self._flat)

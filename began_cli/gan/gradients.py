"""A network's gradients over a step; with several processes, summed over them on the way."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from began_cli import ranks

BUCKET = 25 * 2**20  # bytes that are summed over the processes at once


class Gradients:
    """Gradients of some weights. With one process it only clears them.

    With several each weight's gradient is a view into one of few large buckets. While the last
    backward pass of a step runs, a bucket is sent off as soon as its gradients are complete;
    each process's loss must be divided by their number, for what comes back is the sum.
    """

    def __init__(self, weights: list[Tensor]) -> None:
        self.weights, self.keep = weights, False  # keep: they stay where they are in memory
        self._buckets: list[Tensor] = []
        self._members: list[int] = []  # weights in each bucket
        self._waiting: list[int] = []  # those of them that are without their last gradient
        self._sent: list[Any] = []
        self._last = False
        self._views: list[Tensor] = []
        if ranks.size() > 1:
            self._make_buckets()

    def clear(self) -> None:
        """Before a step."""
        if self._buckets:
            torch._foreach_zero_(self._buckets)
            for weight, view in zip(self.weights, self._views, strict=True):
                weight.grad = view
            return
        kept = [weight.grad for weight in self.weights if weight.grad is not None]
        if self.keep and kept:
            torch._foreach_zero_(kept)
            return
        for weight in self.weights:
            weight.grad = None

    def scale(self, factor: Tensor) -> None:
        """Multiplies what there is so far."""
        torch._foreach_mul_([w.grad for w in self.weights if w.grad is not None], factor)

    def last_pass(self) -> None:
        """The backward pass that comes is the last of the step."""
        self._last = bool(self._buckets)

    def complete(self) -> None:
        """Waits, in the device's order, until every gradient is everyone's sum."""
        self._last = False
        while len(self._sent) < len(self._buckets):  # with weights that the last pass left out
            self._send()
        for work in self._sent:
            work.wait()
        self._sent = []
        self._waiting = list(self._members)

    def _make_buckets(self) -> None:
        """Fills buckets from the last weight on, as the backward pass does."""
        which: list[list[int]] = [[]]
        full = 0
        for i in reversed(range(len(self.weights))):
            if full >= BUCKET or (which[-1] and not _alike(self.weights[i], self.weights[i + 1])):
                which.append([])
                full = 0
            which[-1].append(i)
            full += self.weights[i].nbytes
        views: dict[int, Tensor] = {}
        for number, members in enumerate(which):
            like = self.weights[members[0]]
            total = sum(self.weights[i].numel() for i in members)
            bucket = torch.zeros(total, dtype=like.dtype, device=like.device)
            at = 0
            for i in members:
                weight = self.weights[i]
                views[i] = bucket.as_strided(weight.size(), weight.stride(), at)
                at += weight.numel()
                weight.register_post_accumulate_grad_hook(lambda _, n=number: self._arrived(n))
            self._buckets.append(bucket)
        self._views = [views[i] for i in range(len(self.weights))]
        self._members = [len(members) for members in which]
        self._waiting = list(self._members)

    def _arrived(self, number: int) -> None:
        """A weight of a bucket has its gradient; full buckets go off in everyone's same order."""
        if not self._last:
            return
        self._waiting[number] -= 1
        while len(self._sent) < len(self._buckets) and self._waiting[len(self._sent)] == 0:
            self._send()

    def _send(self) -> None:
        self._sent.append(dist.all_reduce(self._buckets[len(self._sent)], async_op=True))


def _alike(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and a.device == b.device

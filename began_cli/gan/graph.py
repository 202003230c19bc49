"""The whole step as one CUDA graph, which one launch replays.

What is captured is the step as it is, `Update.take`, on batches, latents and rates that lie at
fixed addresses on the device.
"""

from typing import Any, Protocol

import torch
from torch import Tensor

from began_cli.gan.measures import Measures
from began_cli.gan.update import Update

STEPS = 3  # that are taken both ways before a captured step is used
TOLERANCE = 0.02  # of the way that the weights go in these steps


class Stream(Protocol):
    """A stream of batches or of latents that a captured step can draw from."""

    def __call__(self) -> Tensor: ...
    def fix(self, count: int) -> None: ...
    def prepare(self, count: int) -> None: ...
    def skip(self, count: int) -> None: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: Any) -> None: ...


class FixedStep:
    """`Update.take` on fixed addresses; once it is captured, replayed from the CUDA graph."""

    def __init__(self, update: Update, batches: Stream, latents: Stream) -> None:
        """Make the step and both streams use fixed addresses from now on."""
        self.update, self.streams, self.counts = update, (batches, latents), update.draws
        self.graph: torch.cuda.CUDAGraph | None = None
        self.measures: Measures | None = None
        for stream, count in zip(self.streams, self.counts, strict=True):
            stream.fix(count)
        update.fix(self)

    def __call__(self) -> Measures:
        self.prepare()
        if self.graph is None or self.measures is None:
            return self.update.take(*self.streams)
        self.graph.replay()
        for stream, count in zip(self.streams, self.counts, strict=True):
            stream.skip(count)
        return self.measures

    def prepare(self) -> None:
        """Get both streams ready for a step."""
        for stream, count in zip(self.streams, self.counts, strict=True):
            stream.prepare(count)

    def end(self) -> None:
        """Make the step and both streams as they were before."""
        self.update.fix(None)
        for stream in self.streams:
            stream.fix(0)

    def capture(self, stream: torch.cuda.Stream) -> None:
        """Capture a step on this stream, which is not taken. Some must have been taken on it."""
        self.prepare()
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, stream=stream):
                self.measures = self.update.take(*self.streams)
        except RuntimeError as error:  # where it ends; why it broke off was raised before
            raise error.__context__ or error from None
        self.graph = graph


def capture(update: Update, batches: Stream, latents: Stream) -> float:
    """Make `update` replay its step from a CUDA graph, if that takes the same steps.

    Some steps are taken one operator after another, and again by the graph from the same state,
    which is restored at the end. Return the `distance` of both. Raise RuntimeError if it is more
    than TOLERANCE, or whatever the capture raises; the step is then as before.
    """
    device = next(update.generator.parameters()).device
    with torch.cuda.device(device):
        start = Snapshot(update, batches, latents)
        step = FixedStep(update, batches, latents)
        try:
            side = torch.cuda.Stream()  # a capture cannot be on the default one
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                measures = [update(batches, latents) for _ in range(STEPS)][-1]
            torch.cuda.current_stream().wait_stream(side)
            eager = Snapshot(update, batches, latents, measures)
            start.restore()
            step.capture(side)
            start.restore()
            measures = [update(batches, latents) for _ in range(STEPS)][-1]
            gap = distance(start, eager, Snapshot(update, batches, latents, measures))
            if not gap <= TOLERANCE:
                raise RuntimeError(f"{STEPS} captured steps differ from eager ones by {gap:.1%}")
            start.restore()
        except Exception:
            step.end()
            start.restore()
            raise
        return gap


class Snapshot:
    """Everything that a step changes, as it is now, and the measures of the last step."""

    def __init__(
        self, update: Update, batches: Stream, latents: Stream, measures: Measures | None = None
    ) -> None:
        self.update, self.streams = update, (batches, latents)
        tensors = state_tensors(update)
        self.values = {id(tensor): (tensor, tensor.detach().clone()) for tensor in tensors}
        self.step, self.scaler = update.step, update.scaler.state_dict()
        self.positions = [stream.state_dict() for stream in self.streams]
        self.random = torch.cuda.get_rng_state() if tensors[0].is_cuda else None
        scalars = list(measures.scalars.values()) if measures else [torch.zeros(())]
        self.scalars = torch.stack(scalars).float()

    @torch.no_grad()
    def restore(self) -> None:
        """Make everything as it was; state that the optimizers have made since is set to zero."""
        for tensor in state_tensors(self.update):
            if id(tensor) in self.values:
                tensor.copy_(self.values[id(tensor)][1])
            else:
                tensor.zero_()
        self.update.step = self.step
        if self.scaler:
            self.update.scaler.load_state_dict(self.scaler)
        for stream, position in zip(self.streams, self.positions, strict=True):
            stream.load_state_dict(position)
        if self.random is not None:
            torch.cuda.set_rng_state(self.random)


def distance(start: Snapshot, a: Snapshot, b: Snapshot) -> float:
    """Return how far two states are apart that both come from `start`.

    It is 0 only if both are equal bit for bit. Otherwise it is the distance between the weights as
    a share of the way from `start`, of the network where it is larger, or the greatest relative
    difference of a measure, if that is more.
    """
    if torch.equal(a.scalars, b.scalars) and all(
        torch.equal(value, b.values[key][1]) for key, (_, value) in a.values.items()
    ):
        return 0.0
    shares = [((a.scalars - b.scalars).abs() / a.scalars.abs().clamp(min=0.1)).max()]
    for network in (start.update.generator, start.update.discriminator):
        apart, way = [], []
        for weight in network.parameters():
            first, one, other = (each.values[id(weight)][1] for each in (start, a, b))
            apart.append((one - other).norm())
            way.append((one - first).norm())
        shares.append(torch.stack(apart).norm() / torch.stack(way).norm())
    return float(torch.stack(shares).max())


def state_tensors(update: Update) -> list[Tensor]:
    """Return the tensors that a step changes: weights, buffers, and the optimizers' state."""
    modules = (update.generator, update.ema, update.discriminator, update.loss)
    tensors = [tensor for module in modules for tensor in (*module.parameters(), *module.buffers())]
    for optimizer in (update.optimizer_g, update.optimizer_d):
        for slots in optimizer.state.values():
            tensors += [value for value in slots.values() if isinstance(value, Tensor)]
    return tensors

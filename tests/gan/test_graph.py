"""What is captured in a CUDA graph, run on the CPU without one. tests/nullgpu captures it."""

import copy

import pytest
import torch
from conftest import TINY, settings

from began_cli.data.sources import Source
from began_cli.gan import graph
from began_cli.training.setup import build_parts, seed_everything

CPU = torch.device("cpu")
# In single precision as on the host: the rates are read from the device in that.
RATES = ("optimizer.lr_g=0.0078125", "optimizer.lr_d=0.00390625")


def parts(*line: str):
    cfg = settings("train", *TINY, *line)
    seed_everything(0)
    pixels = torch.randint(0, 256, (10, *cfg.dataset.image_shape), dtype=torch.uint8)
    return build_parts(cfg, Source(pixels, "noise"), CPU)


def state(update) -> list[torch.Tensor]:
    return [tensor.detach().clone() for tensor in graph.state_tensors(update)]


@pytest.mark.parametrize(
    "line",
    [
        "loss=began dataset.flip=true",
        "loss=began_paper loss.separate_latents=true model.residual=true accumulate=2",
        "loss=bgan loss.log_z=true precision=bf16",
        "loss=bgan_discrete model=mlp model.dropout=0.5",
        "loss=ebgan_pt optimizer=adamw optimizer.weight_decay=0.1",
        "loss=wgan_gp loss.n_critic=3",
    ],
)
def test_the_captured_step_is_the_plain_one(line):
    """Bit for bit, across epochs and while the rates and the average's weight change."""
    results = []
    for fixed in (False, True):
        update, batches, latents = parts(*line.split(), *RATES)
        if fixed:
            graph.FixedStep(update, batches, latents)
        seen = []
        for i in range(6):
            for optimizer in (update.optimizer_g, update.optimizer_d):
                optimizer.param_groups[0]["lr"] *= 0.5 if i == 3 else 1.0
            seen.append(torch.stack(list(update(batches, latents).scalars.values())))
        results.append((seen, state(update), batches.state_dict(), latents.state_dict()))
        assert update.optimizer_g.param_groups[0]["lr"] == 0.00390625  # a number, to be saved
    (seen, tensors, position, stream), again = results
    assert all(map(torch.equal, seen, again[0]))
    assert all(map(torch.equal, tensors, again[1]))
    assert position == again[2]
    assert torch.equal(stream["generator"], again[3]["generator"])


def test_steps_are_plain_again_after_a_capture_that_failed():
    expected = parts("loss=gan")
    update, batches, latents = parts("loss=gan")
    step = graph.FixedStep(update, batches, latents)
    step.end()
    for _ in range(3):
        update(batches, latents)
        expected.update(expected.batches, expected.latents)
    assert all(map(torch.equal, state(update), state(expected.update)))


def test_a_snapshot_brings_everything_back():
    update, batches, latents = parts("loss=began_paper")
    start = graph.Snapshot(update, batches, latents)
    first = [update(batches, latents) for _ in range(3)][-1].scalars
    after = state(update)
    start.restore()
    assert (update.step, batches.state_dict()) == (0, {"epoch": 0, "position": 0})
    again = [update(batches, latents) for _ in range(3)][-1].scalars
    assert all(map(torch.equal, state(update), after))
    assert all(torch.equal(again[name], value) for name, value in first.items())


def test_the_distance_is_a_share_of_the_way():
    update, batches, latents = parts("loss=gan", "model=mlp")
    start = graph.Snapshot(update, batches, latents)
    measures = update(batches, latents)
    there = graph.Snapshot(update, batches, latents, measures)
    assert graph.distance(start, there, there) == 0
    moved = copy.copy(there)
    moved.values = dict(there.values)
    weights = list(update.generator.parameters())
    for weight in weights:  # a tenth of the way farther
        key, first = id(weight), start.values[id(weight)][1]
        value = there.values[key][1]
        moved.values[key] = (weight, value + 0.1 * (value - first))
    assert graph.distance(start, there, moved) == pytest.approx(0.1, rel=1e-4)
    other = copy.copy(there)
    other.scalars = there.scalars * 1.5
    assert graph.distance(start, there, other) == pytest.approx(0.5, rel=1e-4)
    lost = copy.copy(there)
    lost.scalars = there.scalars * float("nan")
    assert not graph.distance(start, there, lost) <= graph.TOLERANCE

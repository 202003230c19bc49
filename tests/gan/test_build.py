"""What the settings build."""

import numpy as np
import pytest
import torch
from conftest import TINY, settings
from torch import nn

from began_cli.gan.build import build, build_optimizer

CPU = torch.device("cpu")
PIXELS = torch.zeros(4, 1, 16, 16, dtype=torch.uint8)


def test_the_settings_reach_the_step():
    line = ["optimizer.lr_g=0.25", "optimizer.lr_d=0.5", "ema.decay=0.75", "accumulate=2"]
    line += ["model=began", "model.residual=true", "model.carry_steps=10"]
    cfg = settings("train", "loss=began", *TINY, *line)
    assert cfg.dataset.image_shape == (1, 16, 16)
    update = build(cfg, PIXELS, CPU)
    for optimizer, network, lr in (
        (update.optimizer_g, update.generator, 0.25),
        (update.optimizer_d, update.discriminator, 0.5),
    ):
        (group,) = optimizer.param_groups
        assert group["lr"] == lr
        assert all(a is b for a, b in zip(group["params"], network.parameters(), strict=True))
    assert (update.ema_decay, update.accumulate, update.carry_steps) == (0.75, 2, 10)
    for name, weight in update.generator.state_dict().items():
        assert torch.equal(update.ema.state_dict()[name], weight)


def test_half_precision_has_the_channels_last():
    cfg = settings("train", "loss=began_paper", *TINY)
    for amp in (None, torch.bfloat16):
        update = build(cfg, PIXELS, CPU, amp)
        weight = update.discriminator.encoder.same[0].weight
        assert weight.is_contiguous(memory_format=torch.channels_last) == (amp is not None)


def adam(w, gradients, decay=0.0):
    m = v = 0.0
    for t, g in enumerate(gradients, 1):
        w = w * (1 - 0.1 * decay)
        m, v = 0.5 * m + 0.5 * g, 0.9 * v + 0.1 * g**2
        w = w - 0.1 * (m / (1 - 0.5**t)) / (np.sqrt(v / (1 - 0.9**t)) + 0.01)
    return w


def rmsprop(w, gradients):
    m = v = 0.0
    for g in gradients:
        v = 0.9 * v + 0.1 * g**2
        m = 0.5 * m + g / (np.sqrt(v) + 0.01)
        w = w - 0.1 * m
    return w


@pytest.mark.parametrize("name", ["adam", "adamw", "rmsprop"])
def test_optimizers_are_those_of_their_papers(name):
    line = [f"optimizer={name}", "optimizer.betas=[0.5,0.9]", "optimizer.eps=0.01"]
    line += ["optimizer.weight_decay=0.3"] if name == "adamw" else []
    network = nn.Linear(3, 2, bias=False).double()
    w = network.weight.detach().numpy().copy()
    optimizer = build_optimizer(settings("train", *line).optimizer, network, lr=0.1)
    gradients = np.random.default_rng(0).normal(size=(3, 2, 3))
    for gradient in gradients:
        network.weight.grad = torch.from_numpy(gradient.copy())
        optimizer.step()
    if name == "rmsprop":
        expected = rmsprop(w, gradients)
    else:
        expected = adam(w, gradients, 0.3 if name == "adamw" else 0.0)
    np.testing.assert_allclose(network.weight.detach().numpy(), expected, rtol=1e-6)

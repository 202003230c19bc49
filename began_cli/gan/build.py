"""Build networks, loss and optimizers from the settings."""

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.optim import Adam, AdamW, Optimizer, RMSprop

from began_cli.gan import losses, networks
from began_cli.gan.margin import find_margin
from began_cli.gan.update import Update
from began_cli.settings.train import (
    AdamWOptimizerConfig,
    BeganModelConfig,
    EbganLossConfig,
    OptimizerConfig,
    TrainConfig,
)


def build(
    cfg: TrainConfig, data: Tensor, device: torch.device, amp: torch.dtype | None = None
) -> Update:
    """Return the step that the settings describe, its networks and loss on the device.

    `data` are the training images, for losses that measure them; `amp` is the autocast type.
    """
    loss = losses.build(cfg.loss, cfg.dataset.image_shape).to(device)
    loss.prepare(data)
    generator = networks.build_generator(cfg, device)
    discriminator = networks.build_discriminator(cfg, device)
    if amp is not None:  # half precision convolves faster with the channels last; single does not
        generator.to(memory_format=torch.channels_last)
        discriminator.to(memory_format=torch.channels_last)
    steps = cfg.model.carry_steps if isinstance(cfg.model, BeganModelConfig) else 1
    return Update(
        generator,
        discriminator,
        loss,
        build_optimizer(cfg.optimizer, generator, cfg.optimizer.lr_g),
        build_optimizer(cfg.optimizer, discriminator, cfg.optimizer.lr_d),
        cfg.ema.decay,
        amp,
        steps,
        cfg.accumulate,
    )


def build_optimizer(c: OptimizerConfig, network: nn.Module, lr: float) -> Optimizer:
    """Return the optimizer that the settings name, for the weights of one network."""
    betas = first, second = c.betas[0], c.betas[1]
    weights = list(network.parameters())
    if c.name == "rmsprop":
        return RMSprop(weights, lr=lr, alpha=second, momentum=first, eps=c.eps, foreach=True)
    fused = weights[0].device.type in ("cpu", "cuda")
    if isinstance(c, AdamWOptimizerConfig):
        decay = c.weight_decay
        return AdamW(weights, lr=lr, betas=betas, eps=c.eps, weight_decay=decay, fused=fused)
    return Adam(weights, lr=lr, betas=betas, eps=c.eps, fused=fused)


def settle_margin(
    cfg: TrainConfig, stream: Callable[[], Callable[[], Tensor]], device: torch.device
) -> float | None:
    """Replace `loss.margin=auto` by a number and return it; return None for other settings.

    `stream()` returns the stream of batches from its beginning.
    """
    if not isinstance(cfg.loss, EbganLossConfig) or cfg.loss.margin != "auto":
        return None
    loss = losses.Ebgan(dataclasses.replace(cfg.loss, margin=1.0), cfg.dataset.image_shape)
    autoencoder = networks.build_discriminator(cfg, device)
    optimizer = build_optimizer(cfg.optimizer, autoencoder, cfg.optimizer.lr_d)
    cfg.loss.margin = find_margin(autoencoder, loss, optimizer, stream(), cfg.loss.margin_steps)
    return cfg.loss.margin

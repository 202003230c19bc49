"""From settings to networks, loss and optimizers."""

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
    """Networks, loss and optimizers as the settings say, on the device.

    `data` are the images that the loss may look at, `amp` the autocast type, if any.
    """
    shape = (cfg.dataset.channels, cfg.dataset.image_size, cfg.dataset.image_size)
    loss = losses.build(cfg.loss, shape).to(device)
    loss.prepare(data)
    generator = networks.build_generator(cfg.model, cfg.dataset, cfg.loss, device)
    discriminator = build_discriminator(cfg, loss, device)
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


def build_discriminator(cfg: TrainConfig, loss: losses.Loss, device: torch.device) -> nn.Module:
    """The discriminator that the settings name, of the kind that the loss needs."""
    return networks.build_discriminator(cfg.model, cfg.dataset, cfg.loss, loss.critic, device)


def build_optimizer(c: OptimizerConfig, network: nn.Module, lr: float) -> Optimizer:
    """The optimizer that the settings name for one network's weights."""
    betas = first, second = c.betas[0], c.betas[1]
    weights = list(network.parameters())
    if c.name == "rmsprop":
        return RMSprop(weights, lr=lr, alpha=second, momentum=first, eps=c.eps, foreach=True)
    fused = weights[0].device.type != "mps"
    if isinstance(c, AdamWOptimizerConfig):
        decay = c.weight_decay
        return AdamW(weights, lr=lr, betas=betas, eps=c.eps, weight_decay=decay, fused=fused)
    return Adam(weights, lr=lr, betas=betas, eps=c.eps, fused=fused)


def settle_margin(
    cfg: TrainConfig, stream: Callable[[], Callable[[], Tensor]], device: torch.device
) -> float | None:
    """Puts a number in the place of `loss.margin=auto` and returns it; else None.

    `stream()` gives batches of the data from the beginning.
    """
    if not isinstance(cfg.loss, EbganLossConfig) or cfg.loss.margin != "auto":
        return None
    loss = losses.Ebgan(dataclasses.replace(cfg.loss, margin=1.0))
    autoencoder = build_discriminator(cfg, loss, device)
    optimizer = build_optimizer(cfg.optimizer, autoencoder, cfg.optimizer.lr_d)
    cfg.loss.margin = find_margin(autoencoder, loss, optimizer, stream(), cfg.loss.margin_steps)
    return cfg.loss.margin

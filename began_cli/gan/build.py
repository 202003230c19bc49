"""Build networks, loss and optimizers from the settings."""

import torch
from torch import Tensor, nn
from torch.optim import Adam, AdamW, Optimizer, RMSprop

from began_cli.gan import losses, networks
from began_cli.gan.update import Update
from began_cli.settings.train import (
    AdamWOptimizerConfig,
    BeganModelConfig,
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
    device = weights[0].device.type
    graphs = device == "cuda"  # the state is then on the device, where a CUDA graph finds it
    if c.name == "rmsprop":
        return RMSprop(
            weights,
            lr=lr,
            alpha=second,
            momentum=first,
            eps=c.eps,
            foreach=True,
            capturable=graphs,
        )
    fused = device in ("cpu", "cuda")
    options = {"lr": lr, "betas": betas, "eps": c.eps, "fused": fused, "capturable": graphs}
    if isinstance(c, AdamWOptimizerConfig):
        optimizer = AdamW(weights, weight_decay=c.weight_decay, **options)
    else:
        optimizer = Adam(weights, **options)
    if graphs:  # no warning at the steps before the capture
        optimizer._warned_capturable_if_run_uncaptured = True
    else:  # asks whether the GPU is capturing, and so would initialise one that is not used
        optimizer._accelerator_graph_capture_health_check = lambda: None
    return optimizer

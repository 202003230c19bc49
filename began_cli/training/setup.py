"""What steps need, made from the settings: the two networks and their two streams."""

from typing import NamedTuple

import torch

from began_cli.data.batches import Batches, hash_seed
from began_cli.data.sources import Source
from began_cli.device import pick_precision, place_images, reuse_memory
from began_cli.gan.build import build
from began_cli.gan.latents import LatentStream
from began_cli.gan.update import Update
from began_cli.settings.train import FileDatasetConfig, TrainConfig


class Ready(NamedTuple):
    """`update(batches, latents)` is a step."""

    update: Update
    batches: Batches
    latents: LatentStream


def ready(cfg: TrainConfig, source: Source, device: torch.device) -> Ready:
    """Fresh networks (the global RNG's) and both streams at their beginning."""
    if device.type == "cpu":
        reuse_memory()
    update = build(cfg, source.images, device, pick_precision(cfg.precision, device))
    seed = hash_seed(cfg.seed, 1)
    stream = LatentStream(cfg.batch_size, cfg.model.latent_dim, seed, device, cfg.accumulate)
    return Ready(update, batches_of(cfg, source, device), stream)


def batches_of(cfg: TrainConfig, source: Source, device: torch.device) -> Batches:
    """The run's stream of real images, from its beginning."""
    flip = isinstance(cfg.dataset, FileDatasetConfig) and cfg.dataset.flip
    held = place_images(source.images, cfg.dataset.device, device)
    seed = hash_seed(cfg.seed, 0)
    return Batches(held, cfg.batch_size, seed, device, flip, source.forget, cfg.accumulate)

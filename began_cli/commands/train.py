"""`began train`: from settings to a trained generator."""

import dataclasses
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Adam, AdamW, Optimizer, RMSprop

from began_cli import __version__, config, images, settings
from began_cli.config import TrainConfig
from began_cli.data import sources
from began_cli.data.batches import Batches, hash_seed
from began_cli.errors import UserError
from began_cli.gan import latents, losses, networks
from began_cli.gan.margin import find_margin
from began_cli.gan.update import Update
from began_cli.run import checkpoint, schedule
from began_cli.run.device import pick_device, pick_precision, place_images
from began_cli.run.monitor import Monitor
from began_cli.run.signals import RESUME_ME, StopRequest

SHOWN = 64  # images on a sample grid, and those that diversity is measured on
SHOWN_POINTS = 2000  # of a data set in the plane
CHECKPOINTS = 2  # how many are kept

# Settings that a resumed run may change: they do not change what it computes.
HARMLESS = {
    *("steps", "log_every", "sample_every", "checkpoint_every", "resume", "out", "device"),
    *("dataset.root", "dataset.device", "dataset.fallback", "recipe"),
}


def main(cfg: TrainConfig, typed: list[str]) -> None:
    """Trains a generator in the run folder `cfg.out`, or goes on with the run of `cfg.resume`.

    `typed` are the names of the settings that the user gave.
    """
    saved = None
    if cfg.resume is not None:
        path = checkpoint.find(cfg.resume, "resume")
        saved = checkpoint.load(path, "resume")
        cfg = resumed(cfg, typed, saved["config"])
        cfg.out = str(path.resolve().parent.parent)
    run = Path(cfg.out)
    if saved is None and checkpoint.all_of(run):
        raise UserError(
            f"out={run}: holds a checkpoint already; resume={run} goes on with that run"
        )
    device = pick_device(cfg.device)
    source = sources.load(cfg.dataset)
    if saved is not None and saved["data"]["sha256"] != source.sha256:
        was, now = saved["data"], source.card()
        raise UserError(
            f"dataset={cfg.dataset.name}: not the images this run was trained on: "
            f"{was['count']} of {was['origin']} then, {now['count']} of {now['origin']} now"
        )

    torch.manual_seed(cfg.seed)
    random.seed(cfg.seed)
    np.random.seed(cfg.seed % 2**32)
    margin = settle_margin(cfg, source.images, device)
    update = build(cfg, source.images, device)
    plan = schedule.build(cfg.schedule, [update.optimizer_g, update.optimizer_d])
    pixels = place_images(source.images, cfg.dataset.device, device)
    batches = Batches(pixels, cfg.batch_size, hash_seed(cfg.seed, 0), device)
    stream = latents.LatentStream(
        cfg.batch_size, cfg.model.latent_dim, hash_seed(cfg.seed, 1), device
    )
    points = cfg.dataset.channels == 2  # of the plane, not images
    shown = SHOWN_POINTS if points else SHOWN
    reals = source.images[torch.linspace(0, len(source.images) - 1, shown).long()]
    fixed = latents.from_seeds(range(shown), cfg.model.latent_dim).to(device)
    data_spread = spread(images.to_float(reals))
    images_a_step = cfg.batch_size * update.loss.n_critic

    def save() -> None:
        state = {
            "config": settings.plain(cfg),
            "began": __version__,
            "data": source.card(),
            **update.state_dict(),
            "schedule": plan.state_dict(),
            "batches": batches.state_dict(),
            "latents": stream.state_dict(),
            "monitor": monitor.state_dict(),
            "rng": rng_state(),
        }
        checkpoint.save(checkpoint.path_for(run, update.step), state)
        checkpoint.keep_newest(run, CHECKPOINTS)

    def log() -> None:
        diversity = spread(sample(update.ema, fixed)) / data_spread
        rates = {"lr_g": update.optimizer_g.param_groups[0]["lr"]}
        rates["lr_d"] = update.optimizer_d.param_groups[0]["lr"]
        monitor.log(update.step, update.step * images_a_step, **rates, diversity=diversity.item())

    def show() -> None:
        fakes = sample(update.ema, fixed)
        sheet = images.plane(fakes, reals) if points else images.grid(images.to_uint8(fakes), 8)
        images.save_png(sheet, run / "samples" / f"step-{update.step:08d}.png")
        monitor.picture("samples", sheet, update.step)
        if update.loss.critic == "autoencoder" and not points:
            real = images.to_float(reals).to(device)
            for name, shown in (("real", real), ("fake", fakes)):
                monitor.picture(f"reconstructions/{name}", pairs(update, shown), update.step)

    try:
        (run / "samples").mkdir(parents=True, exist_ok=True)
        (run / "config.yaml").write_text(settings.to_yaml(cfg), encoding="utf-8")
        sheet = images.plane(reals[:0], reals) if points else images.grid(reals, 8)
        images.save_png(sheet, run / "samples" / "reals.png")
    except OSError as error:
        raise UserError(f"out={run}: cannot be written to ({error.strerror})") from None

    logged_at = saved["monitor"]["logged_at"] if saved else 0
    with Monitor(run, cfg.steps, flat(settings.plain(cfg)), logged_at) as monitor:
        if saved is not None:
            update.load_state_dict(saved)
            plan.load_state_dict(saved["schedule"])
            batches.load_state_dict(saved["batches"])
            stream.load_state_dict(saved["latents"])
            monitor.load_state_dict(saved["monitor"], device)
            set_rng_state(saved["rng"])
            monitor.say(f"going on from step {update.step:,} of {run}")
        if source.warning:
            monitor.warn(source.warning)
        for line in introduction(cfg, update, source, pixels.device, device):
            monitor.say(line)
        if margin is not None:
            monitor.say(f"loss.margin={margin:g}: the energy of an autoencoder trained alone")

        monitor.start(update.step, update.step * images_a_step)
        saved_at = update.step if saved else None
        with StopRequest() as stop:
            while update.step < cfg.steps and stop.name is None:
                measures = update(batches, stream)
                monitor.add(measures, update.step)
                if news := plan.after(update.step, measures.scalars):
                    monitor.say(news)
                if update.step % cfg.log_every == 0:
                    log()
                if update.step % cfg.sample_every == 0:
                    show()
                if update.step % cfg.checkpoint_every == 0:
                    save()
                    saved_at = update.step
            if saved_at != update.step:
                save()
            if stop.name is None:  # the end, whatever the intervals
                if update.step % cfg.log_every:
                    log()
                show()
        if stop.name is not None:
            monitor.say(f"stopped by {stop.name} at step {update.step:,}; go on with")
            monitor.say(f"  began train resume={run}")
            raise SystemExit(RESUME_ME)
        monitor.say(f"done: {update.step:,} steps; {run}/samples/step-{update.step:08d}.png")
        monitor.say(f"  began sample ckpt={run}")


def build(cfg: TrainConfig, data: Tensor, device: torch.device) -> Update:
    """Networks, loss and optimizers as the settings say, on the device."""
    shape = (cfg.dataset.channels, cfg.dataset.image_size, cfg.dataset.image_size)
    loss = losses.build(cfg.loss, shape).to(device)
    loss.prepare(data)
    generator = networks.build_generator(cfg.model, cfg.dataset, cfg.loss).to(device)
    discriminator = build_discriminator(cfg, loss).to(device)
    steps = cfg.model.carry_steps if isinstance(cfg.model, config.BeganModelConfig) else 1
    return Update(
        generator,
        discriminator,
        loss,
        build_optimizer(cfg.optimizer, generator, cfg.optimizer.lr_g),
        build_optimizer(cfg.optimizer, discriminator, cfg.optimizer.lr_d),
        cfg.ema.decay,
        pick_precision(cfg.precision, device),
        steps,
    )


def build_discriminator(cfg: TrainConfig, loss: losses.Loss) -> nn.Module:
    """The discriminator that the settings name, of the kind that the loss needs."""
    return networks.build_discriminator(cfg.model, cfg.dataset, cfg.loss, loss.critic)


def settle_margin(cfg: TrainConfig, data: Tensor, device: torch.device) -> float | None:
    """Puts a number in the place of `loss.margin=auto` and returns it; else None."""
    if not isinstance(cfg.loss, config.EbganLossConfig) or cfg.loss.margin != "auto":
        return None
    loss = losses.Ebgan(dataclasses.replace(cfg.loss, margin=1.0))
    autoencoder = build_discriminator(cfg, loss).to(device)
    optimizer = build_optimizer(cfg.optimizer, autoencoder, cfg.optimizer.lr_d)
    batches = Batches(data, cfg.batch_size, hash_seed(cfg.seed, 0), device)
    cfg.loss.margin = find_margin(autoencoder, loss, optimizer, batches, cfg.loss.margin_steps)
    torch.manual_seed(cfg.seed)  # the run's first weights are those of any other margin
    return cfg.loss.margin


def build_optimizer(c: config.OptimizerConfig, network: nn.Module, lr: float) -> Optimizer:
    """The optimizer that the settings name for one network's weights."""
    first, second = c.betas
    weights = list(network.parameters())
    if c.name == "rmsprop":
        return RMSprop(weights, lr=lr, alpha=second, momentum=first, foreach=True)
    fused = weights[0].device.type != "mps"
    if isinstance(c, config.AdamWOptimizerConfig):
        decay = c.weight_decay
        return AdamW(weights, lr=lr, betas=(first, second), weight_decay=decay, fused=fused)
    return Adam(weights, lr=lr, betas=(first, second), fused=fused)


@torch.no_grad()
def sample(generator: nn.Module, z: Tensor) -> Tensor:
    """Images (N, C, H, W) of latents z, the generator being in evaluation mode."""
    return generator(z)


def spread(shown: Tensor) -> Tensor:
    """How much images differ: the root mean square over pixels of their standard deviation."""
    return shown.float().var(dim=0).mean().sqrt()


@torch.no_grad()
def pairs(update: Update, shown: Tensor) -> Tensor:
    """A sheet of images, each with its reconstruction to its right."""
    critic = update.discriminator.eval()
    both = torch.stack([shown, critic(shown).images], dim=1).flatten(0, 1)
    critic.train()
    return images.grid(images.to_uint8(both), 16)


def introduction(
    cfg: TrainConfig, update: Update, source: sources.Source, held: torch.device, on: torch.device
) -> list[str]:
    """What a run says of itself before its first step."""
    sizes = [
        sum(weight.numel() for weight in network.parameters())
        for network in (update.generator, update.discriminator)
    ]
    d = cfg.dataset
    shape = f"{d.image_size}x{d.image_size}x{d.channels}"
    return [
        f"{d.name}: {len(source.images):,} images of {shape} on {held}, from {source.origin}",
        f"  sha256 {source.sha256}",
        f"{cfg.loss.name} on {cfg.model.name}: G {sizes[0]:,} and D {sizes[1]:,} parameters, "
        f"batch {cfg.batch_size}, {cfg.optimizer.name}, {on}, "
        f"{'bf16' if update.amp else 'fp32'}; {cfg.steps:,} steps",
        f"run folder: {cfg.out}",
    ]


# --- resuming -------------------------------------------------------------------------------------


def resumed(cfg: TrainConfig, typed: list[str], saved: dict[str, Any]) -> TrainConfig:
    """The settings of a saved run with the harmless ones that the user typed.

    Raises UserError, field by field, if a typed setting would change what the run computes.
    """
    now, then = flat(settings.plain(cfg)), flat(saved)
    everything = "recipe" in typed
    changed = {
        key
        for key, value in now.items()
        if (everything or any(key == word or key.startswith(f"{word}.") for word in typed))
        and value != then.get(key)
    }
    if refused := sorted(changed - HARMLESS):
        fields = "; ".join(f"{key} was {then.get(key)}, not {now[key]}" for key in refused)
        raise UserError(f"resume={cfg.resume}: this would be another run: {fields}")
    then_settings = settings.parse("train", saved)
    for key in changed:
        owner, _, name = key.rpartition(".")
        setattr(getattr(then_settings, owner) if owner else then_settings, name, now[key])
    return then_settings


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as `loss.gamma` -> value; lists as text."""
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            leaves |= flat(value, f"{prefix}{key}.")
        else:
            leaves[prefix + key] = str(value) if isinstance(value, list | type(None)) else value
    return leaves


def rng_state() -> dict[str, Any]:
    """Every global random state, as tensors and plain values."""
    numpy_state: Any = np.random.get_state(legacy=True)
    name, keys, *rest = numpy_state
    version, internal, gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [name, torch.from_numpy(keys.astype(np.int64)), *rest],
        "python": [version, list(internal), gauss],
    }


def set_rng_state(state: dict[str, Any]) -> None:
    """Puts back what `rng_state` gave."""
    torch.set_rng_state(state["torch"])
    if len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))

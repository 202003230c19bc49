"""`began train`: from settings to a trained generator."""

import random
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from began_cli import ranks
from began_cli.data import sources
from began_cli.device import enough_memory, pick_device
from began_cli.errors import UserError
from began_cli.gan.build import settle_margin
from began_cli.generators import checkpoint
from began_cli.settings.parse import flatten, to_plain, to_yaml
from began_cli.settings.train import EbganLossConfig, FileDatasetConfig, TrainConfig
from began_cli.training import dry_run, resume
from began_cli.training import scorer as in_loop
from began_cli.training.lock import only_process
from began_cli.training.loop import prepare
from began_cli.training.monitor import Monitor, Silent
from began_cli.training.setup import batches_of
from began_cli.training.signals import RESUME_ME, StopRequest


def main(cfg: TrainConfig, typed: list[str]) -> float | None:
    """Trains a generator in the run folder `cfg.out`, or goes on with the run of `cfg.resume`.

    `typed` are the names of the settings that the user gave. Returns the best score, if any.
    """
    if cfg.dry_run:
        dry_run.report(cfg)
        return None
    with ranks.joined(), ExitStack() as held:
        return train(cfg, typed, held)


def train(cfg: TrainConfig, typed: list[str], held: ExitStack) -> float | None:
    """What each process of the run does; `held` is let go of at its end."""
    cfg, saved, complaints = ranks.of_first(lambda: resume.choose_run(cfg, typed))
    cfg.devices = ranks.size()
    run = Path(cfg.out)
    device = ranks.of_each(lambda: pick_device(cfg.device))
    if device.type == "cuda":
        torch.cuda.set_device(device)  # whose random state is the one that is saved
    source = ranks.of_each(lambda: sources.load(cfg.dataset), first_alone=True)
    if isinstance(cfg.dataset, FileDatasetConfig):  # so that it can go on from elsewhere
        cfg.dataset.root = str(Path(cfg.dataset.root).expanduser().absolute())
    ranks.of_each(lambda: same_images(cfg, source, saved))
    scored = cfg.evaluate_every and ranks.first()
    scorer = ranks.of_each(lambda: in_loop.Scorer(cfg, source) if scored else None)
    done = ranks.of_first(lambda: claim(cfg, saved, held)) == "done"
    if saved is not None and done:
        return saved["best"].get("value")
    if saved is not None:
        complaints += ranks.of_first(lambda: checkpoint.set_aside(run, saved["step"]))
    seed_everything(cfg.seed)
    margin = ranks.of_first(
        lambda: settle_margin(cfg, lambda: batches_of(cfg, source, device), device)
    )
    if margin is not None and isinstance(cfg.loss, EbganLossConfig):
        cfg.loss.margin = margin
    seed_everything(cfg.seed)  # the first weights are those of any other margin
    monitor = held.enter_context(ranks.of_each(lambda: open_monitor(cfg, run, saved)))
    training = ranks.of_each(lambda: prepare(cfg, run, source, device, monitor, scorer))
    for text in (*complaints, source.warning):
        if text:
            monitor.warn(text)
    if saved is not None:
        ranks.of_each(lambda: training.load_from(Path(cfg.resume or run), saved))
        monitor.say(f"going on from step {training.update.step:,} of {run}")
        before = saved["config"]["devices"]
        if before != cfg.devices:
            monitor.say(f"devices={cfg.devices}, where there were {before}: sums round otherwise")
    for line in training.introduction():
        monitor.say(line)
    training.compile()
    if margin is not None:
        monitor.say(f"loss.margin={margin:g}: the energy of an autoencoder trained alone")
    with StopRequest() as stop, enough_memory(cfg.batch_size, cfg.model.width):
        stopped = training.loop(stop)
        if stopped is not None:
            monitor.say(f"stopped by {stopped} at step {training.update.step:,}; go on with")
            monitor.say(f"  began train resume={run}")
    if stopped is not None:
        raise SystemExit(RESUME_ME)
    last = f"{run}/samples/step-{training.update.step:08d}.png"
    monitor.say(f"done: {training.update.step:,} steps; {last}")
    monitor.say(f"  began sample ckpt={run}")
    return training.best.get("value")


def same_images(cfg: TrainConfig, source: sources.Source, saved: dict[str, Any] | None) -> None:
    """Raises UserError if a run would go on with other images than before."""
    if saved is not None and saved["data"]["sha256"] != source.sha256:
        was, now = saved["data"], source.card()
        raise UserError(
            f"dataset={cfg.dataset.name}: not the images this run was trained on: "
            f"{was['count']} of {was['origin']} then, {now['count']} of {now['origin']} now"
        )


def claim(cfg: TrainConfig, saved: dict[str, Any] | None, held: ExitStack) -> str | None:
    """Makes the run folder ours until `held` is let go of; "done" if there is nothing to do."""
    run = Path(cfg.out)
    try:
        (run / "samples").mkdir(parents=True, exist_ok=True)
        for name in ("config.yaml", "train.log", "metrics.jsonl", ".lock"):
            (run / name).open("a").close()
    except OSError as error:
        raise UserError(f"out={run}: cannot be written to ({error.strerror})") from None
    held.enter_context(only_process(run))
    if saved is not None and saved["step"] == cfg.steps and resume.finished(run, cfg.steps):
        Console(highlight=False).print(
            f"{run}: done already, at step {cfg.steps:,}", markup=False, soft_wrap=True
        )
        return "done"
    checkpoint.sweep(run)
    return None


def open_monitor(cfg: TrainConfig, run: Path, saved: dict[str, Any] | None) -> Monitor:
    """Process 0's monitor, the settings written beside it; the others' is silent."""
    if not ranks.first():
        return Silent()
    (run / "config.yaml").write_text(to_yaml(cfg), encoding="utf-8")
    logged_at = saved["monitor"].get("logged_at", 0) if saved else 0
    return Monitor(run, cfg.steps, flatten(to_plain(cfg)), logged_at)


def seed_everything(seed: int) -> None:
    """Every global random state."""
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)

"""Prepare a run: its folder, its data, its random state, and what a step needs."""

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from filelock import FileLock, Timeout

from began_cli import ranks
from began_cli.data import sources
from began_cli.data.batches import Batches, hash_seed
from began_cli.data.sources import Source
from began_cli.device import (
    pick_device,
    pick_precision,
    pick_storage,
    place_images,
    reuse_memory,
    set_precision,
)
from began_cli.errors import UserError
from began_cli.gan.build import build
from began_cli.gan.latents import LatentStream
from began_cli.gan.update import Update
from began_cli.generators import checkpoint
from began_cli.settings.parse import flatten, to_plain, to_yaml
from began_cli.settings.train import FileDatasetConfig, TrainConfig
from began_cli.training.monitor import Monitor, NoMonitor


class Parts(NamedTuple):
    """The parts of a run that a step needs: `update(batches, latents)` takes a step."""

    update: Update
    batches: Batches
    latents: LatentStream


def build_parts(
    cfg: TrainConfig, source: Source, device: torch.device, precision: str | None = None
) -> Parts:
    """Return new networks, initialised by the global random state, and both streams at their
    beginning. `precision` is what `cfg.precision` stands for, if that is known."""
    if device.type == "cpu":
        reuse_memory()
    amp = set_precision(precision or pick_precision(cfg.precision, device))
    update = build(cfg, source.images, device, amp)
    seed = hash_seed(cfg.seed, 1)
    latents = LatentStream(cfg.batch_size, cfg.model.latent_dim, seed, device, cfg.accumulate)
    return Parts(update, build_batches(cfg, source, device), latents)


def build_batches(cfg: TrainConfig, source: Source, device: torch.device) -> Batches:
    """Return the run's stream of real images, at its beginning."""
    flip = isinstance(cfg.dataset, FileDatasetConfig) and cfg.dataset.flip
    images = place_images(source.images, cfg.dataset.device, device)
    seed = hash_seed(cfg.seed, 0)
    return Batches(images, cfg.batch_size, seed, device, flip, source.forget, cfg.accumulate)


@contextmanager
def claim_folder(run: Path) -> Iterator[None]:
    """Create the run folder and lock it within the block; processes other than 0 do nothing.

    RUN/.lock holds the process id. The system releases the lock however the process ends. Raises
    UserError if the folder cannot be written to, or if another process has locked it.
    """
    if not ranks.is_first():
        yield
        return
    path, pid = run / ".lock", "unknown"
    with suppress(OSError):  # read first: old versions of filelock empty the file
        pid = path.read_text(encoding="ascii") or pid
    try:
        (run / "samples").mkdir(parents=True, exist_ok=True)
        for name in ("config.yaml", "train.log", "metrics.jsonl"):
            (run / name).open("a").close()
        lock = FileLock(path).acquire(timeout=0)
    except Timeout:
        raise UserError(
            f"out={run}: another process (pid {pid}) is training in this folder; "
            "wait for it, or choose another folder with hydra.run.dir=…"
        ) from None
    except OSError as error:
        raise UserError(f"out={run}: cannot be written to ({error.strerror})") from None
    with lock:
        with suppress(OSError):  # on Windows the lock keeps everyone from writing
            path.write_text(str(os.getpid()), encoding="ascii")
        checkpoint.remove_leftovers(run)
        yield


def pick_own_device(cfg: TrainConfig) -> torch.device:
    """Return the device of this process, made the current one if it is a GPU.

    Raise UserError if the images cannot be stored where `dataset.device` says.
    """
    device = pick_device(cfg.device)
    if cfg.dataset.device != "auto":
        pick_storage(cfg.dataset.device, device)
    if device.type == "cuda":
        torch.cuda.set_device(device)  # its random state is the one that is saved
    return device


def pick_own_precision(cfg: TrainConfig, device: torch.device, saved: dict[str, Any] | None) -> str:
    """Return the precision of a run, or of one that goes on from the checkpoint `saved`.

    On the same kind of device, `auto` stays what it was: another processor does not change a run.
    """
    if saved is not None and cfg.precision == "auto" and saved["computed"]["device"] == device.type:
        return saved["computed"]["precision"]
    return pick_precision(cfg.precision, device)


def load_data(cfg: TrainConfig, saved: dict[str, Any] | None) -> Source:
    """Return the data set, and make the settings name it by its absolute path.

    Raise UserError if the images differ from those of the checkpoint `saved`, if there is one.
    """
    with ranks.first_then_others():
        source = sources.load(cfg.dataset)
    if isinstance(cfg.dataset, FileDatasetConfig):  # so that the run can be resumed from anywhere
        cfg.dataset.root = str(Path(cfg.dataset.root).expanduser().absolute())
    if saved is not None and saved["data"]["sha256"] != source.sha256:
        old, new = saved["data"], source.card()
        raise UserError(
            f"dataset={cfg.dataset.name}: not the images this run was trained on: "
            f"{old['count']} of {old['origin']} then, {new['count']} of {new['origin']} now"
        )
    return source


def open_monitor(cfg: TrainConfig, saved: dict[str, Any] | None) -> Monitor | NoMonitor:
    """Return the monitor of this process, and write config.yaml in process 0."""
    if not ranks.is_first():
        return NoMonitor()
    run = Path(cfg.out)
    (run / "config.yaml").write_text(to_yaml(cfg), encoding="utf-8")
    logged_at = saved["monitor"].get("logged_at", 0) if saved else 0
    return Monitor(run, cfg.steps, flatten(to_plain(cfg)), logged_at, cfg.show)


def seed_everything(seed: int) -> None:
    """Seed every global random state."""
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)

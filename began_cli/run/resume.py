"""Going on with a run: which one, with which settings, and every random state."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import torch

from began_cli import config, settings
from began_cli.config import TrainConfig
from began_cli.errors import UserError
from began_cli.run import checkpoint

# Settings that a resumed run may change: they do not change what it computes.
HARMLESS = {
    *("steps", "log_every", "sample_every", "checkpoint_every", "resume", "out", "device"),
    *("dataset.root", "dataset.device", "dataset.fallback", "recipe", "disk_full"),
    *("dataset.cache", "compile", "dry_run"),
    *("watchdog", "watch.patience", "watch.diversity", "watch.rollbacks"),
}


def same_run(cfg: TrainConfig) -> str | None:
    """What `resume=auto` means: this run folder, or the newest under outputs/ with the same
    settings, whichever has a checkpoint; None: there is none."""
    if checkpoint.all_of(Path(cfg.out)):
        return cfg.out
    wanted = flat(settings.plain(cfg))
    for run in checkpoint.runs(Path("outputs")):
        try:
            there = flat(checkpoint.upgrade_config(settings.read_yaml(run / "config.yaml")))
        except (OSError, ValueError):
            continue
        # A margin that was to be found stands there as the number it became.
        other = [key for key, value in wanted.items() if value != there.get(key, value)]
        if set(wanted) == set(there) and set(other) <= HARMLESS | auto_margin(cfg):
            return str(run)
    return None


def auto_margin(cfg: TrainConfig) -> set[str]:
    """The name of the margin if it is `auto`."""
    auto = isinstance(cfg.loss, config.EbganLossConfig) and cfg.loss.margin == "auto"
    return {"loss.margin"} if auto else set()


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
    changed -= auto_margin(cfg)
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

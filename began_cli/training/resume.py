"""Going on with a run: which one, with which settings, and every random state."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import torch

from began_cli import ranks
from began_cli.errors import UserError
from began_cli.generators import checkpoint
from began_cli.settings.parse import flatten, parse, read_yaml, to_plain
from began_cli.settings.train import RESUMABLE, EbganLossConfig, TrainConfig


def choose_run(
    cfg: TrainConfig, typed: list[str]
) -> tuple[TrainConfig, dict[str, Any] | None, list[str]]:
    """The settings to run with, the checkpoint to go on from if any, and damaged ones passed over.

    Raises UserError if the run folder is taken, or the run to go on with would become another one.
    """
    source = restarted(cfg) if ranks.restarted() else cfg.resume
    source = same_run(cfg) if source == "auto" else source
    if source is None:
        if checkpoint.all_of(Path(cfg.out)):
            raise UserError(
                f"out={cfg.out}: holds a checkpoint already; resume={cfg.out} goes on with that run"
            )
        return cfg, None, []
    path, saved, complaints = checkpoint.read(source, "resume")
    out = cfg.out
    cfg = resumed(cfg, typed, saved["config"])
    if cfg.steps < saved["step"]:
        raise UserError(f"steps={cfg.steps}: the run of {path} is at step {saved['step']} already")
    if path.parent.name != "checkpoints":  # a loose file: the run goes on in a folder of its own
        if checkpoint.all_of(Path(out)):
            raise UserError(f"out={out}: holds a checkpoint already")
        cfg.out = out
        return cfg, saved, complaints
    cfg.out = str(checkpoint.run_of(path.resolve()))
    return cfg, saved, complaints


def restarted(cfg: TrainConfig) -> str:
    """Where torchrun's second attempt goes on: not where the first one began, but where it was."""
    if cfg.resume in (None, "auto") or checkpoint.all_of(Path(cfg.out)):
        return "auto"
    path = Path(cfg.resume)
    return str(path.parent.parent) if path.parent.name == "checkpoints" else cfg.resume


def same_run(cfg: TrainConfig) -> str | None:
    """What `resume=auto` means: this run folder, or the newest under outputs/ with the same
    settings, whichever has a checkpoint; None: there is none."""
    if checkpoint.all_of(Path(cfg.out)):
        return cfg.out
    wanted = flatten(to_plain(cfg))
    for run in checkpoint.runs(Path("outputs")):
        try:
            there = flatten(read_yaml(run / "config.yaml"))
        except (OSError, ValueError):
            continue
        # A margin that was to be found stands there as the number it became.
        other = [key for key, value in wanted.items() if value != there.get(key, value)]
        if set(wanted) == set(there) and set(other) <= RESUMABLE | auto_margin(cfg):
            return str(run)
    return None


def auto_margin(cfg: TrainConfig) -> set[str]:
    """The name of the margin if it is `auto`."""
    auto = isinstance(cfg.loss, EbganLossConfig) and cfg.loss.margin == "auto"
    return {"loss.margin"} if auto else set()


def resumed(cfg: TrainConfig, typed: list[str], saved: dict[str, Any]) -> TrainConfig:
    """The settings of a saved run with the harmless ones that the user typed.

    Raises UserError, field by field, if a typed setting would change what the run computes.
    """
    now, then = flatten(to_plain(cfg)), flatten(saved)
    everything = "recipe" in typed
    changed = {
        key
        for key, value in now.items()
        if (everything or any(key == word or key.startswith(f"{word}.") for word in typed))
        and value != then.get(key)
    }
    changed -= auto_margin(cfg)
    if refused := sorted(changed - RESUMABLE):
        fields = "; ".join(f"{key} was {then.get(key)}, not {now[key]}" for key in refused)
        raise UserError(f"resume={cfg.resume}: this would be another run: {fields}")
    then_settings = parse("train", saved)
    for key in changed:
        owner, _, name = key.rpartition(".")
        setattr(getattr(then_settings, owner) if owner else then_settings, name, now[key])
    return then_settings


def finished(run: Path, steps: int) -> bool:
    """Whether all that a run of so many steps leaves behind is there."""
    logs = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    logged = logs and logs[-1].startswith(f'{{"step": {steps}, ')
    last = checkpoint.all_of(run)[-1:]
    shown = (run / "samples" / f"step-{steps:08d}.png").exists()
    return bool(logged and shown and last == [checkpoint.path_for(run, steps)])


def rng_state() -> dict[str, Any]:
    """Every global random state, as tensors and plain values."""
    numpy_state: Any = np.random.get_state(legacy=True)
    name, keys, *rest = numpy_state
    version, internal, gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": [torch.cuda.get_rng_state()] if torch.cuda.is_available() else [],
        "numpy": [name, torch.from_numpy(keys.astype(np.int64)), *rest],
        "python": [version, list(internal), gauss],
    }


def set_rng_state(state: dict[str, Any]) -> None:
    """Puts back what `rng_state` gave."""
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"][0])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))

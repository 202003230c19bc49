"""Resume a run: find it, check its settings, and restore every random state."""

import random
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from began_cli import ranks
from began_cli.errors import UserError
from began_cli.generators import checkpoint
from began_cli.settings.parse import flatten, parse, read_yaml, to_plain
from began_cli.settings.train import RESUMABLE, TrainConfig


class Plan(NamedTuple):
    """The run that `began train` starts or resumes."""

    cfg: TrainConfig
    saved: dict[str, Any] | None  # the checkpoint to resume from; None for a new run
    warnings: list[str]  # one for each damaged checkpoint that was passed over
    finished: bool  # nothing is left to do


@ranks.on_first
def make_plan(cfg: TrainConfig, typed: list[str]) -> Plan:
    """Return the settings to run with, and the checkpoint to resume from.

    `typed` are the names of the settings that the user gave. Raise UserError if the run folder is
    taken, or if a typed setting would change what the resumed run computes.
    """
    source = _restart_source(cfg) if ranks.restarted() else cfg.resume
    if source == "auto":
        source = find_same_run(cfg)
    if source is None:
        if checkpoint.find_all(Path(cfg.out)):
            raise UserError(
                f"out={cfg.out}: holds a checkpoint already; resume={cfg.out} goes on with that run"
            )
        return Plan(cfg, None, [], finished=False)
    path, saved, warnings = checkpoint.read(source, "resume")
    out = cfg.out
    cfg = merge_settings(cfg, typed, saved["config"])
    if cfg.steps < saved["step"]:
        raise UserError(f"steps={cfg.steps}: the run of {path} is at step {saved['step']} already")
    if path.parent.name == "checkpoints":
        cfg.out = str(checkpoint.run_of(path.resolve()))
    elif checkpoint.find_all(Path(out)):
        raise UserError(f"out={out}: holds a checkpoint already")
    else:  # a loose file: the run goes on in a folder of its own
        cfg.out = out
    finished = _finished(Path(cfg.out), saved["step"], cfg.steps)
    return Plan(cfg, saved, warnings, finished)


def _restart_source(cfg: TrainConfig) -> str:
    """Return what to resume when torchrun starts the processes again.

    Not where the first attempt began, but where it came to.
    """
    if cfg.resume in (None, "auto") or checkpoint.find_all(Path(cfg.out)):
        return "auto"
    path = Path(cfg.resume)
    return str(path.parent.parent) if path.parent.name == "checkpoints" else cfg.resume


def find_same_run(cfg: TrainConfig) -> str | None:
    """Return the run that `resume=auto` means, or None.

    That is the run folder, or else the newest run under outputs/ with the same settings.
    """
    if checkpoint.find_all(Path(cfg.out)):
        return cfg.out
    wanted = flatten(to_plain(cfg))
    for run in checkpoint.find_runs(Path("outputs")):
        try:
            settings = flatten(read_yaml(run / "config.yaml"))
        except (OSError, ValueError):
            continue
        changed = {key for key, value in wanted.items() if value != settings.get(key, value)}
        if (set(wanted) ^ set(settings)) | changed <= RESUMABLE:
            return str(run)
    return None


def merge_settings(cfg: TrainConfig, typed: list[str], saved: dict[str, Any]) -> TrainConfig:
    """Return the settings of a saved run with those that the user typed.

    Raise UserError, setting by setting, if a typed one would change what the run computes.
    """
    new, old = flatten(to_plain(cfg)), flatten(saved)
    everything = "recipe" in typed
    changed = {
        key
        for key, value in new.items()
        if (everything or any(key == name or key.startswith(f"{name}.") for name in typed))
        and value != old.get(key)
    }
    if refused := sorted(changed - RESUMABLE):
        fields = "; ".join(f"{key} was {old.get(key)}, not {new[key]}" for key in refused)
        raise UserError(f"resume={cfg.resume}: this would be another run: {fields}")
    merged = parse("train", saved)
    for key in changed:
        owner, _, name = key.rpartition(".")
        setattr(getattr(merged, owner) if owner else merged, name, new[key])
    return merged


def _finished(run: Path, step: int, steps: int) -> bool:
    """Return whether a run at `step` has taken all its steps and written all its files."""
    try:
        lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    except OSError:
        return False
    logged = bool(lines) and lines[-1].startswith(f'{{"step": {steps}, ')
    sampled = (run / "samples" / f"step-{steps:08d}.png").exists()
    newest = checkpoint.find_all(run)[-1:] == [checkpoint.path_for(run, steps)]
    return step == steps and logged and sampled and newest


def rng_state(device: torch.device) -> dict[str, Any]:
    """Return every global random state that a run on `device` uses, as tensors and plain values."""
    numpy_state: Any = np.random.get_state(legacy=True)
    name, keys, *rest = numpy_state
    version, internal, gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": [torch.cuda.get_rng_state()] if device.type == "cuda" else [],
        "numpy": [name, torch.from_numpy(keys.astype(np.int64)), *rest],
        "python": [version, list(internal), gauss],
    }


def set_rng_state(state: dict[str, Any], device: torch.device) -> None:
    """Restore the states that `rng_state` returned. A GPU's stays as it was seeded if the run was
    saved on another device."""
    torch.set_rng_state(state["torch"])
    if state["cuda"] and device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"][0])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))

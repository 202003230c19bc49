"""Find run folders, and read what each holds: settings, state, curves, scores and samples."""

import io
import os
from pathlib import Path
from typing import Any

import torch
from torch import nn

from began_cli import images
from began_cli.comparison import records
from began_cli.comparison.records import FAILED, Run
from began_cli.errors import UserError, reason
from began_cli.gan import latents
from began_cli.generators import checkpoint, load
from began_cli.generators.sampling import generate_all
from began_cli.settings.parse import flatten, parse, read_yaml
from began_cli.settings.train import RESUMABLE, TrainConfig

LEFT_BY_A_RUN = {"samples", "checkpoints", "train.log", "metrics.jsonl", ".lock"}
POINTS = 2000  # of a generator of the plane
NOT_COMPARED = RESUMABLE - {"steps"}  # settings without influence on what a run computes


def find_runs(given: str) -> list[Path]:
    """Return the run folder `given`, or all run folders below it, sorted by path.

    A folder beside a run counts too if it holds only what a run leaves behind: that run failed at
    its start. Raise UserError if there is no run.
    """
    top = Path(given).expanduser()
    if not top.exists():
        pretrained = top.parts[:1] == ("pretrained",)
        fault = "a generator without its run; give run folders" if pretrained else "no such folder"
        raise UserError(f"runs={given}: {fault}")
    if not top.is_dir():
        raise UserError(f"runs={given}: a file; give the run's folder, or that of a sweep")
    if is_run(top):
        return [top]
    runs: list[Path] = []
    for folder, names, _ in os.walk(top):
        below = [Path(folder) / name for name in sorted(names) if not name.startswith(".")]
        found = [path for path in below if is_run(path)]
        names[:] = [path.name for path in below if path not in found]
        runs += [path for path in below if path in found or (found and is_remainder(path))]
    if not runs:
        raise UserError(f"runs={given}: no run in that folder; began train makes one")
    return sorted(runs)


def is_run(folder: Path) -> bool:
    """Return whether a run has written its settings, a log or a checkpoint to the folder."""
    files = (folder / "config.yaml", folder / "metrics.jsonl")
    return any(path.is_file() for path in files) or bool(checkpoint.find_all(folder))


def is_remainder(folder: Path) -> bool:
    """Return whether the folder may come from a run that failed before its first log."""
    return {path.name for path in folder.iterdir()} <= LEFT_BY_A_RUN


def read_run(folder: Path, root: Path, n: int, device: torch.device) -> tuple[Run, list[str]]:
    """Return a run with n samples of its generator, and a warning for each fault in its folder.

    `root` is the common parent of all runs.
    """
    logs = records.read_logs(folder)
    settings = read_settings(folder)
    name = folder.resolve().relative_to(root).as_posix()
    run = Run(folder, name, drop_resumable(settings), curves=records.collect_curves(logs))
    try:
        path, state, warnings = checkpoint.read(str(folder), "runs")
        with checkpoint.fits(path, "runs"):
            run.step, trained = int(state["step"]), flatten(state["config"])
    except UserError as error:
        run.state, run.status = records.describe_state(None, settings, logs)
        if not checkpoint.find_all(folder):
            return run, []
        run.state, run.status = FAILED, "failed: no checkpoint of it can be read"
        return run, name_run(run, [str(error)])
    # A resumed run has its new number of steps in config.yaml first, in its checkpoints later.
    trained |= {"steps": settings["steps"]} if "steps" in settings else {}
    run.settings = drop_resumable(trained) | {"data": str(state["data"].get("sha256"))[:8]}
    run.state, run.status = records.describe_state(run.step, trained, logs)
    run.scores, left_out = records.read_scores(folder, run.step)
    try:
        config = parse("train", state["config"])
        generator = load.build(config, state["ema"], device)
        run.sheet, run.sheet_size = draw_samples(generator, config, n)
    except Exception as error:  # of any kind: the other runs are shown all the same
        warnings.append(f"no samples of it: {path.name} makes no generator here ({reason(error)})")
    return run, name_run(run, warnings + left_out)


def name_run(run: Run, warnings: list[str]) -> list[str]:
    """Return the warnings with the run's name, not its path: the page is the same everywhere."""
    lines = [line.replace(f"runs={run.folder}", run.name) for line in warnings]
    return [line if line.startswith(run.name) else f"{run.name}: {line}" for line in lines]


def read_settings(folder: Path) -> dict[str, Any]:
    """Return the settings in config.yaml by dotted name; none if the file is missing or damaged."""
    try:
        return flatten(read_yaml(folder / "config.yaml"))
    except (OSError, ValueError):
        return {}


def drop_resumable(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings that influence what a run computes, and how far it goes."""
    return {name: value for name, value in settings.items() if name not in NOT_COMPARED}


def complete_data(runs: list[Run]) -> None:
    """Set the data of runs without checkpoint to those of the runs with the same `dataset.name`."""
    for run in runs:
        if run.settings and "data" not in run.settings:
            known = {
                other.settings["data"]
                for other in runs
                if "data" in other.settings
                and other.settings.get("dataset.name") == run.settings.get("dataset.name")
            }
            run.settings["data"] = known.pop() if len(known) == 1 else None


def check_data(runs: list[Run]) -> list[str]:
    """Return a warning if the runs were not all trained on the same images."""
    hashes = {run.settings["data"] for run in runs if run.settings.get("data")}
    if len(hashes) < 2:
        return []
    listed = ", ".join(sorted(hashes))
    return [
        f"these runs were not trained on the same data ({listed}): their scores are not comparable"
    ]


@torch.no_grad()
def draw_samples(
    generator: nn.Module, config: TrainConfig, n: int
) -> tuple[bytes, tuple[int, int]]:
    """Return a PNG of the images of seeds 0 to n - 1, or of points of the plane, and its size."""
    dim = config.model.latent_dim
    if config.dataset.channels == 2:
        z = latents.from_seeds(range(POINTS), dim)
        points = generator(z.to(next(generator.parameters()).device))
        sheet = images.draw_points(points.float(), points[:0], 256)
    else:
        samples = generate_all(generator, latents.from_seeds(range(n), dim))
        sheet = images.grid(samples, images.columns_for(n))[: 1 if samples.shape[1] == 1 else 3]
    file = io.BytesIO()
    picture = images.to_pil(sheet)
    picture.save(file, format="PNG", compress_level=9)
    return file.getvalue(), picture.size

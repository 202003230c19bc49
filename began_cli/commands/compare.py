"""`began compare`: runs beside each other, on one page and in one table."""

import io
import os
import sys
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import nn

from began_cli import images
from began_cli.comparison import page, records, tables
from began_cli.comparison.records import FAILED, Run
from began_cli.device import pick_device
from began_cli.errors import UserError
from began_cli.files import output_folder, replacing, writing
from began_cli.gan import latents
from began_cli.generators import checkpoint
from began_cli.generators.load import build
from began_cli.generators.sampling import generate_all
from began_cli.settings.commands import CompareConfig
from began_cli.settings.parse import flatten, parse, read_yaml
from began_cli.settings.train import RESUMABLE, TrainConfig

NAME = "compare"  # of the page and the table
LEFT_BY_A_RUN = {"samples", "checkpoints", "train.log", "metrics.jsonl", ".lock"}
POINTS = 2000  # of a generator in the plane
# Settings that change nothing of what a run computes; how far it went does.
NOT_COMPARED = RESUMABLE - {"steps"}


def main(cfg: CompareConfig) -> None:
    """Writes compare.html and compare.csv on the runs of `cfg.runs`.

    A run that failed, or that was never finished, is shown as such.
    """
    device = pick_device(cfg.device)
    folders = [folder for given in cfg.runs for folder in found(given)]
    folders = list({folder.resolve(): folder for folder in folders}.values())
    root = Path(os.path.commonpath([folder.resolve().parent for folder in folders]))
    runs: list[Run] = []
    warnings: list[str] = []
    with Console(stderr=True).status("reading runs") as status:
        for i, folder in enumerate(folders, 1):
            status.update(f"reading run {i} of {len(folders)}")
            run, said = read(folder, root, cfg.n, device)
            runs.append(run)
            warnings += said
    warnings += compared_data(runs)
    runs = tables.in_order(runs)
    groups, doubts = tables.grouped(runs)
    warnings += doubts
    seeds = f"seeds 0 to {cfg.n - 1}" if cfg.n > 1 else "seed 0"
    samples = f"Of each averaged generator, from the same latents: those of {seeds}."
    title = f"{root.name}: {len(runs)} runs" if len(runs) > 1 else runs[0].name
    html = page.compose(page.Comparison(title, runs, groups, warnings, samples))
    out = output_folder(cfg.out or place(cfg.runs))
    with writing(out):
        for ending, text in (("csv", tables.as_csv(runs, groups)), ("html", html)):
            with replacing(out / f"{NAME}.{ending}") as temporary:
                temporary.write_bytes(text.encode(errors="replace"))
    for line in warnings:
        print(f"warning: {line}", file=sys.stderr)
    states = [run.state for run in runs]
    counts = ", ".join(f"{states.count(state)} {state}" for state in page.SIGNS if state in states)
    Console(highlight=False).print(
        f"{len(runs)} runs ({counts}): {out}/{NAME}.html, {out}/{NAME}.csv",
        markup=False,
        soft_wrap=True,
    )


# --- which runs -----------------------------------------------------------------------------------


def found(given: str) -> list[Path]:
    """The run folders that `given` means: itself, or those anywhere below it, by name.

    Beside a run, a folder with nothing but what a run leaves behind is one that came to nothing.
    Raises UserError if there is none.
    """
    top = Path(given).expanduser()
    if not top.exists():
        raise UserError(f"runs={given}: no such folder")
    if not top.is_dir():
        raise UserError(f"runs={given}: a file; give the run's folder, or that of a sweep")
    if is_run(top):
        return [top]
    runs: list[Path] = []
    for folder, inside, _ in os.walk(top):
        below = [Path(folder) / name for name in sorted(inside) if not name.startswith(".")]
        whole = [path for path in below if is_run(path)]
        inside[:] = [path.name for path in below if path not in whole]
        runs += [path for path in below if path in whole or (whole and came_to_nothing(path))]
    if not runs:
        raise UserError(f"runs={given}: no run in that folder; began train makes one")
    return sorted(runs)


def is_run(folder: Path) -> bool:
    """Whether training has been there."""
    return (
        bool(checkpoint.all_of(folder))
        or (folder / "config.yaml").is_file()
        or (folder / "metrics.jsonl").is_file()
    )


def came_to_nothing(folder: Path) -> bool:
    return {path.name for path in folder.iterdir()} <= LEFT_BY_A_RUN


def place(given: list[str]) -> str:
    """Where the page goes by itself: the one folder given, or the one that all those given are in.

    Runs from several places: the folder that the command was called in.
    """
    if len(given) == 1:
        return given[0]
    above = {Path(each).expanduser().resolve().parent for each in given}
    return str(above.pop()) if len(above) == 1 else "."


# --- one run --------------------------------------------------------------------------------------


def read(folder: Path, root: Path, n: int, device: torch.device) -> tuple[Run, list[str]]:
    """A run with n samples of its generator, and a line for each thing that is wrong with it."""
    name = folder.resolve().relative_to(root).as_posix()
    curves = records.curves(folder)
    there = settings_of(folder)
    run = Run(folder, name, compared(there), curves=curves)
    try:
        path, state, said = checkpoint.read(str(folder), "runs")
        with checkpoint.fits(path, "runs"):
            step, trained_with = int(state["step"]), dict(state["config"])
    except UserError as error:
        run.state, run.status = records.state(folder, None, there, curves)
        if not checkpoint.all_of(folder):
            return run, []
        run.state, run.status = FAILED, "failed: no checkpoint of it can be read"
        return run, told(run, [str(error)])
    # A run that goes on says so in config.yaml first, and in its checkpoints later.
    now = flatten(trained_with | ({"steps": there["steps"]} if "steps" in there else {}))
    run.settings = compared(now) | {"data": str(state["data"].get("sha256"))[:8]}
    run.step = step
    run.state, run.status = records.state(folder, step, now, curves)
    run.scores, left_out = records.scores(folder, step)
    try:
        trained = parse("train", state["config"])
        generator = build(trained, state["ema"], device)
        run.sheet, run.sheet_size = sheet(generator, trained, n)
    except Exception as error:  # of any kind: the other runs are to be shown all the same
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        said.append(f"no samples of it: {path.name} makes no generator here ({reason})")
    return run, told(run, said + left_out)


def told(run: Run, lines: list[str]) -> list[str]:
    """The lines with the run's name for its path: the page is the same wherever it is made."""
    named = [line.replace(f"runs={run.folder}", run.name) for line in lines]
    return [line if line.startswith(run.name) else f"{run.name}: {line}" for line in named]


def settings_of(folder: Path) -> dict[str, Any]:
    """What config.yaml says, flat; nothing if it is not there or not whole."""
    try:
        return flatten(read_yaml(folder / "config.yaml"))
    except (OSError, ValueError):
        return {}


def compared(flat: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in flat.items() if name not in NOT_COMPARED}


def compared_data(runs: list[Run]) -> list[str]:
    """A line if the runs were not trained on the same images.

    A run without a checkpoint cannot say; it is taken to be of the data of those that are like it.
    """
    hashes = {run.settings["data"] for run in runs if "data" in run.settings}
    for run in runs:
        if run.settings and "data" not in run.settings:
            like = {
                other.settings["data"]
                for other in runs
                if "data" in other.settings
                and other.settings.get("dataset.name") == run.settings.get("dataset.name")
            }
            run.settings["data"] = like.pop() if len(like) == 1 else None
    if len(hashes) < 2:
        return []
    by = ", ".join(sorted(hashes))
    return [f"these runs were not trained on the same data ({by}): their scores do not compare"]


@torch.no_grad()
def sheet(generator: nn.Module, trained: TrainConfig, n: int) -> tuple[bytes, tuple[int, int]]:
    """A PNG of the images of seeds 0 to n - 1, or of points of the plane, and its size."""
    dim = trained.model.latent_dim
    if trained.dataset.channels == 2:
        z = latents.from_seeds(range(POINTS), dim)
        points = generator(z.to(next(generator.parameters()).device))
        made = images.draw_points(points.float(), points[:0], 256)
    else:
        shown = generate_all(generator, latents.from_seeds(range(n), dim))
        made = images.grid(shown, images.columns_for(n))[: 1 if shown.shape[1] == 1 else 3]
    file = io.BytesIO()
    picture = images.to_pil(made)
    picture.save(file, format="PNG", compress_level=9)
    return file.getvalue(), picture.size

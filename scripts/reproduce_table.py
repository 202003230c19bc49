"""Every loss on every data set, a few seeds each: one table.

    python scripts/reproduce_table.py [--images 512000] [--seeds 0 1 2] [--out table]
        [--losses bgan gan …] [--datasets mnist fashion_mnist] [--root FOLDER] [--show]
        [--set setting=value …]

Trains with the defaults of each loss for its own number of steps, or with --images until its
discriminator has seen that many real images; scores the averaged generator on 10,000 of its images
(26,000 of stacked_mnist) and prints the means over the seeds with their standard deviations. The
runs stay in --out: what is done is not done again, a run that is shorter goes on (so ask for fewer
images first), and --show only prints.
"""

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmark import composed, plainly, setting
from omegaconf import DictConfig, OmegaConf

from began_cli.comparison import records
from began_cli.errors import UserError
from began_cli.generators import checkpoint
from began_cli.settings.fields import GROUPS
from began_cli.settings.parse import read_yaml, to_plain
from began_cli.settings.train import TrainConfig
from began_cli.training.resume import auto_margin

LOSSES = ("bgan", "gan", "wgan", "wgan_gp", "ebgan", "ebgan_pt", "began", "began_relative")
FOLDERS = {"mnist": "mnist", "fashion_mnist": "fashion_mnist", "cifar10": "cifar10"}
FOLDERS["stacked_mnist"] = "mnist"  # it is made of MNIST
FALLS_BACK = ("mnist", "stacked_mnist")  # on what comes with began
SCORES = ("fid", "kid", "precision", "recall", "coverage", "modes", "modes_kl")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    choices = sorted({*LOSSES, *GROUPS["loss"]})
    parser.add_argument(
        "--images", type=at_least(1), help="real images; else each loss's own steps"
    )
    parser.add_argument("--seeds", type=at_least(0), nargs="+", default=[0, 1, 2])
    parser.add_argument("--losses", nargs="+", choices=choices, default=LOSSES, metavar="LOSS")
    parser.add_argument(
        "--datasets", nargs="+", choices=FOLDERS, default=["mnist", "fashion_mnist"]
    )
    parser.add_argument("--root", type=Path, help="holds the folders mnist, fashion_mnist, cifar10")
    parser.add_argument("--out", type=Path, default=Path("table"))
    parser.add_argument("--show", action="store_true", help="print what is there, train nothing")
    parser.add_argument("--set", nargs="*", default=[], help="settings of `began train`, for all")
    args = parser.parse_args()
    for word in args.set:
        if setting(word) in ("loss", "dataset", "seed", "out", "dataset.root"):
            parser.error(f"--set {word}: --losses, --datasets, --seeds, --out and --root say that")
        if setting(word) == "steps" and args.images:
            parser.error(f"--set {word}: --images {args.images} says that")
    for name in ("losses", "datasets", "seeds"):
        setattr(args, name, list(dict.fromkeys(getattr(args, name))))
    with plainly():
        for dataset in args.datasets:
            print(table(dataset, args), flush=True)


def at_least(least: int) -> Callable[[str], int]:
    """Reads a whole number that is no less."""

    def number(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text}: wants a whole number, at least {least}")
        return int(text)

    return number


def folder(loss: str, seed: int, dataset: str, args: argparse.Namespace) -> Path:
    return args.out / dataset / f"{loss}-{seed}"


def table(dataset: str, args: argparse.Namespace) -> str:
    """Markdown: a row a loss, mean ± standard deviation over its seeds."""
    names = ["steps", *SCORES, "rarest class, %", "images/s", "minutes"]
    rows = [f"| {dataset} | seeds | {' | '.join(names)} |", "|---" * (len(names) + 2) + "|"]
    floor: dict[str, float] = {}
    steps = {loss: length(loss, dataset, args) for loss in args.losses}
    for seed in args.seeds:  # all losses of one seed first: a broken-off table is fair
        for loss in args.losses:
            if not args.show:
                made(folder(loss, seed, dataset, args), loss, steps[loss], args)
    for loss in args.losses:
        folders = [folder(loss, seed, dataset, args) for seed in args.seeds]
        runs = [scores for run in folders if (scores := read(run, steps[loss], floor))]
        cells = [spread([run[name] for run in runs if name in run]) for name in names]
        if runs:
            rows.append(f"| {loss} | {len(runs)} | {' | '.join(cells)} |")
    if not floor:
        raise UserError(
            f"--show: {args.out / dataset} holds no scores of these runs at that length"
        )
    real = [shown(floor[name]) if name in floor else "" for name in names]
    return "\n".join([*rows, f"| real images | | {' | '.join(real)} |"])


def length(loss: str, dataset: str, args: argparse.Namespace) -> int:
    """Steps of a run; refuses settings that its loss does not have, and runs made with others."""
    cfg = composed([f"loss={loss}", f"dataset={dataset}", *args.set])
    critics = getattr(cfg.loss, "n_critic", 1)
    steps = cfg.steps if args.images is None else -(-args.images // (cfg.batch_size * critics))
    for run in [folder(loss, seed, dataset, args) for seed in args.seeds]:
        refuse_another(run, cfg, args.set)
        if not args.show and not evaluation(run, steps) and newest(run) > steps:
            raise UserError(
                f"--images: {run} is at step {newest(run):,} already, and was not scored at "
                f"{steps:,}; give another --out"
            )
    return steps


def refuse_another(run: Path, cfg: TrainConfig, words: list[str]) -> None:
    """Refuses a run that was made with other values of the settings that `words` set in `cfg`."""
    wanted = OmegaConf.create(to_plain(cfg))
    saved = saved_settings(run) or wanted
    for key in map(setting, words):
        was, now = OmegaConf.select(saved, key), OmegaConf.select(wanted, key)
        # A margin that was to be found stands there as the number it became.
        if key not in {"steps"} | auto_margin(cfg) and was != now:
            raise UserError(f"{key}: {run} has {was}, not {now}; give another --out")


def saved_settings(run: Path) -> DictConfig | None:
    """Those of a run that was begun."""
    path = run / "config.yaml"
    try:
        return OmegaConf.create(read_yaml(path)) if path.exists() else None
    except ValueError as error:
        raise UserError(f"{path}: not what `began train` writes; move the run away") from error


def newest(run: Path) -> int:
    """The step of a run's last checkpoint, 0 if it has none."""
    return max(map(checkpoint.step_of, checkpoint.all_of(run)), default=0)


def made(run: Path, loss: str, steps: int, args: argparse.Namespace) -> None:
    """Trains and scores one run, as far as that has not been done."""
    if evaluation(run, steps):
        return
    dataset, seed = run.parent.name, run.name.rpartition("-")[2]
    root = [] if args.root is None else [str((args.root / FOLDERS[dataset]).absolute())]
    if newest(run) == 0:
        line = [f"loss={loss}", f"dataset={dataset}", f"seed={seed}", "log_every=100", *args.set]
        line += [f"dataset.root={folder}" for folder in root]
        if root and dataset in FALLS_BACK:
            line += ["dataset.fallback=false"]
        began("train", *line, f"steps={steps}", f"out={run}")
    elif newest(run) < steps:
        began("train", f"resume={run}", f"steps={steps}")
    ckpt = checkpoint.path_for(run, steps)
    began("evaluate", f"ckpt={ckpt}", *[f"root={folder}" for folder in root])


def evaluation(run: Path, step: int | None = None) -> dict[str, Any]:
    """The newest scores of that checkpoint, by default of the last one scored; {} if none."""
    path = run / "evaluation.json"
    if not path.exists():
        return {}
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))["evaluations"]
        step = max(entry["step"] for entry in entries) if step is None else step
        entry = next((entry for entry in reversed(entries) if entry["step"] == step), {})
        if entry and not all(
            isinstance(score[key], int | float)
            for score in entry["scores"].values()
            for key in ("value", "floor")
        ):
            raise TypeError
        return entry
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: not what `began evaluate` writes; remove it") from error


def logs_of(run: Path) -> list[dict[str, Any]]:
    """What the run logged; a line that is none of it is passed over."""
    return [log for log in records.logs(run) if isinstance(log.get("images"), int)]


def began(*line: str) -> None:
    """One command, which says itself what is wrong; a Ctrl-C is its own to save on, then ours."""
    command = [sys.executable, "-m", "began_cli", *line]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            try:
                process.wait()
            except KeyboardInterrupt:
                print("waiting until the run is saved; the same line goes on", file=sys.stderr)
    if process.returncode:
        raise SystemExit(process.returncode)


def read(run: Path, step: int, floor: dict[str, float]) -> dict[str, float]:
    """The scores of a run at that step, its speed and its minutes until then; {} if it has none."""
    entry = evaluation(run, step)
    if not entry:
        return {}
    scores = {name: entry["scores"][name] for name in SCORES if name in entry["scores"]}
    found = {"steps": float(step)} | {name: score["value"] for name, score in scores.items()}
    floor |= {name: score["floor"] for name, score in scores.items()}
    if "classes" in entry:
        found["rarest class, %"] = 100 * min(entry["classes"]) / sum(entry["classes"])
        floor["rarest class, %"] = 100 * min(entry["real_classes"]) / sum(entry["real_classes"])
    logs = [log for log in logs_of(run) if log["step"] <= step]
    speeds = [log["train/images_per_second"] for log in logs]
    counts = [0, *(log["images"] for log in logs)]
    seconds = [(b - a) / s for a, b, s in zip(counts, counts[1:], speeds, strict=False)]
    if logs:
        found |= {"images/s": statistics.median(speeds), "minutes": sum(seconds) / 60}
    return found


def spread(values: list[float]) -> str:
    if len(set(values)) < 2:
        return shown(values[0]) if values else "-"
    return f"{shown(statistics.mean(values))} ± {shown(statistics.stdev(values), 2)}"


def shown(value: float, digits: int = 3) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.{digits}g}"


if __name__ == "__main__":
    main()

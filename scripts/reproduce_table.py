"""Every loss on every data set, a few seeds each: one table.

    python scripts/reproduce_table.py [--images 512000] [--seeds 0 1 2] [--out table]
        [--losses bgan gan …] [--datasets mnist fashion_mnist] [--root FOLDER] [--show]
        [setting=value …]

Trains with the defaults of each loss for its own number of steps, or with --images until its
discriminator has seen that many real images; scores the averaged generator on 10,000 of its images
(26,000 of stacked_mnist) and prints the means over the seeds with their standard deviations. The
runs stay in --out: what is done is not done again, a run that is shorter goes on, and --show only
prints.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmark import composed

LOSSES = ("bgan", "gan", "wgan", "wgan_gp", "ebgan", "ebgan_pt", "began", "began_relative")
SCORES = ("fid", "kid", "precision", "recall", "coverage", "modes", "modes_kl")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, help="real images; else each loss's own steps")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--losses", nargs="+", default=LOSSES)
    parser.add_argument("--datasets", nargs="+", default=["mnist", "fashion_mnist"])
    parser.add_argument("--root", type=Path, help="holds a folder for each data set, of its name")
    parser.add_argument("--out", type=Path, default=Path("table"))
    parser.add_argument("--show", action="store_true", help="print what is there, train nothing")
    parser.add_argument("settings", nargs="*", help="as for `began train`, for all runs")
    args = parser.parse_intermixed_args()
    for dataset in args.datasets:
        if not args.show:
            root = [] if args.root is None else [str((args.root / dataset).absolute())]
            for seed in args.seeds:  # all losses of one seed first: a broken-off table is fair
                for loss in args.losses:
                    made(args.out / dataset / f"{loss}-{seed}", loss, dataset, seed, args, root)
        print(table(args.out / dataset, args.losses, args.images, args.settings), flush=True)


def length(loss: str, dataset: str, images: int | None, settings: list[str]) -> int:
    """Steps of a run."""
    cfg = composed([f"loss={loss}", f"dataset={dataset}", *settings])
    critics = getattr(cfg.loss, "n_critic", 1)
    return cfg.steps if images is None else -(-images // (cfg.batch_size * critics))


def made(
    run: Path, loss: str, dataset: str, seed: int, args: argparse.Namespace, root: list[str]
) -> None:
    """Trains and scores one run, as far as that has not been done."""
    steps = length(loss, dataset, args.images, args.settings)
    if evaluation(run, steps):
        return
    places = [f"dataset.root={folder}" for folder in root]
    there = sorted(run.glob("checkpoints/step-*.pt"))
    if not there:
        line = [f"loss={loss}", f"dataset={dataset}", f"seed={seed}", *args.settings]
        line += ["log_every=100", "checkpoint_every=1000000"]
        began("train", *line, f"steps={steps}", f"out={run}", *places)
    elif steps > int(there[-1].stem.removeprefix("step-")):
        began("train", f"resume={run}", f"steps={steps}")
    ckpt = run / "checkpoints" / f"step-{steps:08}.pt"
    began("evaluate", f"ckpt={ckpt}", *[f"root={folder}" for folder in root])


def evaluation(run: Path, step: int) -> dict[str, Any]:
    """The newest scores of that checkpoint; {} if there are none."""
    path = run / "evaluation.json"
    entries = json.loads(path.read_text(encoding="utf-8"))["evaluations"] if path.exists() else []
    return next((entry for entry in reversed(entries) if entry["step"] == step), {})


def began(*line: str) -> None:
    done = subprocess.run([sys.executable, "-m", "began_cli", *line], stdout=subprocess.DEVNULL)
    if done.returncode:
        raise SystemExit(f"began {' '.join(line)}: exit code {done.returncode}")


def table(folder: Path, losses: list[str], images: int | None, settings: list[str]) -> str:
    """Markdown: a row a loss, mean ± standard deviation over its seeds."""
    names = ["steps", *SCORES, "rarest class, %", "images/s", "minutes"]
    rows = [f"| {folder.name} | seeds | {' | '.join(names)} |", "|---" * (len(names) + 2) + "|"]
    floor: dict[str, float] = {}
    for loss in losses:
        steps = length(loss, folder.name, images, settings)
        found = [read(run, steps, floor) for run in sorted(folder.glob(f"{loss}-[0-9]*"))]
        runs = [scores for scores in found if scores]
        cells = [spread([run[name] for run in runs if name in run]) for name in names]
        if runs:
            rows.append(f"| {loss} | {len(runs)} | {' | '.join(cells)} |")
    real = [f"{floor[name]:.3g}" if name in floor else "" for name in names]
    return "\n".join([*rows, f"| real images | | {' | '.join(real)} |"])


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
    logs = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    logs = [log for log in logs if log["step"] <= step]
    speeds = [log["train/images_per_second"] for log in logs]
    found["images/s"] = statistics.median(speeds)
    counts = [0, *(log["images"] for log in logs)]
    seconds = [(b - a) / s for a, b, s in zip(counts, counts[1:], speeds, strict=False)]
    found["minutes"] = sum(seconds) / 60
    return found


def spread(values: list[float]) -> str:
    if len(set(values)) < 2:
        return f"{values[0]:,.4g}" if values else "-"
    return f"{statistics.mean(values):,.3g} ± {statistics.stdev(values):.2g}"


if __name__ == "__main__":
    main()

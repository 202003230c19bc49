"""Train and score every loss on every data set, with a few seeds each, and print one table.

    python scripts/reproduce_table.py [--images 512000] [--seeds 0 1 2] [--out table]
        [--losses bgan gan …] [--datasets mnist fashion_mnist] [--root FOLDER] [--show]
        [--set setting=value …]

Trains with the defaults of each loss for its own number of steps, or with --images until its
discriminator has seen that many real images. Scores the averaged generator on 10,000 of its images
(26,000 for stacked_mnist) and prints means ± standard deviations over the seeds. Runs are kept in
--out: a finished run is not repeated and a shorter one is resumed, so ask for fewer images first.
--show only prints.
"""

import argparse
import statistics
from pathlib import Path

from common import (
    at_least,
    check_settings,
    class_shares,
    compose_settings,
    format_number,
    format_spread,
    make_parser,
    name_of,
    newest_step,
    read_evaluation,
    read_logs,
    report_errors,
    run_began,
)

from began_cli.errors import UserError
from began_cli.evaluation.attributes import Shares
from began_cli.generators import checkpoint
from began_cli.settings.fields import GROUPS

LOSSES = ("bgan", "gan", "wgan", "wgan_gp", "ebgan", "ebgan_pt", "began", "began_paper")
FOLDERS = {"mnist": "mnist", "fashion_mnist": "fashion_mnist", "cifar10": "cifar10"}
FOLDERS["stacked_mnist"] = "mnist"  # it is made of MNIST
FOLDERS["avatars"] = ""  # began ships all of them
WITH_FALLBACK = ("mnist", "stacked_mnist")  # began ships images for these
SCORES = ("fid", "kid", "precision", "recall", "coverage", "modes", "modes_kl")
RAREST = "rarest class, %"
RAREST_VALUE = "rarest value"  # of an attribute, as a part of its share among real images


def main() -> None:
    parser = make_parser(__doc__)
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
        if name_of(word) in ("loss", "dataset", "seed", "out", "dataset.root"):
            parser.error(
                f"--set {word}: use --losses, --datasets, --seeds, --out or --root for that"
            )
        if name_of(word) == "steps" and args.images:
            parser.error(f"--set {word}: --images {args.images} sets the steps; leave out one")
    for name in ("losses", "datasets", "seeds"):
        setattr(args, name, list(dict.fromkeys(getattr(args, name))))
    with report_errors():
        for dataset in args.datasets:
            print(make_table(dataset, args), flush=True)


def run_folder(loss: str, seed: int, dataset: str, args: argparse.Namespace) -> Path:
    return args.out / dataset / f"{loss}-{seed}"


def make_table(dataset: str, args: argparse.Namespace) -> str:
    """Train what is missing, and return a row per loss: mean ± standard deviation over seeds."""
    rarest = RAREST_VALUE if dataset == "avatars" else RAREST
    names = ["steps", *SCORES, rarest, "images/s", "minutes"]
    rows = [f"| {dataset} | seeds | {' | '.join(names)} |", "|---" * (len(names) + 2) + "|"]
    floors: dict[str, float] = {}
    steps = {loss: count_steps(loss, dataset, args) for loss in args.losses}
    for seed in args.seeds:  # all losses with one seed first: an unfinished table is still fair
        for loss in args.losses:
            if not args.show:
                complete_run(run_folder(loss, seed, dataset, args), loss, steps[loss], args)
    for loss in args.losses:
        folders = [run_folder(loss, seed, dataset, args) for seed in args.seeds]
        runs = [numbers for run in folders if (numbers := read_run(run, steps[loss], floors))]
        cells = [format_spread([run[name] for run in runs if name in run]) for name in names]
        if runs:
            rows.append(f"| {loss} | {len(runs)} | {' | '.join(cells)} |")
    if not floors:
        raise UserError(
            f"--show: {args.out / dataset} holds no scores of these runs at that length"
        )
    real = [format_number(floors[name]) if name in floors else "" for name in names]
    return "\n".join([*rows, f"| real images | | {' | '.join(real)} |"])


def count_steps(loss: str, dataset: str, args: argparse.Namespace) -> int:
    """Return the steps of a run.

    Raise UserError for settings that the loss lacks, and for runs that were made with other ones or
    are too long already.
    """
    cfg = compose_settings([f"loss={loss}", f"dataset={dataset}", *args.set])
    critics = getattr(cfg.loss, "n_critic", 1)
    steps = cfg.steps if args.images is None else -(-args.images // (cfg.batch_size * critics))
    for run in [run_folder(loss, seed, dataset, args) for seed in args.seeds]:
        check_settings(run, cfg, args.set)
        if not args.show and not read_evaluation(run, steps) and newest_step(run) > steps:
            raise UserError(
                f"--images: {run} is at step {newest_step(run):,} already, and was not scored at "
                f"{steps:,}; give another --out"
            )
    return steps


def complete_run(run: Path, loss: str, steps: int, args: argparse.Namespace) -> None:
    """Train and score a run, as far as that has not been done."""
    if read_evaluation(run, steps):
        return
    dataset, seed = run.parent.name, run.name.rpartition("-")[2]
    folder = FOLDERS[dataset]
    root = [str((args.root / folder).absolute())] if args.root and folder else []
    if newest_step(run) == 0:
        line = [f"loss={loss}", f"dataset={dataset}", f"seed={seed}", "log_every=100", *args.set]
        line += [f"dataset.root={folder}" for folder in root]
        if root and dataset in WITH_FALLBACK:
            line += ["dataset.fallback=false"]
        run_began("train", *line, f"steps={steps}", f"out={run}")
    elif newest_step(run) < steps:
        run_began("train", f"resume={run}", f"steps={steps}")
    ckpt = checkpoint.path_for(run, steps)
    run_began("evaluate", f"ckpt={ckpt}", *[f"root={folder}" for folder in root])


def read_run(run: Path, step: int, floors: dict[str, float]) -> dict[str, float]:
    """Return the scores of a run at that step, its speed and its minutes; {} if not scored.

    Add the scores of real images to `floors`.
    """
    entry = read_evaluation(run, step)
    if not entry:
        return {}
    scores = {name: entry["scores"][name] for name in SCORES if name in entry["scores"]}
    numbers = {"steps": float(step)} | {name: score["value"] for name, score in scores.items()}
    floors |= {name: score["floor"] for name, score in scores.items()}
    if "classes" in entry:
        numbers[RAREST] = min(class_shares(entry["classes"]))
        floors[RAREST] = min(class_shares(entry["real_classes"]))
    if "attributes" in entry:
        shares = [Shares(**each) for each in entry["attributes"].values()]
        numbers[RAREST_VALUE] = min(each.rarest[1] for each in shares)
    logs = [log for log in read_logs(run) if log["step"] <= step]
    speeds = [log["train/images_per_second"] for log in logs]
    counts = [0, *(log["images"] for log in logs)]
    seconds = [(b - a) / s for a, b, s in zip(counts, counts[1:], speeds, strict=False)]
    if logs:
        numbers |= {"images/s": statistics.median(speeds), "minutes": sum(seconds) / 60}
    return numbers


if __name__ == "__main__":
    main()

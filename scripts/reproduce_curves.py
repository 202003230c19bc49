"""The curves of healthy and unhealthy runs that docs/losses shows.

    python scripts/reproduce_curves.py [--only began …] [--out curves] [setting=value …]

For each page a picture, PAGE-curves.png in --out, of a healthy run and of some that go wrong on
purpose: MNIST, 2,000 steps of 64, seed 0, two minutes each on one core. What the watchdog said of
them is printed. Runs stay in --out, and what is done is not done again. Settings are those of
`began train`, for all runs: dataset.root=FOLDER, precision=bf16.
"""

import argparse
import math
from pathlib import Path

from benchmark import composed, plainly, setting
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from reproduce_table import began, logs_of, newest, refuse_another

from began_cli.comparison.plots import PALETTE

STEPS, BATCH, EVERY = 2000, 64, 50
FAR = 20  # times
# A page's measures and runs: what a run shows, and the settings that make it.
PAGES: dict[str, tuple[tuple[str, ...], dict[str, list[str]]]] = {
    "began": (
        ("loss_real", "loss_fake", "k_t", "diversity"),
        {
            "healthy (began_relative)": ["loss=began_relative"],
            "collapse, k_t on 0 (loss=began)": ["loss=began"],
            "collapse in balance (gamma=0.3)": ["loss=began_relative", "loss.gamma=0.3"],
            "k_t on 1 (gamma=8)": ["loss=began_relative", "loss.gamma=8"],
        },
    ),
    "ebgan": (
        ("loss_real", "loss_fake", "loss_d", "diversity"),
        {
            "healthy (margin=10)": ["loss=ebgan_pt"],
            "margin too small (3)": ["loss=ebgan_pt", "loss.margin=3"],
            "margin out of reach (100)": ["loss=ebgan_pt", "loss.margin=100"],
        },
    ),
    **{
        loss: (
            ("loss_d", "loss_g", "diversity"),
            {
                "healthy": [f"loss={loss}"],
                "D wins (lr_d=2e-3, lr_g=1e-4)": [
                    *(f"loss={loss}", "optimizer.lr_d=2e-3", "optimizer.lr_g=1e-4")
                ],
                "D too slow (lr_d=1e-5)": [f"loss={loss}", "optimizer.lr_d=1e-5"],
            },
        )
        for loss in ("gan", "bgan")
    },
    "wgan": (
        ("loss_d", "loss_g", "diversity"),
        {
            "healthy (wgan_gp)": ["loss=wgan_gp"],
            "critic too slow (lr_d=1e-6)": ["loss=wgan_gp", "optimizer.lr_d=1e-6"],
            "too steep (gp_weight=0)": ["loss=wgan_gp", "loss.gp_weight=0"],
            "healthy (wgan, clipped)": ["loss=wgan"],
        },
    ),
}
OWN = ("loss", "steps", "out", "log_every", "seed")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=PAGES, default=list(PAGES), metavar="PAGE")
    parser.add_argument("--out", type=Path, default=Path("curves"))
    parser.add_argument("settings", nargs="*", help="as for `began train`")
    args = parser.parse_intermixed_args()
    for word in args.settings:
        if "=" not in word or setting(word) in OWN:
            parser.error(f"{word}: wants a setting=value other than {', '.join(OWN)}")
    with plainly():
        for page in args.only:
            measures, lines = PAGES[page]
            runs = {label: args.out / f"{page}-{i}" for i, label in enumerate(lines)}
            for label, run in runs.items():
                train(run, lines[label], args.settings)
                print(f"{page}, {label}: {'; '.join(alarms(run)) or 'no alarm'}", flush=True)
            print(picture(args.out / f"{page}-curves.png", measures, runs))


def train(run: Path, settings: list[str], others: list[str]) -> None:
    """One run, as far as it has not been done; refuses one that was made with other settings."""
    line = ["dataset=mnist", f"steps={STEPS}", f"batch_size={BATCH}", f"log_every={EVERY}"]
    line += ["seed=0", *settings, *others]
    refuse_another(run, composed(line), others)
    if newest(run) == 0:
        began("train", *line, f"out={run}")
    elif newest(run) < STEPS:
        began("train", f"resume={run}")


def alarms(run: Path) -> list[str]:
    """What the watchdog said."""
    lines = (run / "train.log").read_text(encoding="utf-8").splitlines()
    return [said for line in lines if (said := line.partition(" watchdog: ")[2])]


def picture(path: Path, measures: tuple[str, ...], runs: dict[str, Path]) -> Path:
    """A panel a measure, a line a run; logarithmic beyond 1 if they go FAR from the first run's."""
    figure = Figure(figsize=(3.2 * len(measures), 3.1), layout="constrained")
    panels = figure.subplots(1, len(measures))
    logs = {label: logs_of(run) for label, run in runs.items()}
    for panel, measure in zip(panels, measures, strict=True):
        name, far = f"train/{measure}", 0.0
        for (label, logged), colour in zip(logs.items(), PALETTE, strict=False):
            values = [log.get(name) for log in logged]
            values = [math.nan if value is None else value for value in values]  # not finite
            steps = [log["step"] for log in logged]
            panel.plot(steps, values, color=colour, label=label, linewidth=1.2)
            sizes = [abs(value) for value in values if math.isfinite(value)]
            far = far or FAR * max(sizes[len(sizes) // 4 :], default=math.inf)
            if max(sizes, default=0) > far:
                panel.set_yscale("symlog", linthresh=1)
        panel.set_title(measure, loc="left", fontsize=10)
        panel.set_xlabel("step", fontsize=8)
        panel.tick_params(labelsize=8)
        panel.grid(alpha=0.2)
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=9
    )
    FigureCanvasAgg(figure).print_png(path)
    return path


if __name__ == "__main__":
    main()

"""Draw the curves of healthy and unhealthy runs that docs/losses shows.

    python scripts/reproduce_curves.py [--only began …] [--out curves] [setting=value …]

For each page, writes PAGE-curves.png to --out: a healthy run and some that go wrong on purpose.
Each trains on MNIST for 2,000 steps of 64 images, seed 0, in two minutes on one core. Prints the
watchdog's alarms. Runs are kept in --out, and a finished run is not repeated. The settings are
those of `began train`, for all runs: dataset.root=FOLDER, precision=bf16.
"""

import math
from pathlib import Path

from common import (
    check_settings,
    compose_settings,
    make_parser,
    name_of,
    newest_step,
    read_logs,
    report_errors,
    run_began,
)
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from began_cli.comparison.plots import PALETTE

STEPS, BATCH, EVERY = 2000, 64, 50
FAR = 20  # times the largest value of the first run, after its first quarter
# For each page, the measures to draw and the runs: label -> settings.
PAGES: dict[str, tuple[tuple[str, ...], dict[str, list[str]]]] = {
    "began": (
        ("loss_real", "loss_fake", "k_t", "convergence", "diversity"),
        {
            "healthy (began)": ["loss=began"],
            "low gamma (began, gamma=0.5)": ["loss=began", "loss.gamma=0.5"],
            "D never learns (began, lr_d=1e-7)": ["loss=began", "optimizer.lr_d=1e-7"],
            "collapse (began_paper)": ["loss=began_paper"],
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
                "D wins (r1=0, lr_d=2e-3, lr_g=1e-4)": [
                    f"loss={loss}",
                    "loss.r1=0",
                    "optimizer.lr_d=2e-3",
                    "optimizer.lr_g=1e-4",
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
    parser = make_parser(__doc__)
    parser.add_argument("--only", nargs="+", choices=PAGES, default=list(PAGES), metavar="PAGE")
    parser.add_argument("--out", type=Path, default=Path("curves"))
    parser.add_argument("settings", nargs="*", help="as for `began train`")
    args = parser.parse_intermixed_args()
    for word in args.settings:
        if "=" not in word or name_of(word) in OWN:
            parser.error(f"{word}: wants a setting=value other than {', '.join(OWN)}")
    with report_errors():
        for page in args.only:
            measures, settings = PAGES[page]
            runs = {label: args.out / f"{page}-{i}" for i, label in enumerate(settings)}
            for label, run in runs.items():
                complete_run(run, settings[label], args.settings)
                print(f"{page}, {label}: {'; '.join(read_alarms(run)) or 'no alarm'}", flush=True)
            print(draw_curves(args.out / f"{page}-curves.png", measures, runs))


def complete_run(run: Path, settings: list[str], others: list[str]) -> None:
    """Train a run, as far as that has not been done.

    Raise UserError if it was started with other values of the settings in `others`.
    """
    line = ["dataset=mnist", f"steps={STEPS}", f"batch_size={BATCH}", f"log_every={EVERY}"]
    line += ["seed=0", *settings, *others]
    check_settings(run, compose_settings(line), others)
    if newest_step(run) == 0:
        run_began("train", *line, f"out={run}")
    elif newest_step(run) < STEPS:
        run_began("train", f"resume={run}")


def read_alarms(run: Path) -> list[str]:
    """Return what the watchdog reported, alarms and hints."""
    lines = (run / "train.log").read_text(encoding="utf-8").splitlines()
    return [alarm for line in lines if (alarm := line.partition(" watchdog: ")[2])]


def draw_curves(path: Path, measures: tuple[str, ...], runs: dict[str, Path]) -> Path:
    """Draw a panel per measure, a line per run, and return `path`.

    A panel is logarithmic beyond 1 if a run goes FAR beyond the first.
    """
    figure = Figure(figsize=(3.2 * len(measures), 3.1), layout="constrained")
    panels = figure.subplots(1, len(measures))
    logs = {label: read_logs(run) for label, run in runs.items()}
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

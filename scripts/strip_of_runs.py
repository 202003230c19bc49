"""Samples of runs side by side, from the same latents, under the setting that tells them apart.

    python scripts/strip_of_runs.py RUN|FOLDER … --by loss.gamma [--n 36] [--out strip.png]

A grid of each run's averaged generator, seeds 0 to n - 1, in order of that setting.
"""

import argparse
from pathlib import Path

from benchmark import plainly
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from omegaconf import DictConfig, OmegaConf
from reproduce_table import at_least
from table_of_runs import Run, ranked, runs_of, word

from began_cli import images, load_generator
from began_cli.errors import UserError

DPI = 100


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", metavar="RUN|FOLDER")
    parser.add_argument("--by", required=True, metavar="SETTING")
    parser.add_argument("--n", type=at_least(1), default=36, help="images of a run")
    parser.add_argument("--out", type=Path, default=Path("strip.png"))
    args = parser.parse_args()
    if args.out.suffix != ".png":
        parser.error(f"--out {args.out}: wants a name that ends with .png")
    with plainly():
        print(strip(runs_of(args.runs), args))


def strip(found: list[Run], args: argparse.Namespace) -> Path:
    values = {run.folder: OmegaConf.select(run.settings, args.by) for run in found}
    for run, value in values.items():
        if value is None or isinstance(value, DictConfig):
            raise UserError(f"--by {args.by}: {run} has no such setting")
    runs = sorted(values, key=lambda run: ranked(values[run]))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    sheets = []
    for run in runs:
        generator = load_generator(run)
        made = generator(generator.latents(range(args.n)))
        sheets.append(images.to_pil(images.grid(images.to_uint8(made), images.columns_for(args.n))))
    widths = [max(sheet.width, 120) + 20 for sheet in sheets]  # room for what is below it
    width = sum(widths)
    height = max(sheet.height for sheet in sheets) + 30
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI)
    left = 10
    for run, sheet, room in zip(runs, sheets, widths, strict=True):  # pixel for pixel
        figure.figimage(sheet, left, height - 5 - sheet.height)
        name = f"{args.by.rpartition('.')[2]} = {word(values[run])}"
        figure.text(left / width, 8 / height, name, fontsize=10, weight="bold")
        left += room
    FigureCanvasAgg(figure).print_png(args.out)
    return args.out


if __name__ == "__main__":
    main()

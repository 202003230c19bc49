"""Samples of runs side by side, from the same latents, under the setting that tells them apart.

    python scripts/strip_of_runs.py RUN|FOLDER … --by loss.gamma [--n 36] [--out strip.png]

A grid of each run's averaged generator, seeds 0 to n - 1, in order of that setting.
"""

import argparse
from pathlib import Path

from benchmark import plainly
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from reproduce_table import at_least
from table_of_runs import ranked, read, word

from began_cli import images, load_generator
from began_cli.commands.compare import found
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
    with plainly():
        print(strip([run for given in args.runs for run in found(given)], args))


def strip(runs: list[Path], args: argparse.Namespace) -> Path:
    values = {run: read(run).setting(args.by) for run in runs}
    if all(value is None for value in values.values()):
        raise UserError(f"--by {args.by}: none of the runs has that setting")
    runs = sorted(runs, key=lambda run: ranked(values[run]))
    sheets = []
    for run in runs:
        generator = load_generator(run)
        made = generator(generator.latents(range(args.n)))
        sheets.append(images.to_pil(images.grid(images.to_uint8(made), images.columns_for(args.n))))
    width = sum(sheet.width + 20 for sheet in sheets)
    height = max(sheet.height for sheet in sheets) + 30
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI)
    left = 10
    for run, sheet in zip(runs, sheets, strict=True):  # pixel for pixel
        figure.figimage(sheet, left, height - 5 - sheet.height)
        name = f"{args.by.rpartition('.')[2]} = {word(values[run])}"
        figure.text(left / width, 8 / height, name, fontsize=10, weight="bold")
        left += sheet.width + 20
    FigureCanvasAgg(figure).print_png(args.out)
    return args.out


if __name__ == "__main__":
    main()

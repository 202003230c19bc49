"""Draw samples of runs side by side, from the same latents, labelled with a setting.

    python scripts/strip_of_runs.py RUN|FOLDER … --by loss.gamma [--n 36] [--out strip.png]

A grid of images of each run's averaged generator, seeds 0 to n - 1, sorted by that setting.
"""

import argparse
from pathlib import Path

from common import at_least, make_parser, report_errors
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from omegaconf import DictConfig, OmegaConf
from table_of_runs import Run, format_setting, read_runs

from began_cli import images, load_generator
from began_cli.comparison.tables import rank
from began_cli.errors import UserError

DPI = 100


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("runs", nargs="+", metavar="RUN|FOLDER")
    parser.add_argument("--by", required=True, metavar="SETTING")
    parser.add_argument("--n", type=at_least(1), default=36, help="images of a run")
    parser.add_argument("--out", type=Path, default=Path("strip.png"))
    args = parser.parse_args()
    if args.out.suffix != ".png":
        parser.error(f"--out {args.out}: wants a name that ends with .png")
    with report_errors():
        print(draw_strip(read_runs(args.runs), args))


def draw_strip(runs: list[Run], args: argparse.Namespace) -> Path:
    """Write the picture and return its path. Raise UserError if a run lacks the setting."""
    values = {run.folder: OmegaConf.select(run.settings, args.by) for run in runs}
    for folder, value in values.items():
        if value is None or isinstance(value, DictConfig):
            raise UserError(f"--by {args.by}: {folder} has no such setting")
    folders = sorted(values, key=lambda folder: rank(values[folder]))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    sheets = []
    for folder in folders:
        generator = load_generator(folder)
        samples = images.to_uint8(generator(generator.latents(range(args.n))))
        sheets.append(images.to_pil(images.grid(samples, images.columns_for(args.n))))
    widths = [max(sheet.width, 120) + 20 for sheet in sheets]  # wide enough for the label
    width = sum(widths)
    height = max(sheet.height for sheet in sheets) + 30
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI)
    left = 10
    for folder, sheet, room in zip(folders, sheets, widths, strict=True):
        figure.figimage(sheet, left, height - 5 - sheet.height)  # one pixel for each of its own
        label = f"{args.by.rpartition('.')[2]} = {format_setting(values[folder])}"
        figure.text(left / width, 8 / height, label, fontsize=10, weight="bold")
        left += room
    FigureCanvasAgg(figure).print_png(args.out)
    return args.out


if __name__ == "__main__":
    main()

"""`began export`: a trained generator in one file, for use without its run."""

from pathlib import Path

import torch

from began_cli.errors import UserError
from began_cli.evaluation import report
from began_cli.files import writing
from began_cli.generators import portable
from began_cli.generators.checkpoint import run_of
from began_cli.generators.load import TrainedGenerator, load
from began_cli.settings.commands import EXPORTS, ExportConfig
from began_cli.terminal import say


def main(cfg: ExportConfig) -> None:
    """Write the averaged generator as `cfg.format`, and its card beside it."""
    trained = load(cfg.ckpt, torch.device("cpu"))
    path, step, run = trained.path, trained.card["step"], run_of(trained.path)
    if scores := report.find_scores(run / "evaluation.json", step):
        trained.card["scores"] = scores
    out = run / f"generator-{path.stem}{EXPORTS[cfg.format]}"
    if cfg.out is not None:
        out = Path(cfg.out).expanduser()
    if out.is_dir():
        raise UserError(f"out={out}: is a folder; name the file to write")
    generator = TrainedGenerator(trained.network, trained.card)
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        worst = portable.write(generator, out, cfg.format)
    batches = ", ".join(map(str, portable.CHECKED))
    say(
        f"{path}, step {step:,}: {out} ({out.stat().st_size / 1e6:.1f} MB) and its card "
        f"{portable.card_path(out)}; read back, its images are PyTorch's to {worst:.1g} at batches "
        f"of {batches}"
    )

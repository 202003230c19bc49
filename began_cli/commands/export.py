"""`began export`: a trained generator in one file, for use without its run."""

from pathlib import Path

import torch
from rich.console import Console

from began_cli.commands.sample import read_checkpoint, writing
from began_cli.errors import UserError
from began_cli.evaluation import report
from began_cli.generators import portable
from began_cli.settings.commands import EXPORTS, ExportConfig


def main(cfg: ExportConfig) -> None:
    """Writes the averaged generator as `cfg.format` says, and its card beside it."""
    path, state = read_checkpoint(cfg.ckpt)
    beside = path.parent.parent if path.parent.name == "checkpoints" else path.parent
    if scores := report.scores_at(beside / "evaluation.json", state["step"]):
        state["scores"] = scores
    generator = portable.of_checkpoint(path, state, torch.device("cpu"))
    if generator.card["images"]["channels"] == 2:
        raise UserError(f"ckpt={path}: makes points of the plane, not images")
    out = beside / f"generator-{path.stem}{EXPORTS[cfg.format]}"
    if cfg.out is not None:
        out = Path(cfg.out).expanduser()
    if out.is_dir():
        raise UserError(f"out={out}: is a folder; name the file to write")
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        worst = portable.write(generator, out, cfg.format)
    batches = ", ".join(map(str, portable.CHECKED))
    Console(highlight=False).print(
        f"{path}, step {state['step']:,}: {out} ({out.stat().st_size / 1e6:.1f} MB) and its card "
        f"{portable.card_path(out)}; read back, its images are PyTorch's to {worst:.1g} at batches "
        f"of {batches}",
        markup=False,
        soft_wrap=True,
    )

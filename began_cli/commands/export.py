"""`began export`: a trained generator in one file, for use without its run."""

import torch

from began_cli.evaluation import report
from began_cli.files import output_file, writing
from began_cli.generators import portable
from began_cli.generators.load import TrainedGenerator, load
from began_cli.settings.commands import EXPORTS, ExportConfig
from began_cli.terminal import say


def main(cfg: ExportConfig) -> None:
    """Write the averaged generator as `cfg.format`, and its card beside it."""
    trained = load(cfg.ckpt, torch.device("cpu"))
    path, step, run = trained.path, trained.card["step"], trained.folder
    scores = report.find_scores(run / "evaluation.json", step) if trained.state else None
    if scores:
        trained.card["scores"] = scores
    assert cfg.format is not None  # chosen by `normalise`
    ending = next(ending for ending, format in EXPORTS.items() if format == cfg.format)
    out = output_file(cfg.out, run, f"generator-{path.stem}{ending}")
    generator = TrainedGenerator(trained.network, trained.card)
    with writing(out):
        worst = portable.write(generator, out, cfg.format)
    batches = ", ".join(map(str, portable.CHECKED))
    say(
        f"{path}, step {step:,}: {out} ({out.stat().st_size / 1e6:.1f} MB) and its card "
        f"{portable.card_path(out)}; read back, its images are PyTorch's to {worst:.1g} at batches "
        f"of {batches}"
    )

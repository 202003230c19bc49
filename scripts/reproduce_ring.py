"""Count the modes that each loss finds on a ring of 8 Gaussians in a few minutes.

    python scripts/reproduce_ring.py [--minutes 3] [--losses gan bgan …] [--out ring]

Trains each loss on one CPU thread, with the settings of the data set, and with loss.pack=4 for the
losses that have it. A mode is found if at least 1 % of 10,000 samples lie within 4 standard
deviations of it. Draws the samples over the data.
"""

import time
from pathlib import Path

import torch
from common import compose_settings, make_parser, report_errors

from began_cli import images
from began_cli.data import sources
from began_cli.gan import latents
from began_cli.training.previews import sample
from began_cli.training.setup import build_parts

PACKED = ("gan", "bgan", "wgan_gp", "wgan")
LOSSES = ("gan", "bgan", "wgan_gp", "wgan", "ebgan", "ebgan_pt", "began", "began_paper")


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--minutes", type=float, default=3)
    parser.add_argument("--losses", nargs="+", choices=LOSSES, default=LOSSES, metavar="LOSS")
    parser.add_argument("--out", type=Path, default=Path("ring"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--settings", nargs="*", default=[], help="as for `began train`")
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    for loss in args.losses:
        found, near, steps, seconds = train(loss, args.minutes, args.seed, args.out, args.settings)
        print(
            f"{loss:10} {found} of 8 modes, {near:6.1%} of samples within 4 sd, "
            f"{steps:,} steps in {seconds:.0f} s",
            flush=True,
        )


def train(
    loss: str, minutes: float, seed: int, out: Path, more: list[str]
) -> tuple[int, float, int, float]:
    """Return the number of modes found, the share of samples near one, the steps and seconds."""
    packed = ["loss.pack=4"] if loss in PACKED else []
    line = [f"loss={loss}", "dataset=ring", f"seed={seed}", "precision=fp32", *packed, *more]
    cfg = compose_settings(line)
    torch.manual_seed(seed)
    source = sources.load(cfg.dataset)
    update, batches, stream = build_parts(cfg, source, torch.device("cpu"))
    start = time.process_time()
    while time.process_time() - start < 60 * minutes and update.step < cfg.steps:
        update(batches, stream)
    seconds = time.process_time() - start
    z = latents.from_seeds(range(10_000), cfg.model.latent_dim)
    points = sample(update.ema, z)
    images.save_png(images.draw_points(points[:3000], source.images[:3000]), out / f"{loss}.png")
    found, near = count_modes(points, 8, 0.75, 0.02)
    return found, near, update.step, seconds


def count_modes(points: torch.Tensor, n: int, radius: float, spread: float) -> tuple[int, float]:
    """Return how many modes are found by points (N, 2, 1, 1), and the share of points near one."""
    angle = torch.arange(n) * (2 * torch.pi / n)
    centres = radius * torch.stack([angle.cos(), angle.sin()], 1)
    distance, nearest = torch.cdist(points.flatten(1), centres).min(1)
    close = distance <= 4 * spread
    counts = torch.bincount(nearest[close], minlength=n)
    return int((counts >= 0.01 * len(points)).sum()), close.float().mean().item()


if __name__ == "__main__":
    with report_errors():
        main()

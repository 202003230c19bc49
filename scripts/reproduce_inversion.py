"""Measure how well a search recovers latents: its targets are images of the generator itself.

    python scripts/reproduce_inversion.py [--tries 32] [ckpt=RUN restarts=8 search_steps=500 …]

Prints for l1 and l2 the share of tries whose error falls below 10 % of that of the best of 1,000
random samples (for the best start and for a single one), and the share of images reproduced to
within one grey level (1/255) per pixel. Then times 8 images x 8 starts x 500 steps at 32 pixels,
for networks with n = 16.
"""

import time

import torch
from common import compose_settings, make_parser, report_errors
from torch import Tensor, nn

from began_cli import images
from began_cli.device import pick_device
from began_cli.gan import inversion, latents, networks
from began_cli.generators.load import load
from began_cli.generators.sampling import generate_all
from began_cli.settings.commands import InterpolateConfig

FIRST = 10_000  # seed of the first target


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--tries", type=int, default=32)
    parser.add_argument("settings", nargs="*", help="as for `began interpolate`")
    args = parser.parse_intermixed_args()
    cfg = compose_settings(args.settings, "interpolate")
    generators = {
        model: compose_settings(["loss=bgan", f"model={model}"]) for model in ("began", "dcgan")
    }
    trained = load(cfg.ckpt, pick_device(cfg.device))
    path, generator = trained.path, trained.network
    print(f"{path}: {args.tries} tries, {cfg.restarts} starts, at most {cfg.search_steps} steps")
    z = latents.from_seeds(range(FIRST, FIRST + args.tries), trained.settings.model.latent_dim)
    pixels = generate_all(generator, z)  # as a PNG would hold them
    targets = images.to_float(pixels).to(next(generator.parameters()).device)
    for error in ("l1", "l2"):
        print(measure_recovery(generator, targets, z.shape[1], cfg, error), flush=True)
    for model, train in generators.items():
        train.model.width = 16
        fresh = networks.build_generator(train, torch.device("cpu")).eval()
        wall, cpu, steps = time_search(fresh.requires_grad_(False), train.model.latent_dim)
        print(
            f"model={model}, n=16: 8 images x 8 starts x {steps} steps in {wall:.0f} s "
            f"({cpu:.0f} s of processor time)"
        )


def measure_recovery(
    generator: nn.Module, targets: Tensor, dim: int, cfg: InterpolateConfig, error: str
) -> str:
    """Return a line on how many of the targets were recovered."""
    started = time.perf_counter()
    starts = inversion.random_starts(cfg.restarts, len(targets), dim).to(targets.device)
    found = inversion.invert(generator, targets, starts, cfg.search_steps, cfg.search_lr, error)
    seconds = time.perf_counter() - started
    goal = 0.1 * inversion.baseline(generator, targets, dim, error)
    with torch.no_grad():
        off = inversion.distance(generator(found.latents), targets, "l1") * 127.5
    return (
        f"{error}: below 10 % of the baseline {(found.best < goal).float().mean():.1%} "
        f"(a single start {(found.errors < goal).float().mean():.1%}), within 1/255 a pixel "
        f"{(off <= 1).float().mean():.1%}, median {off.median():.2f}/255; "
        f"{found.steps} steps, {seconds:.0f} s"
    )


def time_search(generator: nn.Module, dim: int) -> tuple[float, float, int]:
    """Return the seconds, processor seconds and steps of a search for 8 images, all steps made."""
    targets = torch.empty(8, 1, 32, 32).uniform_(-1, 1)
    starts = inversion.random_starts(8, 8, dim)
    inversion.PATIENCE = 500  # more than there are checks: the search does not end early
    started, worked = time.perf_counter(), time.process_time()
    found = inversion.invert(generator, targets, starts, 500, 0.2, "l1")
    return time.perf_counter() - started, time.process_time() - worked, found.steps


if __name__ == "__main__":
    with report_errors():
        main()

"""Show what a boundary-seeking generator seeks: train G alone against a discriminator that stays.

    python scripts/draw_boundary.py RUN [--losses gan bgan] [--steps 300] [--out boundary.png]

RUN is of a loss with a score discriminator. From its newest checkpoint, trains one copy of the
generator for each loss, with D as it is, and draws histograms of D(g) = sigmoid(f) over 2,048
samples. Batch normalisation in D uses its running statistics. Prints the means.
"""

from pathlib import Path

import torch
from common import at_least, compose_settings, make_parser, report_errors
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from began_cli.comparison.plots import PALETTE
from began_cli.errors import UserError
from began_cli.gan import latents, losses, networks
from began_cli.generators.load import Trained, build, load

CPU = torch.device("cpu")
BATCH, RATE, SAMPLES = 64, 2e-4, 2048


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("run", metavar="RUN")
    parser.add_argument("--losses", nargs="+", default=["gan", "bgan"], metavar="LOSS")
    parser.add_argument("--steps", type=at_least(1), default=300)
    parser.add_argument("--out", type=Path, default=Path("boundary.png"))
    args = parser.parse_args()
    with report_errors():
        trained = load(args.run, CPU)
        opinions = {"before": train_alone(trained, trained.settings.loss.name, 0)}
        opinions |= {name: train_alone(trained, name, args.steps) for name in args.losses}
        for name, d in opinions.items():
            print(f"{name}: mean D(g) {d.mean():.3f}, standard deviation {d.std():.3f}")
        draw(opinions, args.out)
        print(args.out)


def train_alone(trained: Trained, name: str, steps: int) -> torch.Tensor:
    """Return D(g), (SAMPLES,), after `steps` of a copy of G with the loss `name`.

    Raise UserError if the discriminator gives no scores.
    """
    settings, state = trained.settings, trained.checkpoint("RUN")
    if losses.class_of(settings.loss).critic != "score":
        raise UserError(f"RUN: the discriminator of loss={settings.loss.name} gives no scores")
    critic = networks.build_discriminator(settings, CPU)
    critic.load_state_dict(state["discriminator"])
    critic.eval().requires_grad_(False)
    generator = build(settings, state["generator"], CPU).requires_grad_()
    loss = losses.build(compose_settings([f"loss={name}"]).loss, settings.dataset.image_shape)
    optimizer = torch.optim.Adam(generator.parameters(), RATE, betas=(0.5, 0.99))
    stream = torch.Generator().manual_seed(0)
    for _ in range(steps):
        z = torch.rand(BATCH, settings.model.latent_dim, generator=stream) * 2 - 1
        images = generator(z)
        output = critic(images)
        optimizer.zero_grad()
        loss.generator(loss.values(output, images), output).backward()
        optimizer.step()
    with torch.no_grad():
        z = latents.from_seeds(range(SAMPLES), settings.model.latent_dim)
        return critic(generator(z)).sigmoid()


def draw(opinions: dict[str, torch.Tensor], path: Path) -> None:
    """Draw a histogram for each name."""
    figure = Figure(figsize=(6.4, 2.6), layout="constrained")
    axes = figure.subplots()
    for (name, d), colour in zip(opinions.items(), PALETTE, strict=False):
        axes.hist(d.numpy(), bins=50, range=(0, 1), alpha=0.6, label=name, color=colour)
    axes.axvline(0.5, color="black", linewidth=0.8)
    axes.set_xlabel("D(g)")
    axes.set_ylabel("samples")
    axes.legend()
    FigureCanvasAgg(figure).print_png(path)


if __name__ == "__main__":
    main()

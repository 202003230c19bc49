"""`began sample mode=reconstruct`: real images, and what an autoencoder critic makes of them."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor, nn

from began_cli import images
from began_cli.commands.sample import (
    CHUNK,
    generator_of,
    output_folder,
    read_checkpoint,
    writing,
)
from began_cli.data import pictures
from began_cli.device import pick_device
from began_cli.errors import UserError
from began_cli.gan import latents
from began_cli.gan.losses import Loss
from began_cli.generators import checkpoint, portable
from began_cli.settings.commands import SampleConfig
from began_cli.settings.train import DatasetConfig, TrainConfig

SHOWN = 64  # pairs on the sheet


def reconstruct(cfg: SampleConfig) -> None:
    """Writes pairs of image and reconstruction, the energies, and both histograms as a picture."""
    device = pick_device(cfg.device)
    refuse_exported(cfg.ckpt, "mode=reconstruct")
    path, state = read_checkpoint(cfg.ckpt)
    generator, trained = generator_of(path, state, device)
    critic, loss, _ = trained_critic(path, state, device, "mode=reconstruct")
    named = show_pictures(cfg.images, trained.dataset)
    rows = latents.from_seeds(cfg.seeds, trained.model.latent_dim)
    looks = list(looked_at(critic, loss, split(named.images, device)))
    made, real = torch.cat([look[0] for look in looks]), torch.cat([look[1] for look in looks])
    with torch.no_grad():
        fakes = (generator(z.to(device)) for z in rows.split(CHUNK))
        fake = torch.cat([energy for _, energy in looked_at(critic, loss, fakes)])
    apart = wasserstein(real, fake)

    out = output_folder(cfg.out, path, f"reconstructed-{path.stem}")
    with writing(out):
        both = torch.stack([named.images, made], dim=1)[:SHOWN].flatten(0, 1)
        sheet = images.grid(both, 2 * images.columns_for(len(both) // 2))
        images.save_png(sheet, out / "reconstructions.png")
        draw_losses(real, fake, apart, trained.loss.name, out / "losses.png")
        table = {
            "loss": trained.loss.name,
            "wasserstein": apart,
            "real": dict(zip(named.names, real.tolist(), strict=True)),
            "generated": dict(zip(map(str, cfg.seeds), fake.tolist(), strict=True)),
        }
        text = json.dumps(table, indent=1, ensure_ascii=False)
        (out / "energies.json").write_text(text + "\n", encoding="utf-8")
    said = Console(highlight=False, soft_wrap=True, markup=False)
    for name, energy in zip(named.names, real.tolist(), strict=True):
        said.print(f"{name}: energy {energy:.4g}")
    said.print(
        f"{len(real):,} real images, mean energy {real.mean():.4g}; {len(fake):,} generated, "
        f"{fake.mean():.4g}; Wasserstein-1 distance {apart:.4g}: {out}/losses.png"
    )


def trained_critic(
    path: Path, state: dict[str, Any], device: torch.device, asked: str
) -> tuple[nn.Module, Loss, TrainConfig]:
    """The autoencoder critic of a checkpoint, its loss, and the settings of its training.

    Raises UserError, naming the setting that `asked` for it, if it has another kind of critic.
    """
    with checkpoint.fits(path):
        critic, loss, trained = checkpoint.critic_of(state, device)
    if loss.critic != "autoencoder":
        raise UserError(
            f"{asked}: the critic of loss={trained.loss.name} gives scores, not reconstructions; "
            "began and ebgan have autoencoders"
        )
    return critic, loss, trained


def refuse_exported(ckpt: str | None, asked: str) -> None:
    """Raises UserError, naming the setting that `asked` for a critic, if `ckpt` cannot have one."""
    if ckpt is not None and portable.is_exported(ckpt):
        raise UserError(f"{asked}: {ckpt} holds the generator alone; give a checkpoint as ckpt=…")


def show_pictures(named: Any, data: DatasetConfig) -> pictures.Pictures:
    """The images that a setting names, as the model takes them; says what was changed."""
    loaded = pictures.load(named, data)
    for note in loaded.notes:
        print(note)
    return loaded


def split(pixels: Tensor, device: torch.device) -> Iterator[Tensor]:
    """uint8 images as batches in [-1, 1] on the device."""
    return (images.to_float(some.to(device)) for some in pixels.split(CHUNK))


@torch.no_grad()
def looked_at(
    critic: nn.Module, loss: Loss, batches: Iterator[Tensor]
) -> Iterator[tuple[Tensor, Tensor]]:
    """For each batch the reconstructions, uint8, and the images' energies (N,), on the CPU."""
    for batch in batches:
        output = critic(batch)
        energies = loss.values(output, batch)
        yield images.to_uint8(output.images).cpu(), energies.double().cpu()


def wasserstein(a: Tensor, b: Tensor) -> float:
    """The Wasserstein-1 distance of two samples (N,), (M,): the area between their CDFs."""
    a, b = a.double().sort().values, b.double().sort().values
    steps = torch.cat([a, b]).sort().values
    below_a = torch.searchsorted(a, steps[:-1], right=True) / len(a)
    below_b = torch.searchsorted(b, steps[:-1], right=True) / len(b)
    return ((below_a - below_b).abs() * steps.diff()).sum().item()


def draw_losses(real: Tensor, fake: Tensor, apart: float, loss: str, path: Path) -> None:
    """The histograms of both, over the same bins, as a picture."""
    from matplotlib.figure import Figure  # slow to import; nothing else here needs it

    figure = Figure(figsize=(6, 3.5), dpi=100, layout="constrained")
    axes = figure.subplots()
    bins = torch.histogram(torch.cat([real, fake]), bins=40).bin_edges.tolist()
    for energies, name, colour in ((real, "real", "#e67800"), (fake, "generated", "#2060b0")):
        label = f"{len(energies):,} {name}, mean {energies.mean():.4g}"
        axes.hist(energies.tolist(), bins, density=True, alpha=0.55, color=colour, label=label)
    axes.set_xlabel(f"energy of an image (loss={loss})")
    axes.set_ylabel("density")
    axes.set_title(f"Wasserstein-1 distance {apart:.4g}")
    axes.legend()
    figure.savefig(path, format="png")

"""Load a trained generator: from a run folder, a checkpoint, or an exported file."""

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from began_cli import __version__
from began_cli.device import pick_device
from began_cli.errors import UserError
from began_cli.gan import latents, losses, networks
from began_cli.generators import checkpoint
from began_cli.settings.parse import parse, to_plain
from began_cli.settings.train import FileDatasetConfig, TrainConfig

FORMAT = 1  # of exported .safetensors files
KEY = "began"  # in the metadata of an exported file, for its card
PRETRAINED = Path(__file__).parent / "pretrained"  # filled by scripts/make_pretrained.py


@dataclass(slots=True)
class Trained:
    """A trained generator, and what is known of its training."""

    path: Path  # the file that it was read from
    network: nn.Module  # (N, latent_dim) to (N, C, H, W); evaluation mode, no gradients
    settings: TrainConfig
    card: dict[str, Any]  # see `make_card`
    device: torch.device
    state: dict[str, Any] | None  # contents of the checkpoint; None for an exported file

    @property
    def folder(self) -> Path:
        """The folder for what is made with it: its run's, its own, or the current one if it is
        pretrained."""
        return Path() if self.path.parent == PRETRAINED else checkpoint.run_of(self.path)

    def checkpoint(self, setting: str) -> dict[str, Any]:
        """Return the contents of the checkpoint.

        Raise UserError, naming the `setting` that needs them, for an exported file.
        """
        if self.state is None:
            raise UserError(
                f"{setting}: {self.path} holds the generator alone; give a checkpoint as ckpt=…"
            )
        return self.state

    def critic(self, setting: str) -> tuple[nn.Module, losses.Loss]:
        """Return the autoencoder critic, in evaluation mode without gradients, and its loss.

        Raise UserError, naming the `setting` that needs it, if there is no autoencoder.
        """
        state, c = self.checkpoint(setting), self.settings
        with checkpoint.fits(self.path):
            loss = losses.build(c.loss, c.dataset.image_shape)
            loss.load_state_dict(state["loss"])
            critic = networks.build_discriminator(c, self.device)
            critic.load_state_dict(state["discriminator"])
        if loss.critic != "autoencoder":
            raise UserError(
                f"{setting}: the critic of loss={c.loss.name} gives scores, not reconstructions; "
                "began and ebgan have autoencoders"
            )
        return critic.eval().requires_grad_(False), loss.to(self.device)


def load(ckpt: str | None, device: torch.device, points: bool = False) -> Trained:
    """Load the averaged generator that `ckpt` stands for.

    `ckpt` is an exported .safetensors file, pretrained/NAME, or what `checkpoint.find_candidates`
    takes. Damaged checkpoints that are skipped are reported on stderr. No code in the file is run.
    Raise UserError if none can be read or, unless `points`, if it makes points of the plane.
    """
    ckpt = find_pretrained(ckpt)
    if ckpt is not None and Path(ckpt).suffix.lower() == ".safetensors":
        path, state = Path(ckpt).expanduser(), None
        card, weights = _read_exported(path)
        config = card.get("settings", {})
        with checkpoint.fits(path):
            checkpoint.upgrade(config)
    else:
        path, state, skipped = checkpoint.read(ckpt)
        for line in skipped:
            print(f"warning: {line}", file=sys.stderr)
        config, weights = state["config"], state["ema"]
        with checkpoint.fits(path):
            card = make_card(state)
    with checkpoint.fits(path):
        settings = parse("train", config)
        network = build(settings, weights, device)
    if state is None and isinstance(settings.dataset, FileDatasetConfig):
        settings.dataset.root = os.environ.get("BEGAN_DATA", "data")  # as in conf/: a card has none
    if settings.dataset.channels == 2 and not points:
        raise UserError(f"ckpt={path}: makes points of the plane; its run folder shows them")
    return Trained(path, network, settings, card, device, state)


def find_pretrained(ckpt: str | None) -> str | None:
    """Return the file that pretrained/NAME stands for; return anything else as it is.

    Raise UserError if there is no such generator.
    """
    folder, _, name = (ckpt or "").partition("/")
    if ckpt is None or folder != "pretrained" or Path(ckpt).exists():
        return ckpt
    if name not in (known := list_pretrained()):
        choices = ", ".join(f"pretrained/{each}" for each in known) or "none"
        raise UserError(f"ckpt={ckpt}: no such generator comes with began, but {choices}")
    return str(known[name])


def list_pretrained() -> dict[str, Path]:
    """Return the files of the generators that come with began, by name."""
    return {path.stem: path for path in sorted(PRETRAINED.glob("*.safetensors"))}


def describe_pretrained() -> str:
    """Return a line for each generator that comes with began: what it is, and how good."""
    lines: list[str] = []
    for name, path in list_pretrained().items():
        card, _ = _read_exported(path)
        settings, data = card["settings"], card["data"]
        made_by = f"loss={settings['loss']['name']} model={settings['model']['name']}"
        size, colour = card["images"]["size"], ("grey", "in colour")[card["images"]["channels"] > 1]
        scores = (
            f"{label.partition(' ')[0]} {score['value']:.3g} (real images {score['floor']:.2g})"
            for label, score in card["scores"].items()
            if label.startswith(("fid[", "coverage["))
        )
        lines += [
            f"pretrained/{name}",
            f"  {settings['dataset']['name']}, {size}x{size} {colour}; {made_by}, "
            f"{card['step']:,} steps; {', '.join(scores)}",
            f"  {path.stat().st_size / 1e6:.1f} MB; data: {data['licence']}",
        ]
    return "\n".join(lines) or "none in this copy of began"


def build(settings: TrainConfig, weights: dict[str, Tensor], device: torch.device) -> nn.Module:
    """Return a run's generator with these weights, in evaluation mode without gradients."""
    network = networks.build_generator(settings, device)
    network.load_state_dict(weights)
    return network.eval().requires_grad_(False)


def make_card(state: dict[str, Any]) -> dict[str, Any]:
    """Describe a checkpoint's generator in plain values: the card of its exported file."""
    settings = parse("train", state["config"])
    if isinstance(settings.dataset, FileDatasetConfig):
        settings.dataset.root = "."  # an exported file is shared; this machine's folders are not
    settings.out, settings.resume = ".", None
    data = settings.dataset
    return {
        "format": FORMAT,
        "began": __version__,
        "step": state["step"],
        "latents": {"law": "uniform", "low": -1.0, "high": 1.0, "dim": settings.model.latent_dim},
        "images": {
            "size": data.image_size,
            "channels": data.channels,
            "range": [-1.0, 1.0],
            "layout": "NCHW",
        },
        "data": {key: state["data"][key] for key in ("count", "sha256") if key in state["data"]},
        "settings": to_plain(settings),
    }


def _read_exported(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the card and the weights in a .safetensors file. Raise UserError if it has no card."""
    try:
        with safe_open(path, framework="pt") as file:
            card = json.loads((file.metadata() or {}).get(KEY, "null"))
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dict
    except FileNotFoundError:
        raise UserError(f"ckpt={path}: no such file or folder") from None
    except OSError as error:
        raise UserError(f"ckpt={path}: cannot be read ({error.strerror or error})") from None
    except (SafetensorError, ValueError) as error:
        raise UserError(f"ckpt={path}: not a whole .safetensors file ({error})") from None
    if not isinstance(card, dict):
        raise UserError(f"ckpt={path}: not written by began export: it has no card")
    if card.get("format") != FORMAT:
        raise UserError(
            f"ckpt={path}: format {card.get('format')}, and this began reads format {FORMAT}; "
            f"use began {card.get('began')}"
        )
    return card, weights


# --- for Python programs --------------------------------------------------------------------------


class TrainedGenerator(nn.Module):
    """A generator with its card: latents (N, latent_dim) to images (N, C, H, W) in [-1, 1]."""

    def __init__(self, network: nn.Module, card: dict[str, Any]) -> None:
        super().__init__()
        self.network, self.card = network, card
        self.latent_dim: int = card["latents"]["dim"]

    def forward(self, z: Tensor) -> Tensor:
        return self.network(z).clamp(-1, 1)

    def latents(self, seeds: list[int] | range) -> Tensor:
        """Return the latents (len(seeds), latent_dim) that `began sample seeds=…` uses."""
        return latents.from_seeds(seeds, self.latent_dim)


def load_generator(ckpt: str | os.PathLike[str] | None, device: str = "cpu") -> TrainedGenerator:
    """Load the generator of a run folder, a checkpoint, an exported file, or pretrained/NAME.

    It is in evaluation mode, and its weights need no gradients. No code in the file is run. Raise
    UserError if it cannot be read.
    """
    path = None if ckpt is None else os.fspath(ckpt)
    trained = load(path, pick_device(device), points=True)
    return TrainedGenerator(trained.network, trained.card).eval()

"""`began sample`: images of a trained generator."""

import hashlib
import itertools
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor, nn

from began_cli import images
from began_cli.device import pick_device
from began_cli.errors import UserError
from began_cli.gan import latents
from began_cli.generators import checkpoint, portable
from began_cli.settings.commands import SampleConfig
from began_cli.settings.train import TrainConfig

CHUNK = 64  # images at a time; always this many, so that no image depends on how many are asked for


def main(cfg: SampleConfig) -> None:
    """Writes the images of `cfg.seeds`, as `cfg.format` says, or looks into the critic."""
    if cfg.mode == "reconstruct":
        from began_cli.commands.reconstruct import reconstruct

        return reconstruct(cfg)
    path, generator, trained = trained_generator(cfg.ckpt, cfg.device)
    out = output_folder(cfg.out, path, f"sampled-{path.stem}")
    name = seeds_name(cfg.seeds)
    rows = latents.from_seeds(cfg.seeds, trained.model.latent_dim)
    with writing(out):
        match cfg.format:
            case "png":
                width = len(str(max(cfg.seeds)))
                names = [f"seed-{seed:0{max(5, width)}d}.png" for seed in cfg.seeds]
                made = itertools.chain.from_iterable(generate(generator, rows))
                images.save_pngs(made, [out / name for name in names])
                said = f"{out}/{names[0]} … {names[-1]}" if len(names) > 1 else f"{out}/{names[0]}"
            case "npz":
                made = torch.cat(list(generate(generator, rows)))
                said = str(out / f"{name}.npz")
                np.savez_compressed(
                    said, images=images.to_nhwc(made), seeds=np.asarray(cfg.seeds, dtype=np.int64)
                )
            case _:
                made = torch.cat(list(generate(generator, rows)))
                said = str(out / f"{name}.png")
                images.save_png(images.grid(made, images.columns_for(len(made))), Path(said))
    Console(highlight=False).print(
        f"{len(rows):,} images of {path}: {said}", markup=False, soft_wrap=True
    )


def trained_generator(ckpt: str | None, device: str) -> tuple[Path, nn.Module, TrainConfig]:
    """The checkpoint that `ckpt` means, its generator of images, and the settings of its training.

    Damaged checkpoints that were passed over are reported on stderr. Raises UserError if there is
    none, or if it makes no images.
    """
    on = pick_device(device)
    if ckpt is not None and portable.is_exported(ckpt):
        generator, trained, _ = portable.read(Path(ckpt).expanduser(), on)
        return Path(ckpt).expanduser(), generator, trained
    path, state = read_checkpoint(ckpt)
    return path, *generator_of(path, state, on)


def read_checkpoint(ckpt: str | None) -> tuple[Path, dict[str, Any]]:
    """The checkpoint that `ckpt` means, and what it holds; damaged ones before it are reported."""
    path, state, complaints = checkpoint.read(ckpt)
    for line in complaints:
        print(f"warning: {line}", file=sys.stderr)
    return path, state


def generator_of(
    path: Path, state: dict[str, Any], device: torch.device
) -> tuple[nn.Module, TrainConfig]:
    """A checkpoint's generator and the settings of its training; UserError if of no images."""
    with checkpoint.fits(path):
        generator, trained = checkpoint.generator_of(state, device)
    if trained.dataset.channels == 2:
        raise UserError(f"ckpt={path}: makes points of the plane; its run folder shows them")
    return generator, trained


@torch.no_grad()
def generate(generator: nn.Module, z: Tensor) -> Iterator[Tensor]:
    """uint8 images (CHUNK or fewer, C, H, W) of the rows of z, chunk by chunk, on the CPU.

    Every pass has CHUNK rows, the last one filled up, so that the arithmetic, and with it every
    pixel, is the same however many rows there are.
    """
    device = next(generator.parameters()).device
    for rows in z.split(CHUNK):
        full = torch.zeros(CHUNK, z.shape[1])
        full[: len(rows)] = rows
        yield images.to_uint8(generator(full.to(device)))[: len(rows)].cpu()


def output_folder(out: str | None, ckpt: Path, default: str) -> Path:
    """The folder to write to, made if need be: `out`, or `default` in the run folder."""
    beside = ckpt.parent.parent if ckpt.parent.name == "checkpoints" else ckpt.parent
    folder = Path(out).expanduser() if out else beside / default
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".began-probe"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(
            f"out={folder}: cannot be written to ({error.strerror}); give another folder as out=…"
        ) from None
    return folder


@contextmanager
def writing(out: Path) -> Iterator[None]:
    """What cannot be written there is a matter of `out`."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"out={out}: cannot write {error.filename or 'there'} ({error.strerror})"
        ) from None


def seeds_name(seeds: Sequence[int]) -> str:
    """A file's name for a set of seeds."""
    if len(seeds) == 1:
        return f"seed-{seeds[0]}"
    if list(seeds) == list(range(seeds[0], seeds[-1] + 1)):
        return f"seeds-{seeds[0]}-{seeds[-1]}"
    listed = "-".join(map(str, seeds))
    short = hashlib.sha256(listed.encode()).hexdigest()[:8]
    return f"seeds-{listed}" if len(listed) <= 40 else f"{len(seeds)}-seeds-{short}"

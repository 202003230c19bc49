"""`began interpolate`: walks between latents of a trained generator, and between real images."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from rich.console import Console
from torch import Tensor, nn

from began_cli import images
from began_cli.commands.reconstruct import refuse_exported, show_pictures, trained_critic
from began_cli.commands.sample import generate, output_folder, trained_generator, writing
from began_cli.data import pictures
from began_cli.errors import UserError
from began_cli.gan import inversion, latents
from began_cli.generators import checkpoint
from began_cli.settings.commands import InterpolateConfig
from began_cli.settings.train import TrainConfig

BATCH = 256  # images and starts that are searched for at a time


class Ends(NamedTuple):
    """Where the paths begin and end."""

    latents: Tensor  # (N, latent_dim)
    reals: Tensor | None = None  # uint8 (N, C, H, W), the real images that the latents stand for
    report: dict[str, Any] | None = None  # arrays to keep beside the latents


def main(cfg: InterpolateConfig) -> None:
    """Writes one strip a row and a sheet of all, one animation of all rows, or the latents."""
    if cfg.images is None and cfg.latents is None:
        if cfg.seeds is None:
            each = {"between": 2, "loop": 1}.get(cfg.path)
            cfg.seeds = list(range(each * (cfg.rows or 8))) if each else [0]
        count_rows(cfg, len(cfg.seeds))
    path, generator, trained = trained_generator(cfg.ckpt, cfg.device)
    ends = find_ends(cfg, path, generator, trained)
    animated = cfg.format in ("gif", "webp")
    walk = lay_path(cfg, ends.latents, generator, ease=animated and cfg.ease)
    rows = walk.shape[1]
    reals = None if ends.reals is None or cfg.path == "traverse" else ends.reals
    if reals is not None:  # those at the two ends of each row
        reals = reals[torch.tensor(pairs(cfg.path, len(reals)))]

    out = output_folder(cfg.out, path, f"interpolated-{path.stem}")
    name = cfg.mode if cfg.path == "between" else cfg.path
    with writing(out):
        if ends.report is not None or cfg.format == "npz":
            kept = {"latents": ends.latents.numpy(), "path": walk.transpose(0, 1).numpy()}
            np.savez_compressed(out / f"{name}.npz", **kept, **(ends.report or {}))
        said = out / f"{name}.{cfg.format}"
        if cfg.format != "npz":
            draw(cfg, torch.cat(list(generate(generator, walk.flatten(0, 1)))), reals, said)
    Console(highlight=False).print(
        f"{rows} paths of {cfg.steps} images of {path}: {said}", markup=False, soft_wrap=True
    )


def count_rows(cfg: InterpolateConfig, ends: int) -> int:
    """The rows that so many ends make: one a pair, a leg of a loop, an image, or an axis.

    Raises UserError, naming what gave the ends, if their number is wrong.
    """
    kind = next((key for key in ("images", "latents") if getattr(cfg, key) is not None), "seeds")
    each = 2 if cfg.path == "between" else 1
    if cfg.path == "traverse":
        if ends != 1:
            raise UserError(f"{kind}: path=traverse sets out from one, and there are {ends}")
        return cfg.rows or 8
    if cfg.rows is not None and ends != each * cfg.rows:
        raise UserError(f"{kind}: rows={cfg.rows} wants {each * cfg.rows} {kind}, not {ends}")
    if cfg.path == "between" and ends % 2:
        raise UserError(
            f"{kind}: a path goes between two, and there {'is' if ends == 1 else 'are'} {ends}; "
            "give an even number (path=mirror and path=traverse take one)"
        )
    if cfg.path == "loop" and ends < 2:
        raise UserError(f"{kind}: path=loop goes through two or more, and there is {ends}")
    return ends // each


def pairs(path: str, ends: int) -> list[list[int]]:
    """Which of the ends each row begins and ends with."""
    if path == "between":
        return [[i, i + 1] for i in range(0, ends, 2)]
    if path == "loop":
        return [[i, (i + 1) % ends] for i in range(ends)]
    return [[i, i + ends // 2] for i in range(ends // 2)]  # mirror: the mirrors come last


# --- the ends of the paths ------------------------------------------------------------------------


def find_ends(
    cfg: InterpolateConfig, path: Path, generator: nn.Module, trained: TrainConfig
) -> Ends:
    """The latents that the settings name; those of real images are searched for."""
    dim = trained.model.latent_dim
    if cfg.latents is not None:
        return Ends(read_latents(cfg.latents, dim))
    if cfg.images is None:
        return Ends(latents.from_seeds(cfg.seeds, dim))
    named = show_pictures(cfg.images, trained.dataset)
    count_rows(cfg, len(named.images))  # before the search, not after
    return search(cfg, path, generator, trained, named)


def read_latents(name: str, dim: int) -> Tensor:
    """`latents` of an .npz file, (N, dim). Raises UserError if they are not there or do not fit."""
    try:
        with np.load(Path(name).expanduser(), allow_pickle=False) as held:
            array = np.asarray(held["latents"], dtype=np.float32)
    except OSError as error:
        raise UserError(f"latents={name}: cannot be read ({error.strerror or error})") from None
    except Exception as error:  # NumPy's readers raise nearly anything at another kind of file
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"latents={name}: not an .npz with `latents` ({reason})") from None
    if array.ndim != 2 or array.shape[1] != dim:
        raise UserError(
            f"latents={name}: has the shape {'x'.join(map(str, array.shape))}, and this generator "
            f"takes N x {dim}"
        )
    if not len(array) or not np.isfinite(array).all():
        raise UserError(f"latents={name}: wants one row or more of finite numbers")
    return torch.from_numpy(array)


def search(
    cfg: InterpolateConfig,
    path: Path,
    generator: nn.Module,
    trained: TrainConfig,
    named: pictures.Pictures,
) -> Ends:
    """The latents of real images, and for path=mirror of their mirrors; says how near they came."""
    reals, names = named.images, named.names
    if cfg.path == "mirror":
        reals = torch.cat([reals, reals.flip(-1)])
        names = [*names, *(f"{name}, mirrored" for name in names)]
    device = next(generator.parameters()).device
    targets = images.to_float(reals).to(device)
    dim = trained.model.latent_dim
    starts = inversion.random_starts(cfg.restarts, len(targets), dim).to(device)
    if cfg.start == "encoder":
        starts[0] = encoded(path, targets, dim)
    found: list[inversion.Inversion] = []
    some = max(1, BATCH // cfg.restarts)
    for few, theirs in zip(targets.split(some), starts.split(some, dim=1), strict=True):
        found.append(
            inversion.invert(generator, few, theirs, cfg.search_steps, cfg.search_lr, cfg.error)
        )
    errors = torch.cat([one.errors for one in found], dim=1).cpu()
    unsearched = inversion.baseline(generator, targets, dim, cfg.error).cpu()
    for line in told(names, errors, unsearched, cfg.error):
        print(line)
    report = {"names": np.array(names), "errors": errors.numpy(), "baseline": unsearched.numpy()}
    return Ends(torch.cat([one.latents for one in found]).cpu(), reals, report)


def encoded(path: Path, targets: Tensor, dim: int) -> Tensor:
    """The critic's code of each image, (N, latent_dim). Raises UserError if it has no such code."""
    refuse_exported(str(path), "start=encoder")
    critic, _, trained = trained_critic(
        path, checkpoint.load(path), targets.device, "start=encoder"
    )
    if trained.model.code_dim != dim:
        raise UserError(
            f"start=encoder: the critic's code has {trained.model.code_dim} numbers and a latent "
            f"{dim}; use start=random"
        )
    with torch.no_grad():
        return critic(targets).code


def told(names: list[str], errors: Tensor, unsearched: Tensor, error: str) -> list[str]:
    """A line an image: how near its latents' image is."""
    lines: list[str] = []
    for i, name in enumerate(names):
        best, worst = errors[:, i].min().item(), errors[:, i].max().item()
        baseline = unsearched[i].item()
        line = (
            f"{name}: {error} error {best:.4f}, {best / max(baseline, 1e-12):.0%} of the best of "
            f"{inversion.BASELINE:,} samples ({baseline:.4f})"
        )
        if len(errors) > 1:
            line += f"; over {len(errors)} starts {best:.4f} to {worst:.4f}"
        lines.append(line)
    return lines


# --- the paths ------------------------------------------------------------------------------------


def lay_path(cfg: InterpolateConfig, z: Tensor, generator: nn.Module, ease: bool) -> Tensor:
    """The latents along every path between the ends z (N, dim): (steps, rows, dim)."""
    rows = count_rows(cfg, len(z))
    if cfg.path == "traverse":
        axes = cfg.axes if cfg.axes is not None else strongest(generator, z[0], rows)
        if max(axes) >= z.shape[1]:
            raise UserError(f"axes={axes}: a latent has {z.shape[1]}, counted from 0")
        print(f"axes, from the top: {', '.join(map(str, axes))}")
        return latents.traverse(z[0], axes, cfg.steps, ease)
    between = latents.slerp if cfg.mode == "slerp" else latents.lerp
    a, b = z[torch.tensor(pairs(cfg.path, len(z)))].unbind(1)
    return between(a, b, cfg.steps, ease)


def strongest(generator: nn.Module, z: Tensor, n: int) -> list[int]:
    """The n axes along which the image changes most from one end to the other, the most first."""
    walk = latents.traverse(z, range(len(z)), 2)
    low, high = torch.cat(list(generate(generator, walk.flatten(0, 1)))).float().chunk(2)
    change = (high - low).abs().flatten(1).mean(1)
    return change.argsort(descending=True, stable=True)[:n].tolist()


# --- the pictures ---------------------------------------------------------------------------------


def draw(cfg: InterpolateConfig, made: Tensor, reals: Tensor | None, said: Path) -> None:
    """Writes the images of all paths (steps x rows, C, H, W) as `cfg.format` says."""
    frames = made.unflatten(0, (cfg.steps, -1))
    if cfg.format == "png":
        for row in range(frames.shape[1]):
            beside = None if reals is None else reals[row, None]
            strip = sheet(frames[:, row, None], beside)
            images.save_png(strip, said.with_name(f"{said.stem}-row-{row:02d}.png"))
        images.save_png(sheet(frames, reals), said)
        return
    try:
        images.save_animation(moving(cfg.path, frames, reals), said, cfg.fps)
    except ValueError as error:
        raise UserError(f"format={cfg.format}: {error}; use format=gif") from None


def sheet(frames: Tensor, reals: Tensor | None) -> Tensor:
    """Images (steps, rows, C, H, W) as one picture, a path a row, between their real images."""
    paths = frames.transpose(0, 1)
    if reals is not None:
        return images.frame_paths(paths, reals)
    return images.grid(paths.flatten(0, 1), len(frames))


def moving(path: str, frames: Tensor, reals: Tensor | None) -> list[Tensor]:
    """The frames of an animation without an end: to and fro, or round the loop leg by leg."""
    if path == "loop":
        legs = frames[:-1].transpose(0, 1).flatten(0, 1)  # each leg's end is the next one's start
        return [images.grid(frame[None], 1) for frame in legs]
    if reals is None:
        columns = images.columns_for(frames.shape[1])
        there = [images.grid(frame, columns) for frame in frames]
    else:
        there = [images.frame_paths(frame[:, None], reals) for frame in frames]
    return there + there[-2:0:-1]

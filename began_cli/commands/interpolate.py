"""`began interpolate`: paths between latents of a trained generator, or between real images."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from began_cli import images
from began_cli.data import pictures
from began_cli.data.pictures import Pictures
from began_cli.device import pick_device
from began_cli.errors import UserError, reason
from began_cli.files import ending_of, output_file, writing
from began_cli.gan import inversion, latents
from began_cli.generators.load import Trained, load
from began_cli.generators.sampling import find_strongest, generate_all
from began_cli.settings.commands import InterpolateConfig
from began_cli.terminal import plural, say

BATCH = 256  # images times starts that are searched for at a time


class Ends(NamedTuple):
    """The ends of the paths."""

    latents: Tensor  # (N, latent_dim)
    reals: Tensor | None = None  # uint8 (N, C, H, W): the real images that were searched for
    report: dict[str, Any] | None = None  # arrays to save beside the latents


def main(cfg: InterpolateConfig) -> None:
    """Write a strip for each path and a sheet of all, one animation of all, or the latents."""
    if cfg.images is None and cfg.latents is None:
        if cfg.seeds is None:
            each = {"between": 2, "loop": 1}.get(cfg.path)
            cfg.seeds = list(range(each * (cfg.rows or 8))) if each else [0]
        count_rows(cfg, len(cfg.seeds))
    trained = load(cfg.ckpt, pick_device(cfg.device))
    ends = find_ends(cfg, trained)
    animated = cfg.format in ("gif", "webp")
    walk = lay_path(cfg, ends.latents, trained.network, ease=animated and cfg.ease)
    reals = None if ends.reals is None or cfg.path == "traverse" else ends.reals
    if reals is not None:  # those at the two ends of each row
        reals = reals[torch.tensor(pair_ends(cfg.path, len(reals)))]

    path = trained.path
    name = cfg.mode if cfg.path == "between" else cfg.path
    folder = trained.folder / f"interpolated-{path.stem}"
    file = output_file(cfg.out, folder, f"{name}.{cfg.format}")
    with writing(file):
        if ends.report is not None or cfg.format == "npz":
            arrays = {"latents": ends.latents.numpy(), "path": walk.transpose(0, 1).numpy()}
            beside = file if cfg.format == "npz" else file.with_suffix(".npz")
            images.save_npz(arrays | (ends.report or {}), beside)
        if cfg.format != "npz":
            made = generate_all(trained.network, walk.flatten(0, 1)).unflatten(0, (cfg.steps, -1))
            draw(cfg, made, reals, file)
    say(f"{plural(walk.shape[1], 'path')} of {cfg.steps} images of {path}: {file}")


def count_rows(cfg: InterpolateConfig, ends: int) -> int:
    """Return the number of paths that so many ends make.

    There is one for each pair, leg of a loop, mirrored image, or axis. Raise UserError, naming the
    setting that gives the ends, if their number is wrong.
    """
    kind = next((key for key in ("images", "latents") if getattr(cfg, key) is not None), "seeds")
    each = 2 if cfg.path == "between" else 1
    if cfg.path == "traverse":
        if ends != 1:
            raise UserError(f"{kind}: path=traverse starts from one, and there are {ends}")
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


def pair_ends(path: str, ends: int) -> list[list[int]]:
    """Return the indices of the ends that each row begins and ends with."""
    if path == "between":
        return [[i, i + 1] for i in range(0, ends, 2)]
    if path == "loop":
        return [[i, (i + 1) % ends] for i in range(ends)]
    return [[i, i + ends // 2] for i in range(ends // 2)]  # mirror: the mirror images come last


# --- the ends of the paths ------------------------------------------------------------------------


def find_ends(cfg: InterpolateConfig, trained: Trained) -> Ends:
    """Return the ends that the settings name. Latents of real images are searched for."""
    settings = trained.settings
    dim = settings.model.latent_dim
    if cfg.latents is not None:
        return Ends(read_latents(cfg.latents, dim))
    if cfg.images is None:
        return Ends(latents.from_seeds(cfg.seeds, dim))
    reals = pictures.load(cfg.images, settings.dataset)
    for note in reals.notes:
        say(note)
    count_rows(cfg, len(reals.images))  # fails before the search, not after it
    return search(cfg, trained, reals)


def read_latents(name: str, dim: int) -> Tensor:
    """Return `latents` (N, dim) of an .npz file. Raise UserError if there are none that fit."""
    try:
        with np.load(Path(name).expanduser(), allow_pickle=False) as file:
            array = np.asarray(file["latents"], dtype=np.float32)
    except OSError as error:
        raise UserError(f"latents={name}: cannot be read ({error.strerror or error})") from None
    except Exception as error:  # NumPy raises almost anything for a file of another kind
        raise UserError(f"latents={name}: not an .npz with `latents` ({reason(error)})") from None
    if array.ndim != 2 or array.shape[1] != dim:
        raise UserError(
            f"latents={name}: has the shape {'x'.join(map(str, array.shape))}, and this generator "
            f"takes N x {dim}"
        )
    if not len(array) or not np.isfinite(array).all():
        raise UserError(f"latents={name}: wants one row or more of finite numbers")
    return torch.from_numpy(array)


def search(cfg: InterpolateConfig, trained: Trained, named: Pictures) -> Ends:
    """Search for latents of real images, and for path=mirror of their mirror images.

    Print how near their images are.
    """
    reals, names = named.images, named.names
    if cfg.path == "mirror":
        reals = torch.cat([reals, reals.flip(-1)])
        names = [*names, *(f"{name}, mirrored" for name in names)]
    network, dim = trained.network, trained.settings.model.latent_dim
    targets = images.to_float(reals).to(trained.device)
    starts = inversion.random_starts(cfg.restarts, len(targets), dim).to(trained.device)
    if cfg.start == "encoder":
        starts[0] = encode(trained, targets)
    results: list[inversion.Inversion] = []
    few = max(1, BATCH // cfg.restarts)
    for some, those in zip(targets.split(few), starts.split(few, dim=1), strict=True):
        results.append(
            inversion.invert(network, some, those, cfg.search_steps, cfg.search_lr, cfg.error)
        )
    errors = torch.cat([result.errors for result in results], dim=1).cpu()
    baseline = inversion.baseline(network, targets, dim, cfg.error).cpu()
    for name, error, least in zip(names, errors.unbind(1), baseline.tolist(), strict=True):
        say(f"{name}: {cfg.error} {inversion.describe(error, least)}")
    report = {"names": np.array(names), "errors": errors.numpy(), "baseline": baseline.numpy()}
    return Ends(torch.cat([result.latents for result in results]).cpu(), reals, report)


def encode(trained: Trained, targets: Tensor) -> Tensor:
    """Return the critic's code (N, latent_dim) of images. Raise UserError if its size differs."""
    critic, _ = trained.critic("start=encoder")
    model = trained.settings.model
    if model.code_dim != model.latent_dim:
        raise UserError(
            f"start=encoder: the critic's code has {model.code_dim} numbers and a latent "
            f"{model.latent_dim}; use start=random"
        )
    with torch.no_grad():
        return critic(targets).code


# --- the paths ------------------------------------------------------------------------------------


def lay_path(cfg: InterpolateConfig, z: Tensor, network: nn.Module, ease: bool) -> Tensor:
    """Return the latents (steps, rows, dim) along every path between the ends z (N, dim)."""
    rows = count_rows(cfg, len(z))
    if cfg.path == "traverse":
        axes = cfg.axes if cfg.axes is not None else find_strongest(network, z[0], rows)
        if max(axes) >= z.shape[1]:
            raise UserError(f"axes={axes}: a latent has {z.shape[1]}, counted from 0")
        say(f"axes, from the top: {', '.join(map(str, axes))}")
        return latents.traverse(z[0], axes, cfg.steps, ease)
    between = latents.slerp if cfg.mode == "slerp" else latents.lerp
    a, b = z[torch.tensor(pair_ends(cfg.path, len(z)))].unbind(1)
    return between(a, b, cfg.steps, ease)


# --- the pictures ---------------------------------------------------------------------------------


def draw(cfg: InterpolateConfig, frames: Tensor, reals: Tensor | None, file: Path) -> None:
    """Write the images of all paths (steps, rows, C, H, W) in the format of the file's name.

    PNG in a folder has a strip for each path too.
    """
    if cfg.format == "png":
        for row in range(0 if ending_of(cfg.out) else frames.shape[1]):
            strip = draw_sheet(frames[:, row, None], None if reals is None else reals[row, None])
            images.save_png(strip, file.with_name(f"{file.stem}-row-{row:02d}.png"))
        images.save_png(draw_sheet(frames, reals), file)
        return
    try:
        images.save_animation(draw_frames(cfg.path, frames, reals), file, cfg.fps)
    except ValueError as error:
        raise UserError(f"format={cfg.format}: {error}; use format=gif") from None


def draw_sheet(frames: Tensor, reals: Tensor | None) -> Tensor:
    """Return a sheet of images (steps, rows, C, H, W): a path in each row, between its reals."""
    paths = frames.transpose(0, 1)
    if reals is not None:
        return images.frame_paths(paths, reals)
    return images.grid(paths.flatten(0, 1), len(frames))


def draw_frames(path: str, frames: Tensor, reals: Tensor | None) -> list[Tensor]:
    """Return the frames of an endless animation: there and back, or around the loop leg by leg."""
    if path == "loop":
        legs = frames[:-1].transpose(0, 1).flatten(0, 1)  # the end of a leg is the next one's start
        return [images.grid(frame[None], 1) for frame in legs]
    if reals is None:
        columns = images.columns_for(frames.shape[1])
        forth = [images.grid(frame, columns) for frame in frames]
    else:
        forth = [images.frame_paths(frame[:, None], reals) for frame in frames]
    return forth + forth[-2:0:-1]

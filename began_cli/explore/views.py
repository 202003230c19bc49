"""Compute what the page of `began explore` shows, as tensors and text, without HTML or Gradio."""

import functools
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from began_cli import images
from began_cli.data import pictures
from began_cli.errors import UserError
from began_cli.evaluation.energies import measure_energies
from began_cli.gan import inversion, latents
from began_cli.generators import checkpoint
from began_cli.generators.load import Trained, list_pretrained, load
from began_cli.settings.checks import read_numbers

FRAMES = 24  # steps of a walk from one end to the next
MOST = 100  # ends of a walk
KEPT = 6  # generators in memory
PICTURE = "picture"  # the end of a walk that was searched for


class Found(NamedTuple):
    """The latents that the search found for a picture, its image, and how near it came."""

    latents: Tensor  # (latent_dim,)
    image: Tensor  # uint8 (C, H, W)
    report: str


class Judged(NamedTuple):
    """A picture as the networks see it, and what an autoencoder critic makes of it."""

    picture: Tensor  # uint8 (C, H, W)
    notes: list[str]  # the changes that made it fit
    remade: Tensor | None  # uint8 (C, H, W); None if the critic is no autoencoder, with the reason
    report: str


class Explorer:
    """The generators below a folder and those of began, loaded as they are asked for."""

    def __init__(self, device: torch.device, root: Path = Path("outputs")) -> None:
        self.device, self.root = device, root
        self._load = functools.lru_cache(KEPT)(self._load_anew)

    def find_all(self) -> dict[str, str]:
        """Return the file of each generator, by a label: the newest run first, began's own last."""
        found: dict[str, str] = {}
        for run in checkpoint.find_runs(self.root):
            name = run.relative_to(self.root)
            for path in checkpoint.find_best(run)[:1]:
                found[f"{name}, best step {checkpoint.step_of(path):,}"] = str(path)
            for path in checkpoint.find_all(run)[::-1]:
                found[f"{name}, step {checkpoint.step_of(path):,}"] = str(path)
        return found | {f"pretrained/{name}": str(path) for name, path in list_pretrained().items()}

    def load(self, file: str) -> Trained:
        """Return the generator in a file, which is read again only if it has changed."""
        path = Path(file)
        if not path.is_file():
            raise UserError(f"{file} is gone: press Refresh, and choose another")
        return self._load(file, path.stat().st_mtime_ns)

    def _load_anew(self, file: str, _stamp: int) -> Trained:
        return load(file, self.device)

    def pair(self, first: str | None, second: str | None) -> list[Trained]:
        """Return one or two generators that take the same latents."""
        if not first:
            raise UserError("no generator: train one, and press Refresh")
        pair = [self.load(file) for file in (first, second) if file]
        one, other = (each.settings.model.latent_dim for each in (pair[0], pair[-1]))
        if one != other:
            raise UserError(
                f"latents have {one} numbers here and {other} beside: only generators with as many "
                "can show the same latents"
            )
        return pair


@torch.no_grad()
def draw(trained: Trained, z: Tensor) -> Tensor:
    """Return the images of latents (N, latent_dim), uint8 (N, C, H, W), in one pass."""
    return images.to_uint8(trained.network(z.to(trained.device))).cpu()


def read_ends(text: str) -> list[str]:
    """Return the ends of a walk, seeds or PICTURE, in `3, 17, picture`."""
    ends: list[str] = []
    for word in (word.strip() for word in text.split(",") if word.strip()):
        try:
            ends += [word] if word == PICTURE else map(str, read_numbers(word, "ends") or [])
        except UserError:
            raise UserError(
                f"Through: cannot read {word}; write seeds, such as 3, 17 or 0-5, or {PICTURE}"
            ) from None
    return ends


def find_latents(ends: list[str], dim: int, found: Tensor | None) -> Tensor:
    """Return the latents (N, dim) of a walk's ends, 2 or more; those of PICTURE are `found`."""
    if not 2 <= len(ends) <= MOST:
        raise UserError(f"a walk goes through 2 to {MOST} images: click some, or write 3, 17")
    rows: list[Tensor] = []
    for end in ends:
        if end != PICTURE:
            rows.append(latents.from_seeds([int(end)], dim)[0])
        elif found is None or len(found) != dim:
            raise UserError("no picture has been searched for with this generator: see Picture")
        else:
            rows.append(found)
    return torch.stack(rows)


def walk(z: Tensor, mode: str) -> Tensor:
    """Return the latents (FRAMES (N - 1) + 1, dim) on the way through z (N, dim)."""
    between = latents.slerp if mode == "slerp" else latents.lerp
    legs = [between(a, b, FRAMES + 1)[:-1] for a, b in itertools.pairwise(z)]
    return torch.cat([*legs, z[-1:]])


def judge(trained: Trained, file: str) -> Judged:
    """Return a picture as the networks see it, and an autoencoder critic's reconstruction."""
    named = read_picture(trained, file)
    picture = named.images[0]
    notes = [note.removeprefix("1 of 1 images ") for note in named.notes]
    if trained.state is None:
        alone = "this file holds the generator alone, and only the checkpoint of a run has D too"
        return Judged(picture, notes, None, alone)
    try:
        critic, loss = trained.critic("D")
    except UserError as error:
        return Judged(picture, notes, None, str(error).removeprefix("D: "))
    x = images.to_float(picture[None]).to(trained.device)
    with torch.no_grad():
        remade = images.to_uint8(critic(x).images)[0].cpu()
    energy = measure_energies(critic, loss, [x]).item()
    z = latents.from_seeds(range(64), trained.settings.model.latent_dim).to(trained.device)
    with torch.no_grad():
        typical = measure_energies(critic, loss, [trained.network(z)]).mean().item()
    report = f"energy {energy:.4g}; that of 64 generated images is {typical:.4g} on average"
    return Judged(picture, notes, remade, report)


def read_picture(trained: Trained, file: str) -> pictures.Pictures:
    """Return a picture in the size and colours of a generator. Raise UserError with its name."""
    try:
        return pictures.load(file, trained.settings.dataset)
    except UserError as error:
        message = str(error).removeprefix("images=").replace(file, Path(file).name)
        raise UserError(message) from None


def search(
    trained: Trained, file: str, starts: int, steps: int, tell: Callable[[int, float], object]
) -> Found:
    """Search for the latents of a picture, as `began interpolate` does with error=l1.

    Now and then `tell` is given the step and the error.
    """
    dim = trained.settings.model.latent_dim
    targets = images.to_float(read_picture(trained, file).images).to(trained.device)
    begin = inversion.random_starts(starts, 1, dim).to(trained.device)
    result = inversion.invert(trained.network, targets, begin, steps, 0.2, "l1", tell)
    least = inversion.baseline(trained.network, targets, dim, "l1").item()
    z = result.latents.cpu()
    report = f"l1 {inversion.describe(result.errors[:, 0], least)}; {result.steps} steps"
    return Found(z[0], draw(trained, z)[0], report)

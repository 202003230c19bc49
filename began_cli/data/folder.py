"""Find the images of a folder, decode them on every core, and cache them."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps
from rich.console import Console
from rich.progress import track

from began_cli.data import cache
from began_cli.errors import UserError
from began_cli.files import cache_home
from began_cli.settings.train import FolderDatasetConfig

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}
GLANCE = 1000  # images to read at a glance


class Folder(NamedTuple):
    """The images of a folder, the number of its image files, and a warning."""

    held: cache.Mapped
    files: int
    warning: str | None


def read(c: FolderDatasetConfig, glance: bool) -> Folder:
    """Return all images below `dataset.root`, from the cache if possible; else fill the cache.

    With `glance` return only GLANCE of them and use no cache. Raise UserError if there are none.
    """
    root = Path(c.root).expanduser()
    if not root.is_dir():
        raise UserError(f"dataset.root={c.root}: no such folder")
    files = image_files(root)
    if not files:
        endings = " ".join(sorted(SUFFIXES))
        raise UserError(f"dataset.root={c.root}: no images there (files ending in {endings})")
    total = len(files)
    if glance:
        files = files[:GLANCE]
    mode, shape = ("L", "RGB")[c.channels == 3], c.image_shape
    place = None
    if c.cache and not glance:
        kept = cache_home() if c.cache == "auto" else Path(c.cache).expanduser()
        place = cache.entry(kept, root, files, mode, c.image_size)
    held = cache.read(place) if place else None
    if held and len(held.images) < len(files) and not c.skip_broken:
        held = None  # so that the broken one is named
    warnings = []
    if place and held is None:
        try:
            cache.write(place, decode(files, mode, c.image_size, c.skip_broken), shape)
            held = cache.read(place)
        except OSError as error:
            warnings.append(
                f"dataset.cache={place.parent}: cannot keep the decoded images there "
                f"({error.strerror}); they are held in memory, and decoded at every start."
            )
    if held is None:
        images, count = torch.empty(len(files), *shape, dtype=torch.uint8), 0
        for row in decode(files, mode, c.image_size, c.skip_broken):
            if row is not None:
                images[count] = torch.from_numpy(row)
                count += 1
        held = cache.Mapped(images[:count], "", lambda: None)
    if not len(held.images):
        raise UserError(f"dataset.root={c.root}: none of its {len(files)} images can be read")
    if broken := len(files) - len(held.images):
        warnings.append(f"Left out {broken:,} of {len(files):,} images that cannot be read.")
    return Folder(held, total, " ".join(warnings) or None)


def image_files(root: Path) -> list[Path]:
    """Return the image files below a folder, sorted by name, without hidden ones."""
    return sorted(
        path
        for path in root.rglob("*")
        if path.suffix.lower() in SUFFIXES
        and not any(part.startswith(".") for part in path.relative_to(root).parts)
        and path.is_file()
    )


def decode(
    files: list[Path], mode: str, size: int, skip_broken: bool
) -> Iterator[np.ndarray | None]:
    """Yield the images of these files in order, uint8 (C, H, W), decoded on every core.

    Yield None for a broken one; without `skip_broken` raise UserError, naming it.
    """

    def read(path: Path) -> np.ndarray | None:
        try:
            return np.ascontiguousarray(read_image(path, mode, size).transpose(2, 0, 1))
        except UserError:
            if skip_broken:
                return None
            raise

    console = Console(stderr=True)
    # Pillow decodes and resizes outside Python's lock.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        try:
            rows = pool.map(read, files)
            yield from track(
                rows,
                "decoding images",
                len(files),
                console=console,
                disable=not console.is_terminal,
            )
        finally:
            pool.shutdown(cancel_futures=True)


def read_image(path: Path, mode: str, size: int) -> np.ndarray:
    """Return the `centre_square` of an image. Raise UserError, naming the file."""
    try:
        return centre_square(path, mode, size)
    except Exception as error:  # Pillow's readers raise nearly anything at a damaged file
        raise UserError(
            f"dataset.root: cannot read the image {path} ({error}); "
            "remove it, or leave such images out with dataset.skip_broken=true"
        ) from None


def centre_square(path: Path, mode: str, size: int) -> np.ndarray:
    """Return the centre square of an image, resized with antialiasing: uint8 (size, size, C).

    `mode` is "L" (grey) or "RGB". The image is rotated as its EXIF says. Raise what Pillow raises.
    """
    with Image.open(path) as image:
        if image.mode.startswith("I"):  # 16 bits a pixel: Pillow would clip, not scale
            image = image.convert("I").point(lambda v: v / 256).convert("L")
        elif image.mode == "F":
            numbers = np.array(image)
            low, high = numbers.min(), numbers.max()
            if not 0 <= low <= high <= 1:
                raise ValueError(f"its numbers go from {low:g} to {high:g}, not from 0 to 1")
            image = image.point(lambda v: v * 255 + 0.5)  # Pillow rounds down
        else:
            # A JPEG may be decoded at 1/2, 1/4 or 1/8 of its size, still above the target's.
            short = min(image.size)
            image.draft(mode, (2 * size * image.width // short, 2 * size * image.height // short))
        image = ImageOps.exif_transpose(image).convert(mode)
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        square = image.crop((left, top, left + side, top + side))
        fitted = square.resize((size, size), Image.Resampling.BICUBIC)
    return np.array(fitted).reshape(size, size, -1)

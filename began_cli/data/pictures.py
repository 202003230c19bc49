"""Read the images that a user names, in the size and colours of a trained network."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from began_cli.data import folder
from began_cli.errors import UserError
from began_cli.settings.train import DatasetConfig, FolderDatasetConfig


@dataclass(slots=True)
class Pictures:
    """Images, the names of their files, and a line for each kind of change to make them fit."""

    images: Tensor  # uint8 (N, C, H, W)
    names: list[str]
    notes: list[str]


def load(named: Any, data: DatasetConfig) -> Pictures:
    """Return the images of a folder, a file or a list of files, in the size and colours of `data`.

    Images are cropped to their centre square and resized. Small ones are padded instead where the
    data set is (28 pixels to 32). Raise UserError if one cannot be read.
    """
    paths = _files(named)
    fitted: list[Tensor] = []
    notes: Counter[str] = Counter()
    for path in paths:
        image, changes = _read(path, data)
        fitted.append(image)
        notes.update(changes)
    lines = [f"{n} of {len(paths)} images {change}" for change, n in notes.items()]
    return Pictures(torch.stack(fitted), [path.name for path in paths], lines)


def _files(named: Any) -> list[Path]:
    paths: list[Path] = []
    for name in named if isinstance(named, list) else [named]:
        path = Path(str(name)).expanduser()
        if path.is_dir():
            inside = folder.image_files(path)
            if not inside:
                raise UserError(f"images={name}: no images in that folder")
            paths += inside
        elif path.is_file():
            paths.append(path)
        else:
            raise UserError(
                f"images={name}: no such file or folder; several are written images=[a.png,b.png]"
            )
    if not paths:
        raise UserError("images=[]: wants one image or more")
    return paths


def _read(path: Path, data: DatasetConfig) -> tuple[Tensor, list[str]]:
    """Return one image, uint8 (C, H, W), and the changes that it took."""
    size, mode = data.image_size, "RGB" if data.channels == 3 else "L"
    try:
        with Image.open(path) as image:
            (width, height), colours = image.size, image.mode
        padded = not isinstance(data, FolderDatasetConfig) and max(width, height) < size
        pixels = folder.centre_square(path, mode, min(width, height) if padded else size)
    except Exception as error:  # Pillow's readers raise nearly anything at a damaged file
        raise UserError(f"images={path}: cannot be read as an image ({error})") from None
    changes: list[str] = []
    if width != height:
        changes.append("cropped to the centre square")
    if padded:
        changes.append(f"padded with black to {size}x{size}, as {data.name} is")
    elif min(width, height) != size:
        changes.append(f"resized to {size}x{size}")
    grey = colours in ("1", "L", "LA", "F") or colours.startswith("I")
    if grey != (mode == "L"):
        changes.append(
            "converted to grey" if mode == "L" else "in grey where the model has colours"
        )
    if colours in ("RGBA", "LA", "PA"):
        changes.append("stripped of transparency")
    fitted = torch.from_numpy(pixels).permute(2, 0, 1)
    before = (size - fitted.shape[-1]) // 2
    after = size - fitted.shape[-1] - before
    return F.pad(fitted, (before, after, before, after)), changes

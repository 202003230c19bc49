"""Convert tensors to pixels and back; draw grids and strips; write PNG and animations."""

import os
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont, features
from torch import Tensor

from began_cli.files import replacing

AT_ONCE = 1024  # images waiting to be written


def to_float(pixels: Tensor) -> Tensor:
    """Convert uint8 0..255 to float32 in [-1, 1]; return floats as they are."""
    if pixels.dtype != torch.uint8:
        return pixels
    return pixels.to(torch.float32).div_(127.5).sub_(1.0)


def to_uint8(images: Tensor) -> Tensor:
    """Convert [-1, 1] to uint8 0..255, clipped and rounded."""
    return images.float().add(1.0).mul(127.5).round().clamp(0, 255).to(torch.uint8)


def to_grey(images: Tensor) -> Tensor:
    """Convert uint8 (N, 3, H, W) to grey (N, 1, H, W), as Pillow's "L" does (ITU-R 601)."""
    weights = torch.tensor([0.299, 0.587, 0.114], device=images.device).view(1, 3, 1, 1)
    return (images.float() * weights).sum(1, keepdim=True).round().byte()


def grid(images: Tensor, columns: int) -> Tensor:
    """Return uint8 images (N, C, H, W) as one sheet (3, H', W'), `columns` in a row, 2 apart.

    A single image gets no frame.
    """
    # Not torchvision's make_grid: to import torchvision takes nearly as long as to import torch.
    n, _, height, width = images.shape
    if n == 1:
        return images[0].cpu().expand(3, -1, -1)
    columns = min(columns, n)
    rows = -(-n // columns)
    sheet = torch.full((3, 2 + rows * (height + 2), 2 + columns * (width + 2)), 255).byte()
    for i, image in enumerate(images.cpu()):
        top, left = 2 + i // columns * (height + 2), 2 + i % columns * (width + 2)
        sheet[:, top : top + height, left : left + width] = image
    return sheet


REAL = (230, 120, 0)  # the frame of real images
FRAME, GAP, CAPTION = 2, 10, 14  # pixels: around each image, between the parts, above them


def frame_paths(path: Tensor, reals: Tensor) -> Tensor:
    """Return paths (rows, steps, C, H, W) between real images (rows, 2, C, H, W) as one sheet.

    A row is real | G(z) | path | G(z) | real, as in figure 4 of 1703.10717: the ends of a path are
    the images found for the real ones. The sheet is uint8 (3, H', W'); real images have a frame.
    """
    parts = [("real", reals[:, :1]), ("G(z)", path[:, :1])]
    if path.shape[1] > 2:
        parts.append(("", path[:, 1:-1]))
    if path.shape[1] > 1:  # a frame of an animation has one image a row
        parts.append(("G(z)", path[:, -1:]))
    parts.append(("real", reals[:, 1:]))
    sheets: list[Tensor] = []
    for name, part in parts:
        colour = REAL if name == "real" else (255, 255, 255)
        sheets += [_caption(name, part, colour), torch.full((3, 1, GAP), 255, dtype=torch.uint8)]
    height = sheets[0].shape[1]
    return torch.cat([sheet.expand(-1, height, -1) for sheet in sheets[:-1]], dim=2)


def _caption(name: str, part: Tensor, colour: tuple[int, int, int]) -> Tensor:
    """Return images (rows, columns, C, H, W), each in a frame, under a caption."""
    edge = torch.tensor(colour, dtype=torch.uint8)
    rows, columns, _, height, width = part.shape
    cell_h, cell_w = height + 2 * FRAME, width + 2 * FRAME
    sheet = torch.full((3, CAPTION + rows * (cell_h + FRAME), columns * cell_w), 255).byte()
    for row in range(rows):
        for column in range(columns):
            top, left = CAPTION + row * (cell_h + FRAME), column * cell_w
            sheet[:, top : top + cell_h, left : left + cell_w] = edge[:, None, None]
            inside = sheet[:, top + FRAME : top + FRAME + height]
            inside[:, :, left + FRAME : left + FRAME + width] = part[row, column].cpu()
    title = Image.new("RGB", (sheet.shape[2], CAPTION), (255, 255, 255))
    font = ImageFont.load_default()
    ImageDraw.Draw(title).text((FRAME, 0), name, fill=(0, 0, 0), font=font)
    sheet[:, :CAPTION] = torch.from_numpy(np.array(title)).permute(2, 0, 1)
    return sheet


def draw_points(points: Tensor, over: Tensor, side: int = 512) -> Tensor:
    """Draw points (N, 2, 1, 1) of [-1, 1]^2 in red over others in grey: uint8 (3, side, side)."""
    picture = torch.full((3, side, side), 255, dtype=torch.uint8)
    for dots, colour in ((over, (190, 190, 190)), (points, (200, 30, 30))):
        x, y = dots.flatten(1).cpu().mul(torch.tensor([1.0, -1.0])).add(1).mul(side / 2).unbind(1)
        shown = (x >= 0) & (x < side - 1) & (y >= 0) & (y < side - 1)
        x, y = x[shown].long(), y[shown].long()
        for dx, dy in ((0, 0), (0, 1), (1, 0), (1, 1)):
            picture[:, y + dy, x + dx] = torch.tensor(colour, dtype=torch.uint8)[:, None]
    return picture


def columns_for(n: int) -> int:
    """Return the number of columns that make n images nearly a square."""
    return max(1, int(n**0.5 + 0.999))


def to_pil(image: Tensor) -> Image.Image:
    """Convert a uint8 image (C, H, W) to a Pillow image, grey if C is 1."""
    array = image.cpu().permute(1, 2, 0).numpy()
    return Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array)


def save_png(image: Tensor, path: Path) -> None:
    """Write a uint8 image (C, H, W), complete or not at all."""
    with replacing(path) as temporary:
        _write_png(image, temporary)


def _write_png(image: Tensor, path: Path) -> None:
    to_pil(image).save(path, format="PNG", compress_level=1)


def save_pngs(images: Iterable[Tensor], paths: Iterable[Path]) -> None:
    """Write each uint8 image (C, H, W) to its path, on threads, while the next ones are made."""
    waiting: deque[Future[None]] = deque()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for image, path in zip(images, paths, strict=True):
            if len(waiting) >= AT_ONCE:
                waiting.popleft().result()
            # Not by way of a temporary file: to rename costs as much again as to create.
            waiting.append(pool.submit(_write_png, image, path))
        for writing in waiting:
            writing.result()


def save_animation(frames: list[Tensor], path: Path, fps: float) -> None:
    """Write uint8 frames (C, H, W) as a GIF or WebP, by the name, that loops for ever.

    WebP keeps every pixel, GIF 256 colours. Raise ValueError if Pillow has no WebP.
    """
    if path.suffix.lower() == ".webp" and not features.check("webp"):
        raise ValueError("Pillow was built without WebP")
    first, *rest = [to_pil(frame) for frame in frames]
    duration = round(1000 / fps)
    first.save(path, save_all=True, append_images=rest, duration=duration, loop=0, lossless=True)


def save_npz(arrays: dict[str, Any], path: Path) -> None:
    """Write arrays to a .npz file of exactly this name: NumPy would write x.NPZ.npz for x.NPZ."""
    with path.open("wb") as file:
        np.savez_compressed(file, **arrays)


def to_nhwc(images: Tensor) -> np.ndarray:
    """Convert uint8 (N, C, H, W) to a NumPy array (N, H, W, C)."""
    return images.cpu().permute(0, 2, 3, 1).contiguous().numpy()

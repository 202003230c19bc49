"""The avatars that come with began: 25,000 cartoon heads, and what each was drawn from."""

import lzma
from pathlib import Path
from typing import BinaryIO, Literal, cast, get_args

import numpy as np
import torch
from torch import Tensor

from began_cli.files import shipped

FOLDER = Path(__file__).parent / "avatars"
Split = Literal["train", "test"]
CHUNK = 500  # images held at their full size at a time: all of them are 246 MB


def read(split: Split, size: int) -> Tensor:
    """Return the images of a split, uint8 (N, 3, size, size), RGB, at 16, 32 or 64 pixels a side.

    There are 20,000 training images and 5,000 test images, of 64 pixels a side. A smaller image
    holds the means of blocks of 2 x 2 or 4 x 4 pixels, rounded, a half upwards. Raise ValueError
    for another split or size.
    """
    if split not in get_args(Split) or size not in (16, 32, 64):
        raise ValueError(f"read({split!r}, {size!r}): wants train or test, and 16, 32 or 64")
    with shipped(FOLDER / f"{split}.npy.xz") as path, lzma.open(path) as opened:
        file = cast(BinaryIO, opened)
        np.lib.format.read_magic(file)
        (count, side, *_), _, _ = np.lib.format.read_array_header_1_0(file)
        images = np.empty((count, 3, size, size), np.uint8)
        for start in range(0, count, CHUNK):
            n = min(CHUNK, count - start)
            chunk = np.frombuffer(file.read(n * side * side * 3), np.uint8)
            means = average_blocks(chunk.reshape(n, side, side, 3), side // size)
            images[start : start + n] = means.transpose(0, 3, 1, 2)
    return torch.from_numpy(images)


def average_blocks(images: np.ndarray, block: int) -> np.ndarray:
    """Return the means of blocks of `block` x `block` pixels of uint8 images (N, H, W, C).

    They are uint8 (N, H / block, W / block, C), rounded, a half upwards. `block` is at most 16.
    """
    if block == 1:
        return images
    total = np.full((), block**2 // 2, np.uint16)
    for row in range(block):
        for column in range(block):
            total = total + images[:, row::block, column::block]
    return (total // block**2).astype(np.uint8)


def read_attributes(split: Split) -> Tensor:
    """Return what the images of a split were drawn from, int64 (N, 11).

    A column is an attribute and a number one of its values, in the order of
    `evaluation.avatars_classifier.ATTRIBUTES`.
    """
    with shipped(FOLDER / f"{split}-attributes.npy.xz") as path, lzma.open(path) as file:
        numbers = np.lib.format.read_array(cast(BinaryIO, file))
    return torch.from_numpy(numbers.astype(np.int64))

"""Decoded images on the disk, so that a folder is decoded once.

An entry is a folder: `pixels` (uint8, N x C x H x W, nothing else) and `card.json`. It is written
under another name and then renamed: it is complete or not there, and two processes that start
together do not disturb each other.
"""

import hashlib
import json
import mmap
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

VERSION = 1  # of what an entry holds and of how images are decoded
BLOCK = 2**20
SMALL = 2**28  # bytes that may all stay in memory
ABANDONED = 86_400  # seconds


@dataclass(slots=True)
class Mapped:
    """Images (N, C, H, W) that the system reads from the disk when they are used."""

    images: Tensor
    sha256: str  # of the shape and the pixels
    forget: Callable[[], None]  # releases the pages in memory


def entry(cache: Path, root: Path, files: list[Path], mode: str, size: int) -> Path:
    """Return the folder of an entry, ROOT-FILES: two hashes.

    The first is of the folder and the resizing, the second of the files' names, sizes and times.
    """
    where = hashlib.sha256(repr((VERSION, str(root.resolve()), mode, size)).encode())
    what = hashlib.sha256()
    for path in files:
        stat = path.stat()
        known = (path.relative_to(root).as_posix(), stat.st_size, stat.st_mtime_ns)
        what.update(repr(known).encode("utf-8", "surrogateescape"))
    return cache / f"{where.hexdigest()[:16]}-{what.hexdigest()[:16]}"


def read(place: Path) -> Mapped | None:
    """Return the images of an entry, or None if there is none or it is not complete."""
    try:
        card = json.loads((place / "card.json").read_text(encoding="utf-8"))
        shape, sha256 = tuple(card["shape"]), str(card["sha256"])
        with (place / "pixels").open("rb") as file:
            # A private mapping: writable in name, as PyTorch asks, but never written back.
            mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        images = torch.frombuffer(mapping, dtype=torch.uint8).view(shape)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError):
        return None

    def forget() -> None:
        if hasattr(mmap, "MADV_DONTNEED") and len(mapping) > SMALL:
            mapping.madvise(mmap.MADV_DONTNEED)

    return Mapped(images, sha256, forget)


def write(place: Path, rows: Iterable[np.ndarray | None], shape: tuple[int, int, int]) -> None:
    """Write an entry of images (C, H, W) in their order, without those that are None.

    Remove entries of the same folder with other files. Raise OSError, and leave nothing.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{place.name}.", dir=place.parent))
    try:
        count = 0
        with (work / "pixels").open("wb") as file:
            for row in rows:
                if row is not None:
                    file.write(row.tobytes())
                    count += 1
            file.flush()
            os.fsync(file.fileno())
        if not count:
            return
        whole = (count, *shape)
        card = {"shape": whole, "sha256": hash_file(work / "pixels", whole)}
        with (work / "card.json").open("w", encoding="utf-8") as file:
            json.dump(card, file)
            file.flush()
            os.fsync(file.fileno())
        shutil.rmtree(place, ignore_errors=True)  # one that could not be read
        try:
            work.rename(place)
        except OSError:  # another process was first
            if read(place) is None:
                raise
    finally:
        shutil.rmtree(work, ignore_errors=True)
    folder = place.name.partition("-")[0]
    for other in place.parent.glob(f"{folder}-*"):
        if other != place:
            shutil.rmtree(other, ignore_errors=True)
    for left in place.parent.glob(f".{folder}-*"):  # by a process that was killed
        if time.time() - left.stat().st_mtime > ABANDONED:
            shutil.rmtree(left, ignore_errors=True)


def hash_file(pixels: Path, shape: tuple[int, ...]) -> str:
    """Return `hash_images` of the images in the file."""
    digest = hashlib.sha256(repr(shape).encode())
    with pixels.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def hash_images(images: Tensor) -> str:
    """Return the SHA-256 of the shape and the pixels, as hexadecimal digits."""
    digest = hashlib.sha256(repr(tuple(images.shape)).encode())
    digest.update(images.contiguous().numpy().data)
    return digest.hexdigest()

"""A data set's name to its images, held as one uint8 tensor (N, C, H, W)."""

import gzip
import math
import os
import socket
import struct
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from rich.console import Console
from rich.progress import track
from torch import Tensor
from torch.nn import functional as F

from began_cli import config
from began_cli.data import cache
from began_cli.errors import UserError

SHIPPED = Path(__file__).parent / "mnist_test"
SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}
GLANCE = 1000  # images of a folder
DOWNLOAD_TIMEOUT = 10.0  # seconds without an answer


Download = Callable[[str, Path], None]


@dataclass(slots=True)
class Source:
    """Images and where they come from."""

    images: Tensor  # uint8 (N, C, H, W); points of the plane: float32 (N, 2, 1, 1)
    origin: str  # for the log: which files
    warning: str | None = None  # what the user should know before trusting a result
    sha256: str = ""  # of the shape and the pixels
    forget: Callable[[], None] | None = None  # lets go of the memory of mapped images
    files: int = 0  # of a folder: how many image files it has

    def __post_init__(self) -> None:
        self.sha256 = self.sha256 or cache.hash_images(self.images)

    def card(self) -> dict[str, object]:
        """What a checkpoint and the log say of the data."""
        return {"origin": self.origin, "count": len(self.images), "sha256": self.sha256}


def load(c: config.DatasetConfig, glance: bool = False) -> Source:
    """The images that the settings name. Raises UserError if they cannot be had.

    With `glance` nothing is downloaded or written, and of a folder only GLANCE images are read.
    """
    download = _download_nothing if glance else _download
    match c:
        case config.FolderDatasetConfig():
            return _folder(c, glance)
        case config.MnistDatasetConfig():
            return _mnist(c, download)
        case config.RingDatasetConfig():
            return _ring(c)
        case config.FileDatasetConfig():
            return {"fashion_mnist": _fashion_mnist, "cifar10": _cifar10}[c.name](c, download)
    raise AssertionError(f"no source for {type(c).__name__}")


# --- MNIST and Fashion-MNIST ----------------------------------------------------------------------


def _mnist(c: config.MnistDatasetConfig, download: Download) -> Source:
    try:
        return _idx_source(c, "MNIST", download)
    except _NotThereError as error:
        if not c.fallback:
            raise UserError(
                f"dataset.root={c.root}: no MNIST there, and it cannot be downloaded ({error}); "
                "put train-images-idx3-ubyte.gz there, or allow dataset.fallback=true"
            ) from None
        images = _read_idx(SHIPPED / "t10k-images-idx3-ubyte.gz")
        return Source(
            _fit(images, c),
            "the MNIST test split that comes with began",
            f"No MNIST in {Path(c.root).absolute()}, and it could not be downloaded ({error}). "
            f"Training on the {len(images):,} images of its test split that come with began. "
            "For all 60,000 put train-images-idx3-ubyte.gz there, or set dataset.root.",
        )


def _fashion_mnist(c: config.FileDatasetConfig, download: Download) -> Source:
    try:
        return _idx_source(c, "FashionMNIST", download)
    except _NotThereError as error:
        raise UserError(
            f"dataset.root={c.root}: no Fashion-MNIST there, and it cannot be downloaded "
            f"({error}); put train-images-idx3-ubyte.gz there"
        ) from None


def _idx_source(c: config.FileDatasetConfig, folder: str, download: Download) -> Source:
    """The training images of an idx data set: found under dataset.root, else downloaded."""
    root = Path(c.root).expanduser()
    for place in (root / folder / "raw", root / c.name, root):
        for name in ("train-images-idx3-ubyte", "train-images-idx3-ubyte.gz"):
            if (place / name).is_file():
                return Source(_fit(_read_idx(place / name), c), str((place / name).absolute()))
    download(folder, root)
    path = root / folder / "raw" / "train-images-idx3-ubyte"
    return Source(_fit(_read_idx(path), c), str(path.absolute()))


class _NotThereError(Exception):
    """A data set was not found and could not be downloaded; the text says why."""


def _download(folder: str, root: Path) -> None:
    """Downloads a torchvision data set into `root`; raises _NotThereError with the reason."""
    from torchvision import datasets

    made = [path for path in (root / folder / "raw", *(root / folder / "raw").absolute().parents)]
    made = [path for path in made if not path.exists()]
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT)
    try:
        getattr(datasets, folder)(str(root), download=True)
    except (RuntimeError, OSError) as error:  # URLError and time-outs are OSErrors
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise _NotThereError(reason[-1]) from None
    finally:
        socket.setdefaulttimeout(timeout)
        for path in made:  # deepest first; what was there before stays
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()


def _download_nothing(folder: str, root: Path) -> None:
    raise _NotThereError("a dry run downloads nothing")


def _read_idx(path: Path) -> Tensor:
    """Images of an idx file, gzipped or not: uint8 (N, 1, H, W)."""
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rb") as file:
            data = file.read()
        magic, n, height, width = struct.unpack(">4i", data[:16])
        if magic != 2051 or len(data) != 16 + n * height * width:
            raise ValueError
        if n == 0 or height != width or not 0 < width <= 1024:
            raise ValueError(f"{n} images of {width}x{height}")
    except (OSError, EOFError, ValueError, struct.error, zlib.error) as error:
        detail = f" ({error})" if str(error) else ""
        raise UserError(f"dataset.root: {path} is not a whole idx file of images{detail}") from None
    pixels = np.frombuffer(data, np.uint8, offset=16).reshape(n, 1, height, width)
    return torch.from_numpy(pixels.copy())


def _cifar10(c: config.FileDatasetConfig, download: Download) -> Source:
    from torchvision.datasets import CIFAR10

    root = Path(c.root).expanduser()
    if not (root / "cifar-10-batches-py").is_dir():
        try:
            download("CIFAR10", root)
        except _NotThereError as error:
            raise UserError(
                f"dataset.root={c.root}: no cifar-10-batches-py there, and it cannot be downloaded "
                f"({error}); unpack cifar-10-python.tar.gz there"
            ) from None
    try:
        array = CIFAR10(str(root), train=True).data
    except (RuntimeError, OSError, ValueError) as error:
        raise UserError(
            f"dataset.root: {root / 'cifar-10-batches-py'} is damaged: {error}"
        ) from None
    images = torch.from_numpy(array).permute(0, 3, 1, 2).contiguous()
    return Source(_fit(images, c), str((root / "cifar-10-batches-py").absolute()))


def _fit(images: Tensor, c: config.DatasetConfig) -> Tensor:
    """uint8 images padded with black to 8*2^k, resized if another size is asked for, coloured."""
    side = images.shape[-1]
    padded = max(16, 1 << (side - 1).bit_length())
    before = (padded - side) // 2
    after = padded - side - before
    images = F.pad(images, (before, after, before, after))
    if padded != c.image_size:
        size = (c.image_size, c.image_size)
        chunks = [
            F.interpolate(chunk.float(), size, mode="bilinear", antialias=True).round().byte()
            for chunk in images.split(10_000)
        ]
        images = torch.cat(chunks)
    if images.shape[1] == 1 and c.channels == 3:
        images = images.expand(-1, 3, -1, -1).contiguous()
    elif images.shape[1] == 3 and c.channels == 1:
        weights = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)  # ITU-R 601, as Pillow's "L"
        chunks = [
            (chunk.float() * weights).sum(1, keepdim=True).round() for chunk in images.split(10_000)
        ]
        images = torch.cat(chunks).byte()
    return images


# --- points of the plane --------------------------------------------------------------------------


def _ring(c: config.RingDatasetConfig) -> Source:
    """50,000 points of Gaussians evenly spaced on a ring, the same ones every time."""
    generator = torch.Generator().manual_seed(0)
    mode = torch.randint(c.modes, (50_000,), generator=generator)
    angle = mode * (2 * math.pi / c.modes)
    centre = torch.stack([angle.cos(), angle.sin()], dim=1) * c.radius
    points = centre + torch.randn(centre.shape, generator=generator) * c.spread
    return Source(points[:, :, None, None], f"{c.modes} Gaussians on a ring")


# --- a folder of images ---------------------------------------------------------------------------


def _folder(c: config.FolderDatasetConfig, glance: bool) -> Source:
    root = Path(c.root).expanduser()
    if not root.is_dir():
        raise UserError(f"dataset.root={c.root}: no such folder")
    files = sorted(
        path
        for path in root.rglob("*")
        if path.suffix.lower() in SUFFIXES
        and not any(part.startswith(".") for part in path.relative_to(root).parts)
        and path.is_file()
    )
    if not files:
        endings = " ".join(sorted(SUFFIXES))
        raise UserError(f"dataset.root={c.root}: no images there (files ending in {endings})")

    total = len(files)
    if glance:
        files = files[:GLANCE]
    mode, shape = ("L", "RGB")[c.channels == 3], (c.channels, c.image_size, c.image_size)
    known = (
        cache.entry(cache_folder(c.cache), root, files, mode, c.image_size)
        if c.cache and not glance
        else None
    )
    held = cache.read(known) if known else None
    if held and len(held.images) < len(files) and not c.skip_broken:
        held = None  # so that the broken one is named
    trouble = None
    if known and held is None:
        try:
            cache.write(known, decoded(files, mode, c.image_size, c.skip_broken), shape)
            held = cache.read(known)
        except OSError as error:
            trouble = (
                f"dataset.cache={known.parent}: cannot keep the decoded images there "
                f"({error.strerror}); they are held in memory, and decoded at every start."
            )
    if held is None:
        images, count = torch.empty(len(files), *shape, dtype=torch.uint8), 0
        for row in decoded(files, mode, c.image_size, c.skip_broken):
            if row is not None:
                images[count] = torch.from_numpy(row)
                count += 1
        held = cache.Mapped(images[:count], "", lambda: None)
    if not len(held.images):
        raise UserError(f"dataset.root={c.root}: none of its {len(files)} images can be read")
    broken = len(files) - len(held.images)
    left_out = f"Left out {broken:,} of {len(files):,} images that cannot be read."
    warnings = [text for text in (trouble, left_out if broken else None) if text]
    origin = str(root.absolute())
    return Source(held.images, origin, " ".join(warnings) or None, held.sha256, held.forget, total)


def cache_folder(name: str | None) -> Path:
    """Where `dataset.cache` keeps decoded images; `auto` is the user's cache folder."""
    if name != "auto":
        return Path(name or "").expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "began"


def decoded(
    files: list[Path], mode: str, size: int, skip_broken: bool
) -> Iterator[np.ndarray | None]:
    """The images of these files in order, uint8 (C, H, W), decoded on every core.

    A broken one gives None, or without `skip_broken` a UserError that names it.
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
    """The centre square of an image, resized with antialiasing: uint8 (size, size, C).

    `mode` is "L" (grey) or "RGB". Turned as its EXIF says. Raises UserError, naming the file.
    """
    try:
        with Image.open(path) as image:
            if image.mode.startswith("I"):  # 16 bits a pixel: Pillow would clip, not scale
                image = image.convert("I").point(lambda v: v / 256).convert("L")
            else:
                # A JPEG may be decoded at 1/2, 1/4 or 1/8 of its size, still above the target's.
                short = min(image.size)
                image.draft(
                    mode, (2 * size * image.width // short, 2 * size * image.height // short)
                )
            image = ImageOps.exif_transpose(image).convert(mode)
            side = min(image.size)
            left, top = (image.width - side) // 2, (image.height - side) // 2
            square = image.crop((left, top, left + side, top + side))
            fitted = square.resize((size, size), Image.Resampling.BICUBIC)
    except Exception as error:  # Pillow's readers raise nearly anything at a damaged file
        raise UserError(
            f"dataset.root: cannot read the image {path} ({error}); "
            "remove it, or leave such images out with dataset.skip_broken=true"
        ) from None
    return np.array(fitted).reshape(size, size, -1)

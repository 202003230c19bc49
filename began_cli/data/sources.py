"""A data set's name to its images, held as one uint8 tensor (N, C, H, W)."""

import gzip
import math
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from began_cli.data import cache, folder
from began_cli.errors import UserError
from began_cli.files import downloading
from began_cli.images import to_grey
from began_cli.settings.train import (
    DatasetConfig,
    FileDatasetConfig,
    FolderDatasetConfig,
    MnistDatasetConfig,
    RingDatasetConfig,
    StackedMnistDatasetConfig,
)

SHIPPED = Path(__file__).parent / "mnist_test"
TRIPLES = 128_000  # of stacked MNIST, PacGAN's protocol


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


def load(c: DatasetConfig, glance: bool = False) -> Source:
    """The images that the settings name. Raises UserError if they cannot be had.

    With `glance` nothing is downloaded or written, and of a folder only some images are read.
    """
    download = _download_nothing if glance else _download
    match c:
        case FolderDatasetConfig():
            read = folder.read(c, glance)
            origin = str(Path(c.root).expanduser().absolute())
            held = read.held
            return Source(held.images, origin, read.warning, held.sha256, held.forget, read.files)
        case StackedMnistDatasetConfig():
            return _stacked_mnist(c, download)
        case MnistDatasetConfig():
            return _mnist(c, download)
        case RingDatasetConfig():
            return _ring(c)
        case FileDatasetConfig():
            return {"fashion_mnist": _fashion_mnist, "cifar10": _cifar10}[c.name](c, download)
    raise AssertionError(f"no source for {type(c).__name__}")


# --- MNIST and Fashion-MNIST ----------------------------------------------------------------------


def _mnist(c: MnistDatasetConfig, download: Download) -> Source:
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


def _stacked_mnist(c: StackedMnistDatasetConfig, download: Download) -> Source:
    """128,000 random triples of digits, one a colour, the same ones every time (1712.04086)."""
    single = MnistDatasetConfig(
        name="mnist",
        image_size=c.image_size,
        channels=1,
        width=c.width,
        device=c.device,
        flip=False,
        root=c.root,
        fallback=c.fallback,
    )
    digits = _mnist(single, download)
    generator = torch.Generator().manual_seed(0)
    chosen = torch.randint(len(digits.images), (3, TRIPLES), generator=generator)
    images = torch.empty(TRIPLES, 3, c.image_size, c.image_size, dtype=torch.uint8)
    for channel, rows in enumerate(chosen):
        images[:, channel] = digits.images[rows, 0]
    return Source(images, f"{TRIPLES:,} triples of {digits.origin}", digits.warning)


def _fashion_mnist(c: FileDatasetConfig, download: Download) -> Source:
    try:
        return _idx_source(c, "FashionMNIST", download)
    except _NotThereError as error:
        raise UserError(
            f"dataset.root={c.root}: no Fashion-MNIST there, and it cannot be downloaded "
            f"({error}); put train-images-idx3-ubyte.gz there"
        ) from None


def _idx_source(c: FileDatasetConfig, own: str, download: Download) -> Source:
    """The training images of an idx data set: found under dataset.root, else downloaded."""
    root = Path(c.root).expanduser()
    for place in (root / own / "raw", root / c.name, root):
        for name in ("train-images-idx3-ubyte", "train-images-idx3-ubyte.gz"):
            if (place / name).is_file():
                return Source(_fit(_read_idx(place / name), c), str((place / name).absolute()))
    download(own, root)
    path = root / own / "raw" / "train-images-idx3-ubyte"
    return Source(_fit(_read_idx(path), c), str(path.absolute()))


class _NotThereError(Exception):
    """A data set was not found and could not be downloaded; the text says why."""


def _download(folder: str, root: Path) -> None:
    """Downloads a torchvision data set into `root`; raises _NotThereError with the reason."""
    from torchvision import datasets

    try:
        with downloading(root / folder / "raw"):
            getattr(datasets, folder)(str(root), download=True)
    except (RuntimeError, OSError) as error:  # URLError and time-outs are OSErrors
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise _NotThereError(reason[-1]) from None


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


def _cifar10(c: FileDatasetConfig, download: Download) -> Source:
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


def _fit(images: Tensor, c: DatasetConfig) -> Tensor:
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
        images = torch.cat([to_grey(chunk) for chunk in images.split(10_000)])
    return images


# --- points of the plane --------------------------------------------------------------------------


def _ring(c: RingDatasetConfig) -> Source:
    """50,000 points of Gaussians evenly spaced on a ring, the same ones every time."""
    generator = torch.Generator().manual_seed(0)
    mode = torch.randint(c.modes, (50_000,), generator=generator)
    angle = mode * (2 * math.pi / c.modes)
    centre = torch.stack([angle.cos(), angle.sin()], dim=1) * c.radius
    points = centre + torch.randn(centre.shape, generator=generator) * c.spread
    return Source(points[:, :, None, None], f"{c.modes} Gaussians on a ring")

"""Load a data set by its name, as one uint8 tensor (N, C, H, W)."""

import gzip
import math
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from began_cli.data import avatars, cache, folder
from began_cli.errors import UserError
from began_cli.files import downloading
from began_cli.images import to_grey
from began_cli.settings.train import (
    AvatarsDatasetConfig,
    DatasetConfig,
    FileDatasetConfig,
    FolderDatasetConfig,
    MnistDatasetConfig,
    RingDatasetConfig,
    StackedMnistDatasetConfig,
)

SHIPPED = Path(__file__).parent / "mnist_test"
TRIPLES = 128_000  # of stacked MNIST, PacGAN's protocol
TEST_TRIPLES = 52_000  # of test digits, twice as many as are generated


@dataclass(slots=True)
class Source:
    """Images, and where they come from."""

    images: Tensor  # uint8 (N, C, H, W); points of the plane: float32 (N, 2, 1, 1)
    origin: str  # for the log: which files
    warning: str | None = None  # what the user should know before trusting a result
    sha256: str = ""  # of the shape and the pixels
    forget: Callable[[], None] | None = None  # releases the memory of mapped images
    files: int = 0  # of a folder: how many image files it has

    def __post_init__(self) -> None:
        self.sha256 = self.sha256 or cache.hash_images(self.images)

    def card(self) -> dict[str, object]:
        """Return what a checkpoint and the log record of the data."""
        return {"origin": self.origin, "count": len(self.images), "sha256": self.sha256}


@dataclass(frozen=True, slots=True)
class Judge:
    """The way `began evaluate` scores images of a data set."""

    classifier: str | None = None  # the extractor that knows its classes, and the default one
    per_channel: bool = False  # whether the classifier judges each channel by itself
    samples: int = 10_000  # images to generate
    slow_neighbours: bool = False  # whether the scores that compare neighbours take minutes


Loader = Callable[[Any, bool], Source]
TestLoader = Callable[[Any], Source]
_LOADERS: dict[str, Loader] = {}
_TEST_LOADERS: dict[str, TestLoader] = {}
_JUDGES: dict[str, Judge] = {}


def data_set(name: str, judge: Judge | None = None) -> Callable[[Loader], Loader]:
    """Register the decorated function `load(c, glance)` as the loader of `dataset=NAME`."""

    def register(loader: Loader) -> Loader:
        _LOADERS[name], _JUDGES[name] = loader, judge or Judge()
        return loader

    return register


def test_split(name: str) -> Callable[[TestLoader], TestLoader]:
    """Register the decorated function `load(c)` as the loader of the test split of a data set."""

    def register(loader: TestLoader) -> TestLoader:
        _TEST_LOADERS[name] = loader
        return loader

    return register


def judge(name: str) -> Judge:
    """Return how images of `dataset=NAME` are scored."""
    return _JUDGES[name]


def load(c: DatasetConfig, glance: bool = False) -> Source:
    """Return the images that the settings name. Raise UserError if there are none.

    With `glance` download and write nothing, and read only some images of a folder.
    """
    return _LOADERS[c.name](c, glance)


def load_test(c: DatasetConfig) -> Source:
    """Return the images of the test split, which no run trains on. Nothing is downloaded.

    Raise UserError if the data set has none, or if it cannot be found.
    """
    if c.name not in _TEST_LOADERS:
        raise UserError(f"dataset={c.name} has no test split")
    return _TEST_LOADERS[c.name](c)


# --- a folder of the user's -----------------------------------------------------------------------


@data_set("folder")
def _folder(c: FolderDatasetConfig, glance: bool) -> Source:
    read = folder.read(c, glance)
    origin = str(Path(c.root).expanduser().absolute())
    held = read.held
    return Source(held.images, origin, read.warning, held.sha256, held.forget, read.files)


# --- MNIST and Fashion-MNIST ----------------------------------------------------------------------


@data_set("mnist", Judge("mnist-cnn"))
def _mnist(c: MnistDatasetConfig, glance: bool) -> Source:
    try:
        return _idx_source(c, "MNIST", glance)
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


@test_split("mnist")
def _mnist_test(c: MnistDatasetConfig | StackedMnistDatasetConfig) -> Source:
    path = _find_idx(Path(c.root).expanduser(), "MNIST", "mnist", "t10k-images-idx3-ubyte")
    path = path or SHIPPED / "t10k-images-idx3-ubyte.gz"
    return Source(_fit(_read_idx(path), c), str(path.absolute()))


@data_set(
    "stacked_mnist",
    Judge("mnist-cnn", per_channel=True, samples=26_000, slow_neighbours=True),
)
def _stacked_mnist(c: StackedMnistDatasetConfig, glance: bool) -> Source:
    """Make 128,000 random triples of digits, one a channel, always the same (1712.04086)."""
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
    return _stack(_mnist(single, glance), TRIPLES)


@test_split("stacked_mnist")
def _stacked_mnist_test(c: StackedMnistDatasetConfig) -> Source:
    return _stack(_mnist_test(replace(c, channels=1)), TEST_TRIPLES)


def _stack(digits: Source, n: int) -> Source:
    """Return n random triples of grey images, one a channel, always the same."""
    generator = torch.Generator().manual_seed(0)
    chosen = torch.randint(len(digits.images), (3, n), generator=generator)
    images = torch.empty(n, 3, *digits.images.shape[2:], dtype=torch.uint8)
    for channel, rows in enumerate(chosen):
        images[:, channel] = digits.images[rows, 0]
    return Source(images, f"{n:,} triples of {digits.origin}", digits.warning)


@data_set("fashion_mnist", Judge("fashion-cnn"))
def _fashion_mnist(c: FileDatasetConfig, glance: bool) -> Source:
    try:
        return _idx_source(c, "FashionMNIST", glance)
    except _NotThereError as error:
        raise UserError(
            f"dataset.root={c.root}: no Fashion-MNIST there, and it cannot be downloaded "
            f"({error}); put train-images-idx3-ubyte.gz there"
        ) from None


@test_split("fashion_mnist")
def _fashion_mnist_test(c: FileDatasetConfig) -> Source:
    name = "t10k-images-idx3-ubyte"
    path = _find_idx(Path(c.root).expanduser(), "FashionMNIST", c.name, name)
    if path is None:
        raise UserError(f"root: no {name}.gz in dataset.root={c.root}")
    return Source(_fit(_read_idx(path), c), str(path.absolute()))


def _idx_source(c: FileDatasetConfig, own: str, glance: bool) -> Source:
    """Return the training images of an idx data set: from dataset.root, or downloaded there."""
    root = Path(c.root).expanduser()
    path = _find_idx(root, own, c.name, "train-images-idx3-ubyte")
    if path is None:
        _download(own, root, glance)
        path = root / own / "raw" / "train-images-idx3-ubyte"
    return Source(_fit(_read_idx(path), c), str(path.absolute()))


def _find_idx(root: Path, own: str, dataset: str, name: str) -> Path | None:
    """Return the path of an idx file, gzipped or not: in a folder of its data set, or in `root`."""
    for place in (root / own / "raw", root / dataset, root):
        for path in (place / name, place / f"{name}.gz"):
            if path.is_file():
                return path
    return None


class _NotThereError(Exception):
    """A data set was not found and could not be downloaded; the text says why."""


def _download(folder: str, root: Path, glance: bool) -> None:
    """Download a torchvision data set into `root`. Raise _NotThereError with the reason."""
    if glance:
        raise _NotThereError("a dry run downloads nothing")
    from torchvision import datasets

    try:
        with downloading(root / folder / "raw"):
            getattr(datasets, folder)(str(root), download=True)
    except (RuntimeError, OSError) as error:  # URLError and time-outs are OSErrors
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise _NotThereError(reason[-1]) from None


def _read_idx(path: Path) -> Tensor:
    """Read the images of an idx file, gzipped or not: uint8 (N, 1, H, W)."""
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


@data_set("cifar10")
def _cifar10(c: FileDatasetConfig, glance: bool) -> Source:
    root = Path(c.root).expanduser()
    if not (root / "cifar-10-batches-py").is_dir():
        try:
            _download("CIFAR10", root, glance)
        except _NotThereError as error:
            raise UserError(
                f"dataset.root={c.root}: no cifar-10-batches-py there, and it cannot be downloaded "
                f"({error}); unpack cifar-10-python.tar.gz there"
            ) from None
    return _read_cifar10(c, train=True)


@test_split("cifar10")
def _cifar10_test(c: FileDatasetConfig) -> Source:
    return _read_cifar10(c, train=False)


def _read_cifar10(c: FileDatasetConfig, train: bool) -> Source:
    from torchvision.datasets import CIFAR10

    folder = Path(c.root).expanduser() / "cifar-10-batches-py"
    try:
        array = CIFAR10(str(folder.parent), train=train).data
    except (RuntimeError, OSError, ValueError) as error:
        raise UserError(f"dataset.root: {folder} is damaged: {error}") from None
    images = torch.from_numpy(array).permute(0, 3, 1, 2).contiguous()
    origin = str(folder.absolute())
    return Source(_fit(images, c), origin if train else f"the test split in {origin}")


def _fit(images: Tensor, c: DatasetConfig) -> Tensor:
    """Pad uint8 images with black to 8*2^k a side, then give them the size and colours of `c`."""
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


# --- avatars --------------------------------------------------------------------------------------


@data_set("avatars", Judge("avatars-cnn"))
def _avatars(c: AvatarsDatasetConfig, glance: bool) -> Source:
    return Source(avatars.read("train", c.image_size), "the avatars that come with began")


@test_split("avatars")
def _avatars_test(c: AvatarsDatasetConfig) -> Source:
    return Source(avatars.read("test", c.image_size), "the test avatars that come with began")


# --- points of the plane --------------------------------------------------------------------------


@data_set("ring")
def _ring(c: RingDatasetConfig, glance: bool) -> Source:
    """Make 50,000 points of Gaussians evenly spaced on a ring, always the same."""
    generator = torch.Generator().manual_seed(0)
    mode = torch.randint(c.modes, (50_000,), generator=generator)
    angle = mode * (2 * math.pi / c.modes)
    centre = torch.stack([angle.cos(), angle.sin()], dim=1) * c.radius
    points = centre + torch.randn(centre.shape, generator=generator) * c.spread
    return Source(points[:, :, None, None], f"{c.modes} Gaussians on a ring")

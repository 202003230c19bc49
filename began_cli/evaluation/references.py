"""Features of the real images: which images, and the cache that spares extracting them again."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from began_cli.evaluation.features import Extractor, Features
from began_cli.files import replacing

VERSION = 1  # of the files' content; another one is another file


@dataclass(slots=True)
class Plan:
    """Which real images fakes are compared with, and which two disjoint sets make the floor.

    With 2n images or more these are n, and n against n others; with fewer, as many as there are,
    and half against half.
    """

    rows: Tensor  # of the data, shuffled, the same ones every time
    reference: slice  # of `rows`
    floor: tuple[slice, slice]

    @property
    def floor_n(self) -> int:
        """Images in each set of the floor."""
        return self.floor[0].stop


def plan(count: int, n: int) -> Plan:
    """The plan for n fakes and `count` real images."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    each = min(n, count // 2)
    rows = order[: min(2 * n, count)]
    return Plan(rows, slice(0, min(n, count)), (slice(0, each), slice(each, 2 * each)))


def features_of(
    extractor: Extractor, data_sha256: str, rows: int, cache: Path, make: Callable[[], Features]
) -> tuple[Features, str | None]:
    """The features of so many of the data's rows: from the cache, else made and put there.

    A damaged file is made anew. Also a line to tell if the cache cannot be written to.
    """
    what = f"{VERSION} {extractor.name} {extractor.sha256} {data_sha256} {rows}"
    key = hashlib.sha256(what.encode()).hexdigest()[:24]
    path = cache / f"{extractor.name}-{key}.safetensors"
    try:
        kept = load_file(path)
        return Features(kept["features"], kept.get("logits")), None
    except (OSError, SafetensorError, KeyError):
        made = make()
    try:
        _write(path, made)
    except OSError as error:
        return made, f"cache={cache}: cannot be written to ({error.strerror}); kept nothing"
    return made, None


def _write(path: Path, made: Features) -> None:
    """Whoever reads `path` finds a whole file or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {"features": made.features.contiguous()}
    if made.logits is not None:
        tensors["logits"] = made.logits.contiguous()
    try:
        with replacing(path) as temporary:
            save_file(tensors, temporary)
    except SafetensorError as error:  # its word for a full disk
        raise OSError(None, str(error)) from None

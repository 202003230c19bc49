"""Features of the real images: which images to use, and a cache of their features."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from began_cli.evaluation.features import Extractor, Features
from began_cli.files import replacing

VERSION = 1  # of the files' content; part of their names


@dataclass(slots=True)
class Plan:
    """Which real images to compare n fakes with, and which two disjoint sets give the floor.

    Of 2n images or more: n of them, and n against n others. Of fewer: up to n of them, and one half
    against the other. All of them, if they were asked for.
    """

    rows: Tensor  # indices into the data set, shuffled with a fixed seed
    reference: slice  # into `rows`
    floor: tuple[slice, slice]  # into `rows`

    @property
    def floor_n(self) -> int:
        """Number of images in each set of the floor."""
        return self.floor[0].stop


def plan(count: int, n: int, extract_all: bool = False, compare_all: bool = False) -> Plan:
    """Return the plan for n fakes and `count` real images.

    `extract_all`: give the features of all images, also of those that are not compared with.
    `compare_all`: compare with all of them, not with n.
    """
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    each = min(n, count // 2)
    rows = order if extract_all or compare_all else order[: min(2 * n, count)]
    compared = count if compare_all else min(n, count)
    return Plan(rows, slice(0, compared), (slice(0, each), slice(each, 2 * each)))


def load_or_extract(
    extractor: Extractor, data_sha256: str, rows: int, cache: Path, extract: Callable[[], Features]
) -> tuple[Features, str | None]:
    """Return the features of the first `rows` rows of a plan for this data set.

    They are read from `cache`; if they are not there or damaged, they are extracted and written to
    it. The second value is a warning if that failed.
    """
    identity = f"{VERSION} {extractor.name} {extractor.sha256} {data_sha256} {rows}"
    key = hashlib.sha256(identity.encode()).hexdigest()[:24]
    path = cache / f"{extractor.name}-{key}.safetensors"
    try:
        tensors = load_file(path)
        return Features(tensors["features"], tensors.get("logits")), None
    except (OSError, SafetensorError, KeyError):
        features = extract()
    try:
        _write(path, features)
    except OSError as error:
        return features, f"cache={cache}: cannot be written to ({error.strerror}); kept nothing"
    return features, None


def _write(path: Path, features: Features) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {"features": features.features.contiguous()}
    if features.logits is not None:
        tensors["logits"] = features.logits.contiguous()
    with replacing(path) as temporary:
        temporary.write_bytes(save(tensors))

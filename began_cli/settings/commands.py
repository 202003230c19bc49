"""The settings of every command but train, as dataclasses. Their values stand in `conf/`."""

from dataclasses import dataclass
from typing import Any

from omegaconf import MISSING


@dataclass(slots=True)
class SampleConfig:
    ckpt: str | None = MISSING
    mode: str = MISSING
    images: Any = MISSING
    n: int | None = MISSING
    seeds: Any = MISSING
    format: str = MISSING
    out: str | None = MISSING
    device: str = MISSING


@dataclass(slots=True)
class InterpolateConfig:
    ckpt: str | None = MISSING
    path: str = MISSING
    rows: int | None = MISSING
    steps: int = MISSING
    mode: str = MISSING
    seeds: Any = MISSING
    images: Any = MISSING
    latents: str | None = MISSING
    axes: Any = MISSING
    error: str = MISSING
    start: str = MISSING
    restarts: int = MISSING
    search_steps: int = MISSING
    search_lr: float = MISSING
    format: str = MISSING
    fps: float = MISSING
    ease: bool = MISSING
    out: str | None = MISSING
    device: str = MISSING


@dataclass(slots=True)
class CompareConfig:
    runs: Any = MISSING
    n: int = MISSING
    out: str | None = MISSING
    device: str = MISSING


@dataclass(slots=True)
class ExportConfig:
    ckpt: str | None = MISSING
    format: str = MISSING
    out: str | None = MISSING


@dataclass(slots=True)
class EvaluateConfig:
    ckpt: str | None = MISSING
    n: int | None = MISSING
    seed: int = MISSING
    scores: Any = MISSING
    extractor: str = MISSING
    weights: str | None = MISSING
    k: int = MISSING
    kid_subset: int = MISSING
    bins: int = MISSING
    root: str | None = MISSING
    batch_size: int = MISSING
    device: str = MISSING
    cache: str | None = MISSING
    out: str | None = MISSING

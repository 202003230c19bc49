"""`began train dry_run=true`: what a run would cost. Writes nothing."""

import io
import sys
import time
from contextlib import suppress
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from began_cli import images
from began_cli.data import sources
from began_cli.device import enough_memory, pick_device, precision_name, wait
from began_cli.gan.flops import count_flops
from began_cli.settings.train import EbganLossConfig, TrainConfig
from began_cli.training.previews import Pictures
from began_cli.training.setup import Ready, ready

WARM_UP, STEPS = 3, 20
LINE = 600  # bytes of one log in metrics.jsonl, train.log and TensorBoard's scalars; measured
HISTOGRAMS = 4_000  # bytes of one log's two histograms in TensorBoard; measured


def report(cfg: TrainConfig) -> None:
    """Takes a few real steps and prints the run's size, speed, time and disk."""
    device = pick_device(cfg.device)
    source = sources.load(cfg.dataset, glance=True)
    margin_steps = 0
    if isinstance(cfg.loss, EbganLossConfig) and cfg.loss.margin == "auto":
        margin_steps = cfg.loss.margin_steps
        cfg.loss.margin = 1.0  # any will do to measure a step
    with enough_memory(cfg.batch_size, cfg.model.width):
        parts = ready(cfg, source, device)
        compiling = compile_time(cfg, parts)
        rows = measured(cfg, source, parts, device, compiling, margin_steps)
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in rows:
        table.add_row(name, value)
    console = Console(highlight=False)
    if source.warning:
        console.print(f"warning: {source.warning}", markup=False, soft_wrap=True)
    console.print(table)


def compile_time(cfg: TrainConfig, parts: Ready) -> float | None:
    """Seconds that compiling takes; None if it is off or fails."""
    if cfg.compile == "off":
        return None
    start = time.perf_counter()
    with suppress(Exception):  # training says why, and goes on without
        parts.update.compile(cfg.compile, parts.batches(), parts.latents())
        return time.perf_counter() - start
    return None


def measured(
    cfg: TrainConfig,
    source: sources.Source,
    parts: Ready,
    device: torch.device,
    compiling: float | None,
    margin_steps: int,
) -> list[tuple[str, str]]:
    """Names and values, ready to print."""
    update, batches, stream = parts
    images_a_step = cfg.batch_size * update.loss.n_critic
    for _ in range(WARM_UP):
        update(batches, stream)
    flops = None
    if compiling is None:  # operations inside compiled code cannot be counted
        flops = count_flops(lambda: update(batches, stream)) / images_a_step
    wait(device)
    start = time.perf_counter()
    for _ in range(STEPS):
        update(batches, stream)
    wait(device)
    seconds = (time.perf_counter() - start) / STEPS

    count = max(source.files, len(source.images))
    pixels = count * source.images[0].nbytes
    checkpoint = saved_size(update.state_dict())
    logs, samples = cfg.steps // cfg.log_every, -(-cfg.steps // cfg.sample_every)
    disk = (
        3 * checkpoint + logs * (LINE + HISTOGRAMS) + samples * picture_bytes(parts, source, device)
    )
    weights = [
        sum(w.numel() for w in n.parameters()) for n in (update.generator, update.discriminator)
    ]
    rows = [
        ("data", f"{count:,} images, {size(pixels)} as uint8, from {source.origin}"),
        ("parameters", f"G {weights[0]:,}, D {weights[1]:,}"),
        ("computes on", f"{device}, {precision_name(update.amp)}, compile={cfg.compile}"),
        (
            "work",
            "not counted when compiled" if flops is None else f"{flops / 1e9:.3g} GFLOPs an image",
        ),
        ("memory", memory(device)),
        ("speed", f"{images_a_step / seconds:,.0f} images/s, {seconds * 1000:.3g} ms a step"),
        (
            "time",
            f"{duration(seconds * cfg.steps)} for {cfg.steps:,} steps, without sampling and saving",
        ),
        ("disk", f"about {size(disk)}, of which a checkpoint takes {size(checkpoint)}"),
    ]
    if cfg.devices > 1:
        rows.append(("devices", f"measured on one, with the whole batch; {cfg.devices} divide it"))
    if compiling is not None:
        rows.insert(3, ("compiling", f"{compiling:.0f} s"))
    if margin_steps:
        rows.append(("margin", f"{margin_steps:,} steps of the autoencoder alone come first"))
    if cfg.compile != "off" and compiling is None:
        rows.append(("compiling", "fails here; the run would go on uncompiled"))
    return rows


def memory(device: torch.device) -> str:
    """The most that the steps took, on the device or else of this process."""
    if device.type == "cuda":
        return f"{size(torch.cuda.max_memory_allocated(device))} on {device} at most, measured"
    try:
        import resource
    except ImportError:  # not on Windows
        return "unknown on this system"
    unit = 1 if sys.platform == "darwin" else 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return f"{size(most)} of main memory at most, measured (PyTorch itself included)"


def picture_bytes(parts: Ready, source: sources.Source, device: torch.device) -> int:
    """Of one sample grid, and the same in TensorBoard; an untrained generator's, so an estimate."""
    pictures = Pictures(parts.update, source.images, parts.latents.shape[1], device)
    png = io.BytesIO()
    images.to_pil(pictures.sheet(pictures.samples())).save(png, format="PNG", compress_level=1)
    return 2 * png.tell()


def saved_size(state: dict[str, Any]) -> int:
    """Bytes of a checkpoint."""
    file = io.BytesIO()
    torch.save(state, file)
    return file.tell()


def size(count: float) -> str:
    """Bytes, in words."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            break
        count /= 1024
    return f"{count:.3g} {unit}"


def duration(seconds: float) -> str:
    """Seconds, in words."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"

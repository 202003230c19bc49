"""`began train dry_run=true`: report what a run would cost. Writes nothing."""

import dataclasses
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import NamedTuple

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.utils._pytree import tree_leaves

from began_cli.data import sources
from began_cli.data.sources import Source
from began_cli.device import (
    enough_memory,
    pick_device,
    pick_precision,
    wait,
    warn_of_busy_cores,
)
from began_cli.gan import graph
from began_cli.gan.build import build
from began_cli.gan.flops import count_flops
from began_cli.settings.train import TrainConfig
from began_cli.terminal import plural, say
from began_cli.training.loop import CHECKPOINTS
from began_cli.training.setup import build_parts

BUDGET = 8.0  # seconds for all steps, and for building the networks
STEPS = 20  # that are timed at most

clock = time.perf_counter


class Work(NamedTuple):
    """The counted work of a step."""

    flops: int
    images: int  # real ones
    parameters: tuple[int, int]  # of the generator and the discriminator
    checkpoint: int  # bytes


class Timing(NamedTuple):
    """The measured time of a step."""

    seconds: float
    cfg: TrainConfig  # the settings of the largest step that was timed
    compiling: float | None  # seconds; None if the step was not compiled


def report(cfg: TrainConfig) -> None:
    """Print the run's size, speed and time, from a few real steps."""
    device = pick_device(cfg.device)
    busy = warn_of_busy_cores(device)
    source = sources.load(cfg.dataset, glance=True)
    with enough_memory(cfg.batch_size, cfg.model.width):
        work = count(cfg, source)
        timing = measure(cfg, source, device, work)
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in describe(cfg, source, device, work, timing):
        table.add_row(name, value)
    for warning in (source.warning, busy):
        if warning:
            say(f"warning: {warning}")
    Console(highlight=False).print(table)


def count(cfg: TrainConfig, source: Source) -> Work:
    """Count the work of a step on the meta device, which computes nothing."""
    d = cfg.dataset
    with torch.device("meta") as meta:
        update = build(cfg, source.images, meta)
        x = torch.empty(cfg.batch_size, *d.image_shape)
        z = torch.empty(cfg.batch_size, cfg.model.latent_dim)
        flops = count_flops(lambda: update(lambda: x, lambda: z))
    generator, discriminator = (
        sum(weight.numel() for weight in network.parameters())
        for network in (update.generator, update.discriminator)
    )
    tensors = [leaf for leaf in tree_leaves(update.state_dict()) if isinstance(leaf, Tensor)]
    images = cfg.batch_size * update.loss.n_critic
    checkpoint = sum(tensor.nbytes for tensor in tensors)
    return Work(flops, images, (generator, discriminator), checkpoint)


def measure(cfg: TrainConfig, source: Source, device: torch.device, work: Work) -> Timing:
    """Time ever larger steps, up to that of `cfg`, while the next one fits into the budget.

    The time of the largest is scaled to `work` by the counted operations.
    """
    end, speed, timing = clock() + BUDGET, 0.0, None
    for smaller in smaller_settings(cfg):
        flops = work.flops if smaller == cfg else count(smaller, source).flops
        if speed and 2 * flops / speed > end - clock():  # one step to warm up, one to time
            break
        update, batches, latents = build_parts(smaller, source, device)
        compiling = None
        if smaller == cfg and cfg.compile != "off":
            start = clock()
            with suppress(Exception):  # training says why, and goes on without
                graphs = not cfg.wants_graph(device.type)
                update.compile(cfg.compile, batches(), latents(), graphs)
                compiling = clock() - start
                end += compiling
        if smaller == cfg and cfg.wants_graph(device.type):
            start = clock()
            with suppress(Exception):  # the same
                graph.capture(update, batches, latents)
            end += clock() - start
        step = partial(update, batches, latents)
        time_steps(step, 1, device)
        seconds = time_steps(step, 1, device)
        more = min(STEPS, int((end - clock()) / seconds))
        if smaller == cfg and more > 0:
            seconds = time_steps(step, more, device)
        speed = flops / seconds
        timing = Timing(work.flops / speed, smaller, compiling)
    assert timing is not None
    return timing


def time_steps(step: Callable[[], object], steps: int, device: torch.device) -> float:
    """Return the mean seconds of a step over some steps."""
    wait(device)
    start = clock()
    for _ in range(steps):
        step()
    wait(device)
    return (clock() - start) / steps


def smaller_settings(cfg: TrainConfig) -> list[TrainConfig]:
    """Return settings of ever larger steps: narrow networks, small batches, and last `cfg`."""
    batch_size = min(2 * cfg.accumulate * cfg.loss.images_a_value, cfg.batch_size)
    widths = sorted({max(1, cfg.model.width // share) for share in (8, 4, 2, 1)})
    narrow = [
        dataclasses.replace(
            cfg, batch_size=batch_size, model=dataclasses.replace(cfg.model, width=width)
        )
        for width in widths
    ]
    return [*(settings for settings in narrow if settings != cfg), cfg]


def describe(
    cfg: TrainConfig, source: Source, device: torch.device, work: Work, timing: Timing
) -> Iterator[tuple[str, str]]:
    """Yield the names and values of the report."""
    count = max(source.files, len(source.images))
    pixels = count * source.images[0].nbytes
    yield "data", f"{count:,} images, {size(pixels)} as uint8, from {source.origin}"
    yield "parameters", "G {:,}, D {:,}".format(*work.parameters)
    precision = pick_precision(cfg.precision, device)
    yield "computes on", f"{device}, {precision}, compile={cfg.compile}"
    if timing.compiling is not None:
        yield "compiling", f"{timing.compiling:.0f} s"
    elif cfg.compile != "off" and timing.cfg == cfg:
        yield "compiling", "fails here; the run would go on uncompiled"
    elif cfg.compile != "off":
        yield "compiling", "not tried here"
    yield "work", f"{work.flops / work.images / 1e9:.3g} GFLOPs an image"
    yield "memory", memory(device)
    seconds = timing.seconds
    yield "speed", f"{work.images / seconds:,.3g} images/s, {seconds * 1000:.3g} ms a step"
    if timing.cfg != cfg:
        smaller = f"batch_size={timing.cfg.batch_size}, model.width={timing.cfg.model.width}"
        yield "", f"memory and speed measured with {smaller}, as larger steps take too long here;"
        yield "", "speed scaled by the number of operations, memory not"
    hours = duration(seconds * cfg.steps)
    yield "time", f"{hours} for {plural(cfg.steps, 'step')}, without sampling and saving"
    yield "disk", f"about {size((CHECKPOINTS + 1) * work.checkpoint)} for checkpoints"
    if cfg.devices > 1:
        yield "devices", f"measured on one, with the whole batch; {cfg.devices} divide it"


def memory(device: torch.device) -> str:
    """Return the peak memory of the steps on a GPU, else of this process."""
    if device.type == "cuda":
        return f"{size(torch.cuda.max_memory_allocated(device))} on {device} at most, measured"
    try:
        import resource
    except ImportError:  # on Windows
        return "unknown on this system"
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return f"{size(peak)} of main memory at most, measured (PyTorch itself included)"


def size(count: float) -> str:
    """Return a number of bytes in words."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            break
        count /= 1024
    return f"{count:.3g} {unit}"


def duration(seconds: float) -> str:
    """Return a time in words."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"

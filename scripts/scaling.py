"""Estimate the cost of a step on several devices: work, gradients, memory, and the number of
devices from which more do not pay.

    python scripts/scaling.py [--images 360000]
    torchrun --standalone --nproc-per-node 2 scripts/scaling.py --link
    torchrun --standalone --nproc-per-node 2 scripts/scaling.py --step recipe=faces64 batch_size=4

The first counts each recipe's operations, gradient bytes and activations in a small step, and
applies the model of docs/scaling.md. The second measures this machine's link: bytes a second and
latency of an all-reduce by gloo. The third measures a step with its all-reduces and without them,
which bounds what could be saved by running them beside the backward pass.
"""

import argparse
import time
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from common import compose_settings
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from began_cli.gan import gradients
from began_cli.gan.build import build
from began_cli.gan.flops import count_flops
from began_cli.gan.losses import PenalisedLoss

CPU = torch.device("cpu")
LINES = {
    "mnist, began": ["loss=began", "dataset=mnist"],
    "mnist, bgan": ["loss=bgan", "dataset=mnist"],
    "faces64": ["recipe=faces64", "dataset.root=x"],
    "faces128": ["recipe=faces128", "dataset.root=x"],
}


class Cost(NamedTuple):
    """The cost of one step on one device: operations, weights, bytes kept by two passes of D,
    batch, and operators that the host starts."""

    flops: int
    weights: int
    activations: int
    batch: int
    operators: int

    @property
    def gradients(self) -> int:
        return 4 * self.weights


START = 5e-6  # seconds in which a host starts an operator without CUDA graphs; assumed


BUCKET = 25 * 2**20  # bytes; as PyTorch's DistributedDataParallel sends them during a pass


class Machine(NamedTuple):
    """Operations a second that a step reaches, bytes a second and latency of its all-reduce."""

    name: str
    flops: float
    bandwidth: float
    latency: float


# H100: data sheet figures (989 TFLOPS dense bf16; NVLink 450 and InfiniBand 50 GB/s one way) times
# the share that is assumed to be reached; none of it measured here. The CPU's are measured.
H100 = 0.25 * 989e12
MACHINES = [
    Machine("H100, NVLink", H100, 0.7 * 450e9, 20e-6),
    Machine("H100, PCIe", H100, 20e9, 20e-6),
    Machine("H100, 400 Gb/s InfiniBand", H100, 0.7 * 50e9, 40e-6),
    Machine("H100, 10 Gb/s Ethernet", H100, 0.7 * 1.25e9, 100e-6),
]


def cost_of(line: list[str]) -> Cost:
    """Counted in one real step of four images; both counts grow with the batch."""
    n = PenalisedLoss.EVERY  # of so many, r1 takes one
    cfg = compose_settings([*line, "device=cpu"])
    d, batch = cfg.dataset, cfg.batch_size
    pixels = torch.zeros(n, *d.image_shape, dtype=torch.uint8)
    update = build(cfg, pixels, CPU)
    networks = (update.generator, update.discriminator)
    weights = sum(weight.numel() for network in networks for weight in network.parameters())
    x = torch.zeros(n, *d.image_shape)
    z = torch.zeros(n, cfg.model.latent_dim)
    kept: dict[int, Tensor] = {}

    def note(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        update.critic_step(x, z)
    mine = {weight.data_ptr() for network in networks for weight in network.parameters()}
    bytes_kept = sum(t.untyped_storage().nbytes() for at, t in kept.items() if at not in mine)
    flops = count_flops(lambda: update(lambda: x, lambda: z))
    with _Started() as started:
        update(lambda: x, lambda: z)
    seen = batch * update.loss.n_critic
    return Cost(flops * batch // n, weights, bytes_kept * batch // n, seen, started.count)


class _Started(TorchDispatchMode):
    """Counts operators; views cost the host too."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


def step_seconds(cost: Cost, machine: Machine, devices: int) -> tuple[float, float]:
    """(computing, waiting for gradients) of a step whose batch is divided over the devices.

    No step is shorter than its host needs to start the operators.
    """
    computing = max(cost.flops / devices / machine.flops, cost.operators * START)
    if devices == 1:
        return computing, 0.0
    sent = 2 * (devices - 1) / devices * cost.gradients / machine.bandwidth
    return computing, sent + 2 * machine.latency


def saved_by_overlap(cost: Cost, machine: Machine, devices: int) -> float:
    """Share of a step that would be saved if all buckets but the last were summed beside the
    backward pass, as far as there is computing left to hide them."""
    computing, waiting = step_seconds(cost, machine, devices)
    hidden = (waiting - 2 * machine.latency) * max(0.0, 1 - BUCKET / cost.gradients)
    return min(hidden, computing / 2) / (computing + waiting)


def table(images: int) -> None:
    print("| | GFLOPs a step | operators | parameters | gradients | activations of D, fp32 |")
    print("|---|---|---|---|---|---|")
    costs = {name: cost_of(line) for name, line in LINES.items()}
    for name, cost in costs.items():
        print(
            f"| {name}, batch {cost.batch} | {cost.flops / 1e9:,.4g} | {cost.operators:,} | "
            f"{cost.weights:,} | "
            f"{cost.gradients / 2**20:,.1f} MiB | {cost.activations / 2**20:,.0f} MiB |"
        )
    print(
        "\n| | ms a step on 1 | 2 | 4 | 8 devices | one epoch of",
        f"{images:,} on 1 | on 8 |",
        end="",
    )
    print(" overlap would save on 2 | 4 | 8 |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for name, cost in costs.items():
        for machine in MACHINES:
            steps = {n: sum(step_seconds(cost, machine, n)) for n in (1, 2, 4, 8)}
            epoch = {n: steps[n] * images / cost.batch for n in (1, 8)}
            cells = " | ".join(f"{steps[n] * 1000:.3g}" for n in (1, 2, 4, 8))
            gains = " | ".join(f"{saved_by_overlap(cost, machine, n):.0%}" for n in (2, 4, 8))
            print(
                f"| {name}, {machine.name} | {cells} | {epoch[1]:,.0f} s | {epoch[8]:,.0f} s |",
                gains,
            )


def link() -> None:
    """Prints what an all-reduce takes here, from process 0."""
    dist.init_process_group("gloo")
    for count in (1, 2**18, 25 * 2**18):
        tensor = torch.ones(count)
        times = []
        for _ in range(12):
            dist.barrier()
            start = time.perf_counter()
            dist.all_reduce(tensor)
            times.append(time.perf_counter() - start)
        took = sorted(times)[len(times) // 2]
        if dist.get_rank() == 0:
            n = dist.get_world_size()
            rate = 2 * (n - 1) / n * tensor.nbytes / took
            print(f"{tensor.nbytes:>12,} bytes: {took * 1e3:.3g} ms, {rate / 1e9:.3g} GB/s")
    dist.destroy_process_group()


def step(line: list[str]) -> None:
    """Prints what a step takes here with its all-reduces and without, from process 0."""
    dist.init_process_group("gloo")
    cfg = compose_settings([*line, "dataset.root=x", "device=cpu"])
    d, n = cfg.dataset, cfg.batch_size // dist.get_world_size()
    pixels = torch.zeros(2, *d.image_shape, dtype=torch.uint8)
    update = build(cfg, pixels, CPU)
    x = torch.rand(n, *d.image_shape)
    z = torch.rand(n, cfg.model.latent_dim)
    times: dict[bool, list[float]] = {True: [], False: []}
    sums = gradients.Gradients.sum_over_processes
    for i in range(2 * 8):
        together = i % 2 == 0
        gradients.Gradients.sum_over_processes = sums if together else lambda self: None
        dist.barrier()
        start = time.perf_counter()
        update(lambda: x, lambda: z)
        times[together].append(time.perf_counter() - start)
    if dist.get_rank() == 0:
        with_sums, without = (sorted(times[key][1:])[3] for key in (True, False))
        print(f"{with_sums:.3g} s a step; without its all-reduces {without:.3g} s")
    dist.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=360_000, help="in an epoch")
    parser.add_argument("--link", action="store_true", help="measure an all-reduce instead")
    parser.add_argument("--step", nargs="*", help="measure a step with these settings instead")
    args = parser.parse_args()
    if args.link:
        link()
    elif args.step is not None:
        step(args.step)
    else:
        table(args.images)


if __name__ == "__main__":
    main()

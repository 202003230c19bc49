"""Time began against plain references, in turns in one process.

    python scripts/benchmark.py WHAT [--rounds N] [--json] [setting=value …]

WHAT is one of:
step       a BEGAN step against one with three discriminator passes, and one of G then D
scaling    a BEGAN step's time and operations, over sizes, batches and widths
precision  a step of any loss in bf16 against one in fp32
loop       `began train` with its logs, samples and checkpoints, against the bare step
data       a folder of images, against ImageFolder and DataLoader with two workers
sample     `began sample` against the bare generator
startup    `began --help` and `began train --cfg job` against importing torch

Prints medians, and each ratio with its smallest and largest value over the rounds.
"""

import copy
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import compose_settings, make_parser, report_errors
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from began_cli import images
from began_cli.commands import train
from began_cli.data import sources
from began_cli.data.batches import Batches
from began_cli.device import pick_device, wait
from began_cli.gan import latents, layers
from began_cli.gan.flops import count_flops
from began_cli.gan.update import Update
from began_cli.generators import sampling
from began_cli.settings.train import TrainConfig
from began_cli.training.setup import build_batches, build_parts

Result = dict[str, Any]


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("what", choices=BENCHMARKS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("settings", nargs="*", help="as for `began train`")
    args = parser.parse_intermixed_args()
    result = BENCHMARKS[args.what](args.rounds, args.settings)
    if args.json:
        print(json.dumps(result))
    else:
        for name, value in result.items():
            print(f"{name:48} {value}")


def time_once(work: Callable[[], Any], device: torch.device) -> float:
    """Return the seconds that `work` takes, until the device is done."""
    wait(device)
    start = time.perf_counter()
    work()
    wait(device)
    return time.perf_counter() - start


def time_in_turns(
    work: dict[str, Callable[[], Any]], rounds: int, device: torch.device
) -> dict[str, list[float]]:
    """Return the seconds of each piece of work in each round, after a round to warm up."""
    for each in work.values():
        each()
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(rounds):
        for name, each in work.items():
            seconds[name].append(time_once(each, device))
    return seconds


def format_ratio(base: list[float], ours: list[float]) -> str:
    """Return how many times faster ours is: median, smallest and largest over the rounds."""
    each = [a / b for a, b in zip(base, ours, strict=True)]
    return f"{statistics.median(each):.2f} ({min(each):.2f} to {max(each):.2f})"


# --- step -----------------------------------------------------------------------------------------


def use_plain_layers(*networks: nn.Module) -> None:
    """Compute with PyTorch's layers instead of began's faster ones, on the same weights."""
    for network in networks:
        for module in network.modules():
            if isinstance(module, layers.UpConv2d):
                module.composed = False
            if isinstance(module, layers.Elu):
                module.plain = True


class Reference:
    """BEGAN's step as in public repositories, on the same networks, with PyTorch's layers."""

    def __init__(self, update: Update, gamma: float, lambda_k: float, lr: float) -> None:
        self.generator = copy.deepcopy(update.generator)
        self.discriminator = copy.deepcopy(update.discriminator)
        use_plain_layers(self.generator, self.discriminator)
        self.gamma, self.lambda_k, self.k_t, self.m = gamma, lambda_k, 0.0, 0.0
        self.optimizer_g = torch.optim.Adam(self.generator.parameters(), lr)
        self.optimizer_d = torch.optim.Adam(self.discriminator.parameters(), lr)

    def energy(self, v: Tensor) -> Tensor:
        return (v - self.discriminator(v).images).abs().mean()

    def three_passes(self, x: Tensor, z: Tensor) -> None:
        """Run D on x, on G(z) detached and on G(z); then step both optimizers."""
        g = self.generator(z)
        loss_real, loss_fake = self.energy(x), self.energy(g.detach())
        loss_g = self.energy(g)
        self.optimizer_g.zero_grad()
        loss_g.backward()
        self.optimizer_d.zero_grad()
        (loss_real - self.k_t * loss_fake).backward()
        self.optimizer_d.step()
        self.optimizer_g.step()
        self.control(loss_real.item(), loss_fake.item())

    def two_phases(self, x: Tensor, z: Tensor) -> None:
        """Update G, then D."""
        self.optimizer_g.zero_grad()
        g = self.generator(z)
        self.energy(g).backward()
        self.optimizer_g.step()
        self.optimizer_d.zero_grad()
        loss_real, loss_fake = self.energy(x), self.energy(g.detach())
        (loss_real - self.k_t * loss_fake).backward()
        self.optimizer_d.step()
        self.control(loss_real.item(), loss_fake.item())

    def control(self, real: float, fake: float) -> None:
        balance = self.gamma * real - fake
        self.k_t = min(max(self.k_t + self.lambda_k * balance, 0.0), 1.0)
        self.m = real + abs(balance)


def make_noise(cfg: TrainConfig, count: int = 64) -> sources.Source:
    """Return images of random pixels: the cost of a step does not depend on them."""
    d = cfg.dataset
    shape = (count, *d.image_shape)
    generator = torch.Generator().manual_seed(0)
    return sources.Source(
        torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator), "random pixels"
    )


def measure_step(rounds: int, overrides: list[str], steps: int = 2) -> Result:
    """Time a BEGAN step. Default: 64x64, n = 64, batch 16. precision=bf16 applies to ours alone."""
    base = ["loss=began_paper", "dataset=folder", "dataset.root=x", "precision=fp32"]
    cfg = compose_settings([*base, *overrides])
    device = pick_device(cfg.device)
    ours = build_parts(cfg, make_noise(cfg), device)
    loss: Any = cfg.loss
    plain = [Reference(ours.update, loss.gamma, loss.lambda_k, cfg.optimizer.lr) for _ in range(2)]
    x, z = ours.batches(), ours.latents()
    if cfg.compile != "off":
        ours.update.compile(cfg.compile, x, z)
    once = {
        "three passes": lambda: plain[0].three_passes(x, z),
        "two phases": lambda: plain[1].two_phases(x, z),
        "began": lambda: ours.update(lambda: x, lambda: z),
    }

    def several(work: Callable[[], Any]) -> Callable[[], None]:
        def repeat() -> None:
            for _ in range(steps):
                work()

        return repeat

    seconds = time_in_turns({name: several(work) for name, work in once.items()}, rounds, device)
    peak = measure_peak(device, ours.update.amp)
    result: Result = {}
    work = {}
    for name, each in seconds.items():
        median = statistics.median(each) / steps
        if name != "began" or cfg.compile == "off":
            work[name] = count_flops(once[name]) / cfg.batch_size
            result[f"{name}, GFLOPs an image"] = round(work[name] / 1e9, 4)
        result[f"{name}, ms a step"] = round(1000 * median, 2)
        result[f"{name}, images/s"] = round(cfg.batch_size / median, 2)
    for name in ("three passes", "two phases"):
        result[f"began is faster than {name}"] = format_ratio(seconds[name], seconds["began"])
    if "began" in work:
        result["began's work over three passes'"] = round(work["began"] / work["three passes"], 3)
        rate = work["began"] * cfg.batch_size * steps / statistics.median(seconds["began"])
        result["began's share of the matrix-product peak"] = f"{rate / peak:.0%}"
    result["matrix-product peak, GFLOPS"] = round(peak / 1e9)
    return result


def measure_scaling(rounds: int, overrides: list[str]) -> Result:
    """Vary size, batch and width one at a time, starting from 32x32, n = 16, batch 16."""
    series = {
        "size": [f"dataset.image_size={size}" for size in (32, 64, 128)],
        "batch": [f"batch_size={batch}" for batch in (8, 16, 32, 64, 128)],
        "width": [f"model.width={width}" for width in (16, 32, 64, 128)],
    }
    base = ["loss=began_paper", "dataset=folder", "dataset.root=x", "dataset.image_size=32"]
    base += ["model.width=16", "batch_size=16", "precision=fp32"]
    work: dict[str, Callable[[], Any]] = {}
    flops: dict[str, float] = {}
    for word in itertools.chain.from_iterable(series.values()):
        cfg = compose_settings([*base, *overrides, word])
        parts = build_parts(cfg, make_noise(cfg, 128), pick_device(cfg.device))
        work[word] = lambda parts=parts: parts.update(parts.batches, parts.latents)
        work[word]()
        flops[word] = count_flops(work[word])
    device = pick_device(compose_settings([*base, *overrides]).device)
    seconds = {
        word: statistics.median(each) for word, each in time_in_turns(work, rounds, device).items()
    }
    result: Result = {}
    for words in series.values():
        for before, word in zip([None, *words], words, strict=False):
            text = f"{1000 * seconds[word]:.1f} ms, {flops[word] / 1e9:.2f} GFLOPs"
            if before is not None:
                slower, more = seconds[word] / seconds[before], flops[word] / flops[before]
                text += f"; {slower:.2f} times the time for {more:.2f} times the work"
            result[word] = text
    return result


def measure_precision(rounds: int, overrides: list[str]) -> Result:
    """Time a step in both precisions. Default: BGAN on MNIST."""
    work: dict[str, Callable[[], Any]] = {}
    for precision in ("fp32", "bf16"):
        line = ["dataset=mnist", "loss=bgan", *overrides, f"precision={precision}"]
        cfg = compose_settings(line)
        parts = build_parts(cfg, make_noise(cfg), pick_device(cfg.device))
        work[precision] = lambda parts=parts: parts.update(parts.batches, parts.latents)
        work[precision]()
    seconds = time_in_turns(work, rounds, pick_device(cfg.device))
    result: Result = {
        f"{name}, ms a step": round(1000 * statistics.median(each), 2)
        for name, each in seconds.items()
    }
    return result | {"bf16 is faster": format_ratio(seconds["fp32"], seconds["bf16"])}


def measure_peak(device: torch.device, amp: torch.dtype | None, n: int = 2048) -> float:
    """Return operations per second of the fastest of 20 products of n x n matrices.

    Half of them are 1x1 convolutions, which another library computes on a CPU.
    """
    a = torch.randn(n, n, device=device, dtype=amp or torch.float32)
    image, kernel = a.view(1, n, 1, n), a.view(n, n, 1, 1)
    products = [lambda: a @ a, lambda: torch.nn.functional.conv2d(image, kernel)]
    return 2 * n**3 / min(time_once(product, device) for product in products for _ in range(10))


# --- loop -----------------------------------------------------------------------------------------


def measure_loop(rounds: int, overrides: list[str]) -> Result:
    """Time `began train`. Default: BGAN on MNIST, 1,000 steps, logs and samples as set."""
    cfg = compose_settings(["dataset=mnist", "loss=bgan", "steps=1000", *overrides])
    cfg.steps += 1  # the first step warms up and is not counted
    device = pick_device(cfg.device)
    update, batches, stream = build_parts(cfg, sources.load(cfg.dataset), device)
    shown = (cfg.steps - 1) * cfg.batch_size * update.loss.n_critic
    whole_step = Update.__call__
    bare, command = [], []
    for _ in range(rounds):
        update(batches, stream)
        bare.append(
            time_once(lambda: [update(batches, stream) for _ in range(cfg.steps - 1)], device)
        )

        stamps: list[float] = []

        def stamped(self: Update, *streams: Any, stamps: list[float] = stamps) -> Any:
            measures = whole_step(self, *streams)
            if self.step in (1, cfg.steps):
                wait(device)
                stamps.append(time.perf_counter())
            return measures

        with tempfile.TemporaryDirectory() as folder:
            cfg.out = str(Path(folder) / "run")
            Update.__call__ = stamped  # pyright: ignore[reportAttributeAccessIssue]
            try:
                train.main(cfg, [])
            finally:
                Update.__call__ = whole_step
        command.append(stamps[1] - stamps[0])
    return {
        "the bare step, images/s": round(shown / statistics.median(bare)),
        "began train, images/s": round(shown / statistics.median(command)),
        "began train over the bare step": format_ratio(bare, command),
    }


# --- data -----------------------------------------------------------------------------------------


def measure_data(rounds: int, overrides: list[str]) -> Result:
    """Time reading images at 64x64: 5,000 JPEGs of 178x218, or those of dataset.root=FOLDER."""
    with tempfile.TemporaryDirectory() as folder:
        given = [word for word in overrides if word.startswith("dataset.root=")]
        if not given:
            make_jpegs(Path(folder) / "photos" / "all", 5000)
            overrides = [*overrides, f"dataset.root={folder}/photos"]
        cfg = compose_settings(["loss=began_paper", "dataset=folder", *overrides])
        dataset: Any = cfg.dataset
        dataset.device = "cpu"
        size = (dataset.image_size, dataset.image_size)
        ways = [transforms.Resize(size[0]), transforms.CenterCrop(size), transforms.ToTensor()]
        ways += [transforms.Normalize([0.5] * 3, [0.5] * 3)]
        folders = ImageFolder(dataset.root, transforms.Compose(ways))
        loader = DataLoader(folders, cfg.batch_size, shuffle=True, num_workers=2, drop_last=True)
        cpu = torch.device("cpu")
        theirs, first, later = [], [], []
        for i in range(rounds):
            theirs.append(time_once(lambda: [x.sum() for x, _ in loader], cpu) / len(folders))
            dataset.cache = f"{folder}/cache-{i}"  # an empty one each time

            def fresh() -> None:
                batches = build_batches(cfg, sources.load(dataset), cpu)
                for _ in range(len(folders) // cfg.batch_size):
                    batches().sum()

            first.append(time_once(fresh, cpu) / len(folders))
            batches = build_batches(cfg, sources.load(dataset), cpu)

            def again(batches: Batches = batches) -> None:
                for _ in range(10 * len(folders) // cfg.batch_size):
                    batches().sum()

            later.append(time_once(again, cpu) / len(folders) / 10)
    return {
        "ImageFolder, 2 workers, images/s": round(1 / statistics.median(theirs)),
        "began, first epoch (decode, cache), images/s": round(1 / statistics.median(first)),
        "began, later epochs, images/s": round(1 / statistics.median(later)),
        "first epoch is faster": format_ratio(theirs, first),
        "later epochs are faster": format_ratio(theirs, later),
    }


def make_jpegs(folder: Path, count: int) -> None:
    """Write smooth random images of CelebA's size, which compress about as well as photographs."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for i in range(count):
        small = Image.fromarray(random.integers(0, 256, (22, 18, 3), dtype=np.uint8))
        small.resize((178, 218), Image.Resampling.BICUBIC).save(folder / f"{i:05}.jpg", quality=90)


# --- sample ---------------------------------------------------------------------------------------


def measure_sample(rounds: int, overrides: list[str], n: int = 10_000) -> Result:
    """Time `began sample`. Default: BGAN's generator for MNIST, 10,000 images."""
    cfg = compose_settings(["dataset=mnist", "loss=bgan", *overrides])
    device = pick_device(cfg.device)
    generator = build_parts(cfg, make_noise(cfg), device).update.ema
    rows = latents.from_seeds(range(n), cfg.model.latent_dim)
    chunks = rows.to(device).split(sampling.CHUNK)

    @torch.no_grad()
    def bare() -> None:
        for chunk in chunks:
            generator(chunk)

    def arrays() -> None:
        images.to_nhwc(sampling.generate_all(generator, rows))

    with tempfile.TemporaryDirectory() as folder:
        names = [Path(folder) / f"seed-{i:05}.png" for i in range(n)]

        def pngs() -> None:
            made = itertools.chain.from_iterable(sampling.generate(generator, rows))
            images.save_pngs(made, names)

        seconds = time_in_turns({"bare": bare, "arrays": arrays, "pngs": pngs}, rounds, device)
    return {
        "the bare generator, images/s": round(n / statistics.median(seconds["bare"])),
        "as an array, images/s": round(n / statistics.median(seconds["arrays"])),
        "as PNG files, images/s": round(n / statistics.median(seconds["pngs"])),
        "arrays over the bare generator": format_ratio(seconds["bare"], seconds["arrays"]),
        "PNG files over the bare generator": format_ratio(seconds["bare"], seconds["pngs"]),
    }


# --- startup --------------------------------------------------------------------------------------


def measure_startup(rounds: int, overrides: list[str]) -> Result:
    """Time whole processes."""

    def process(*line: str) -> Callable[[], Any]:
        return lambda: subprocess.run([sys.executable, *line], check=True, capture_output=True)

    work = {
        "import torch": process("-c", "import torch"),
        "began --help": process("-m", "began_cli", "--help"),
        "began train --cfg job": process("-m", "began_cli", "train", *overrides, "--cfg", "job"),
    }
    seconds = time_in_turns(work, rounds, torch.device("cpu"))
    result: Result = {f"{name}, s": round(statistics.median(t), 2) for name, t in seconds.items()}
    for name in list(work)[1:]:
        result[f"{name} is faster"] = format_ratio(seconds["import torch"], seconds[name])
    return result


BENCHMARKS: dict[str, Callable[[int, list[str]], Result]] = {
    "step": measure_step,
    "scaling": measure_scaling,
    "precision": measure_precision,
    "loop": measure_loop,
    "data": measure_data,
    "sample": measure_sample,
    "startup": measure_startup,
}

if __name__ == "__main__":
    with report_errors():
        main()

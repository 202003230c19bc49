"""Work for several processes at once, as a test starts them: gloo, on the CPU."""

import os
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from began_cli import ranks
from began_cli.data.batches import Batches
from began_cli.gan.build import build
from began_cli.gan.latents import LatentStream
from began_cli.training import schedule

CPU = torch.device("cpu")


def in_processes(n: int, work: Callable, folder: Path, *args, connected: bool = True) -> None:
    """Run `work(folder, *args)` in n connected processes; an error in one is raised here.

    If not `connected`, the work connects itself.
    """
    mp.spawn(_run, (n, work, folder, args, connected), nprocs=n)


def _run(rank: int, n: int, work: Callable, folder: Path, args: tuple, connected: bool) -> None:
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(n)}
    store = dist.FileStore(str(folder / f"store-{n}"), n)
    ranks._rendezvous = lambda: {"store": store, "rank": rank, "world_size": n}
    with ranks.connect() if connected else nullcontext():
        work(folder, *args)
    names = [name.read_text().strip() for name in Path("/proc/self/task").glob("*/comm")]
    assert "pt_gloo_runloop" not in names, "gloo's threads outlive the group"


def trajectories(folder: Path, lines: dict[str, list[str]], steps: int) -> None:
    """Train with each of the settings, and save what came of it in folder/NAME-SIZE-RANK.pt."""
    for name, line in lines.items():
        torch.save(trajectory(line, steps), folder / f"{name}-{ranks.size()}-{ranks.rank()}.pt")


def trajectory(line: list[str], steps: int) -> dict:
    """Train; return every weight and buffer, every step's measures, and samples."""
    from conftest import settings

    cfg = settings("train", *line)
    d = cfg.dataset
    torch.manual_seed(0)
    if d.channels == 2:
        pixels = torch.rand(50, 2, 1, 1) * 2 - 1
    else:
        shape = (50, *d.image_shape)
        pixels = torch.randint(0, 256, shape, dtype=torch.uint8)
        pixels[:, :, :, : d.image_size // 2] //= 4  # something to learn
    update = build(cfg, pixels, CPU)
    plan = schedule.build(cfg.schedule, [update.optimizer_g, update.optimizer_d])
    batches = Batches(pixels, cfg.batch_size, 1, CPU, flip=True, parts=cfg.accumulate)
    stream = LatentStream(cfg.batch_size, cfg.model.latent_dim, 2, CPU, cfg.accumulate)
    scalars = []
    for step in range(steps):
        measures = update(batches, stream)
        scalars.append({name: value.clone() for name, value in measures.scalars.items()})
        plan.after(step + 1, measures.scalars)
    names = list(scalars[0])
    with torch.no_grad():
        samples = update.ema(torch.linspace(-1, 1, 4 * cfg.model.latent_dim).view(4, -1))
    return {
        "generator": update.generator.state_dict(),
        "discriminator": update.discriminator.state_dict(),
        "ema": update.ema.state_dict(),
        "loss": update.loss.state_dict(),
        "measures": torch.stack([torch.stack([step[name] for name in names]) for step in scalars]),
        "last": torch.cat([measures.real, measures.fake]),
        "samples": samples,
        "names": names,
    }


def bytes_of_a_step(folder: Path, line: list[str]) -> None:
    """Save the bytes that each collective of one step sends in folder/bytes.pt."""
    sent = {"all_reduce": [], "all_gather": []}
    reduce, gather = dist.all_reduce, dist.all_gather

    def all_reduce(tensor, *args, **kwargs):
        sent["all_reduce"].append(tensor.nbytes)
        return reduce(tensor, *args, **kwargs)

    def all_gather(tensors, tensor, *args, **kwargs):
        sent["all_gather"].append(tensor.nbytes)
        return gather(tensors, tensor, *args, **kwargs)

    dist.all_reduce, dist.all_gather = all_reduce, all_gather
    weights = trajectory(line, 1)
    dist.all_reduce, dist.all_gather = reduce, gather
    if ranks.is_first():
        torch.save({"sent": sent, "weights": weights}, folder / "bytes.pt")

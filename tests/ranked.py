"""Work for several processes at once, as a test starts them: gloo, on the CPU."""

import os
from collections.abc import Callable
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


def in_processes(n: int, work: Callable, folder: Path, *args) -> None:
    """`work(folder, *args)` in n processes that have joined; an error in one is raised here."""
    mp.spawn(_joined, (n, work, folder, args), nprocs=n)


def _joined(rank: int, n: int, work: Callable, folder: Path, args: tuple) -> None:
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(n)}
    store = dist.FileStore(str(folder / f"store-{n}"), n)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=n)
    ranks._Vote.start()
    try:
        work(folder, *args)
    finally:
        dist.destroy_process_group()


def trajectories(folder: Path, lines: dict[str, list[str]], steps: int) -> None:
    """Trains with each of the settings; all that came of it in folder/NAME-SIZE-RANK.pt."""
    for name, line in lines.items():
        torch.save(trajectory(line, steps), folder / f"{name}-{ranks.size()}-{ranks.rank()}.pt")


def trajectory(line: list[str], steps: int) -> dict:
    """What training came to: every weight and buffer, every step's measures, samples."""
    from conftest import settings

    cfg = settings("train", *line)
    d = cfg.dataset
    torch.manual_seed(0)
    if d.channels == 2:
        pixels = torch.rand(50, 2, 1, 1) * 2 - 1
    else:
        shape = (50, d.channels, d.image_size, d.image_size)
        pixels = torch.randint(0, 256, shape, dtype=torch.uint8)
        pixels[:, :, :, : d.image_size // 2] //= 4  # something to learn
    update = build(cfg, pixels, CPU)
    plan = schedule.build(cfg.schedule, [update.optimizer_g, update.optimizer_d])
    batches = Batches(pixels, cfg.batch_size, 1, CPU, flip=True, parts=cfg.accumulate)
    stream = LatentStream(cfg.batch_size, cfg.model.latent_dim, 2, CPU, cfg.accumulate)
    told = []
    for step in range(steps):
        measures = update(batches, stream)
        told.append({name: value.clone() for name, value in measures.scalars.items()})
        plan.after(step + 1, measures.scalars)
    names = list(told[0])
    with torch.no_grad():
        samples = update.ema(torch.linspace(-1, 1, 4 * cfg.model.latent_dim).view(4, -1))
    return {
        "generator": update.generator.state_dict(),
        "discriminator": update.discriminator.state_dict(),
        "ema": update.ema.state_dict(),
        "loss": update.loss.state_dict(),
        "measures": torch.stack([torch.stack([step[name] for name in names]) for step in told]),
        "last": torch.cat([measures.real, measures.fake]),
        "samples": samples,
        "names": names,
    }


def bytes_of_a_step(folder: Path, line: list[str]) -> None:
    """What one step sends: bytes by collective, into folder/bytes.pt."""
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
    if ranks.first():
        torch.save({"sent": sent, "weights": weights}, folder / "bytes.pt")

"""Measures began against plain references, alternating in one process.

    python scripts/benchmark.py loop [--rounds 3] [--json] [setting=value …]

Prints the median of the rounds and each round's ratio; `--json` prints one JSON object instead.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir

from began_cli import settings
from began_cli.cli import CONF
from began_cli.commands import train
from began_cli.commands.ready import ready
from began_cli.config import TrainConfig
from began_cli.data import sources
from began_cli.gan.update import Update
from began_cli.run.device import pick_device


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("what", choices=BENCHMARKS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("settings", nargs="*", help="as for `began train`")
    args = parser.parse_intermixed_args()
    result = BENCHMARKS[args.what](args.rounds, args.settings)
    if args.json:
        print(json.dumps(result))
    else:
        for name, value in result.items():
            print(f"{name:32} {value}")


def composed(overrides: list[str]) -> TrainConfig:
    """The settings that `began train OVERRIDES` would use."""
    settings.register()
    with initialize_config_dir(config_dir=str(CONF), version_base="1.3"):
        return settings.parse("train", compose("train", overrides))


def wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def timed(work: Callable[[], Any]) -> float:
    """Seconds that `work` takes, the device's included."""
    wait()
    start = time.perf_counter()
    work()
    wait()
    return time.perf_counter() - start


def loop(rounds: int, overrides: list[str]) -> dict[str, Any]:
    """`began train`'s loop, its logs, samples and checkpoints included, against the bare step."""
    cfg = composed(["dataset=mnist", "loss=bgan", "steps=1000", *overrides])
    cfg.steps += 1  # the first step warms up and is not counted
    update, batches, stream = ready(cfg, sources.load(cfg.dataset), pick_device(cfg.device))
    images = (cfg.steps - 1) * cfg.batch_size * update.loss.n_critic
    whole_step = Update.__call__
    bare, command = [], []
    for _ in range(rounds):
        update(batches, stream)
        bare.append(images / timed(lambda: [update(batches, stream) for _ in range(cfg.steps - 1)]))

        stamps: list[float] = []

        def stamped(self: Update, *streams: Any, stamps: list[float] = stamps) -> Any:
            measures = whole_step(self, *streams)
            if self.step in (1, cfg.steps):
                wait()
                stamps.append(time.perf_counter())
            return measures

        with tempfile.TemporaryDirectory() as folder:
            cfg.out = str(Path(folder) / "run")
            Update.__call__ = stamped  # pyright: ignore[reportAttributeAccessIssue]
            try:
                train.main(cfg, [])
            finally:
                Update.__call__ = whole_step
        command.append(images / (stamps[1] - stamps[0]))
    return report("the bare step", bare, "began train", command)


def report(name: str, base: list[float], ours: str, rates: list[float]) -> dict[str, Any]:
    """Medians in images/s and the ratio of each round."""
    ratios = [b / a for a, b in zip(base, rates, strict=True)]
    return {
        f"{name}, images/s": round(statistics.median(base)),
        f"{ours}, images/s": round(statistics.median(rates)),
        "ratio": round(statistics.median(ratios), 3),
        "ratio, least and most": [round(min(ratios), 3), round(max(ratios), 3)],
    }


BENCHMARKS: dict[str, Callable[[int, list[str]], dict[str, Any]]] = {"loop": loop}

if __name__ == "__main__":
    main()

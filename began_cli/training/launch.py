"""`began train devices=N`: the command in N processes, which torchrun's launcher starts."""

import copy
import logging
import os
import signal
import sys
import uuid
from pathlib import Path

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from began_cli.device import own_device
from began_cli.errors import UserError
from began_cli.generators import checkpoint
from began_cli.settings.train import TrainConfig
from began_cli.training import resume
from began_cli.training.signals import RESUME_ME

SIGNALS = "SIGTERM,SIGINT,SIGHUP,SIGUSR1,SIGUSR2"  # are passed on; the processes save and leave
GRACE = 25  # seconds that the other processes have once one has ended, or a signal came


def main(cfg: TrainConfig, typed: list[str], line: list[str]) -> float | None:
    """Runs `began train` with these settings in `cfg.devices` processes, and gives its best score.

    `typed` are the names of the settings that the user gave, `line` is what the processes are told.
    Raises SystemExit as they do, UserError if one was killed.
    """
    own_device(cfg.device, cfg.devices, cfg.devices - 1)
    run = Path(resume.choose_run(copy.deepcopy(cfg), typed)[0].out)
    # A processor's cores are divided; a GPU's process needs few.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // cfg.devices)))
    plan = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=cfg.devices,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        local_addr="localhost",
        max_restarts=0,
        monitor_interval=0.2,
        signals_to_handle=SIGNALS,
        shutdown_timeout=GRACE,
    )
    logging.disable()  # what its agent says of every process that ends
    try:
        elastic_launch(plan, sys.executable)("-m", "began_cli", "train", *line)
    except SignalException:
        raise SystemExit(RESUME_ME) from None
    except ChildFailedError as error:
        number, failure = error.get_first_failure()
        if failure.exitcode >= 0:
            raise SystemExit(failure.exitcode) from None  # the process has said why
        name = signal.Signals(-failure.exitcode).name
        raise UserError(
            f"process {number} of {cfg.devices} was ended by {name}; {way_on(run)}"
        ) from None
    finally:
        logging.disable(logging.NOTSET)
    _, saved, _ = checkpoint.read(str(run), "out")
    return saved["best"].get("value")


def way_on(run: Path) -> str:
    """What to do after such an end."""
    kept = checkpoint.all_of(run)
    if not kept:
        return "no checkpoint yet"
    return f"go on from {kept[-1].name} with began train resume={run}"

"""`began train devices=N`: run the command in N processes, started by torchrun's launcher."""

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
from began_cli.training.signals import CAN_RESUME

SIGNALS = "SIGTERM,SIGINT,SIGHUP,SIGUSR1,SIGUSR2"  # passed on to the processes
GRACE = 25  # seconds that the others have to end after a signal, or once one process has ended


def main(cfg: TrainConfig, typed: list[str], words: list[str]) -> float | None:
    """Run `began train WORDS` in `cfg.devices` processes, and return the best score, if any.

    `typed` are the names of the settings that the user gave. Raise SystemExit with the code of the
    first process that failed, UserError if that was killed.
    """
    own_device(cfg.device, cfg.devices, cfg.devices - 1)
    run = Path(resume.make_plan(copy.deepcopy(cfg), typed).cfg.out)
    # On the CPU the processes divide the cores; a GPU's process needs few.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // cfg.devices)))
    launch = LaunchConfig(
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
    logging.disable()  # the launcher's report on every process that ends
    try:
        elastic_launch(launch, sys.executable)("-m", "began_cli", "train", *words)
    except SignalException:
        raise SystemExit(CAN_RESUME) from None
    except ChildFailedError as error:
        number, failure = error.get_first_failure()
        if failure.exitcode >= 0:  # the process has reported why
            raise SystemExit(failure.exitcode) from None
        name = signal.Signals(-failure.exitcode).name
        raise UserError(
            f"process {number} of {cfg.devices} was ended by {name}; {way_to_resume(run)}"
        ) from None
    finally:
        logging.disable(logging.NOTSET)
    _, saved, _ = checkpoint.read(str(run), "out")
    return saved["best"].get("value")


def way_to_resume(run: Path) -> str:
    """Return a line that says how a run that broke off can be resumed."""
    checkpoints = checkpoint.find_all(run)
    if not checkpoints:
        return "no checkpoint yet"
    return f"go on from {checkpoints[-1].name} with began train resume={run}"

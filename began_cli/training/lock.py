"""One process a run folder."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from began_cli.errors import UserError

try:
    import fcntl
except ImportError:  # not on Windows; nothing is locked there
    fcntl = None


@contextmanager
def only_process(run: Path) -> Iterator[None]:
    """Holds the run folder; raises UserError if another process does.

    The system lets go of the lock when the process ends, however it ends.
    """
    with (run / ".lock").open("a+", encoding="ascii") as file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                who = file.read().strip() or "unknown"
                raise UserError(
                    f"out={run}: another process (pid {who}) is training in this folder; "
                    "wait for it, or choose another folder with hydra.run.dir=…"
                ) from None
        file.seek(0)
        file.truncate()
        file.write(str(os.getpid()))
        file.flush()
        yield

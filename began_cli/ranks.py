"""The processes of one run, one for each device, as torchrun starts them.

All processes hold the same numbers. Each draws the images and latents of the whole batch and works
on its own rows; gradients, batch statistics and the values that the loss's state follows are
gathered. Process 0 alone writes files. Without torchrun there is one process.
"""

import functools
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, ParamSpec, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from began_cli.errors import UserError

P = ParamSpec("P")
T = TypeVar("T")
TIMEOUT = timedelta(hours=2)  # for processes that wait while process 0 evaluates or saves
GRACE = 3.0  # seconds in which the process that failed can report why, before the others leave

_alone = False


def launched() -> bool:
    """Return whether torchrun started this process."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def restarted() -> bool:
    """Return whether torchrun started this process again after a failure."""
    return launched() and int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)) > 0


def size() -> int:
    """Return the number of processes of the run."""
    return dist.get_world_size() if dist.is_initialized() and not _alone else 1


def rank() -> int:
    """Return the number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() and not _alone else 0


def is_first() -> bool:
    """Return whether this is process 0, which writes the files."""
    return rank() == 0


def local_rank() -> int:
    """Return the number of this process among those on this machine, from 0."""
    return int(os.environ.get("LOCAL_RANK", 0)) if launched() else 0


# --- connection and failure -----------------------------------------------------------------------


@contextmanager
def connect() -> Iterator[None]:
    """Connect the processes that torchrun started.

    When one fails, all end, and one of them reports why: a UserError goes on in a single process,
    process 0 if it has met the error too. All others exit quietly.
    """
    if not launched() or int(os.environ["WORLD_SIZE"]) == 1:
        yield
        return
    # Functions of this import hold, as a default, the group that exists at the time. torch.optim
    # would import it after the group is made: gloo's threads would then outlive
    # destroy_process_group, and now and then abort the process at its exit.
    import torch.distributed.nn.functional

    cuda = torch.cuda.is_available()
    if cuda and local_rank() < torch.cuda.device_count():
        torch.cuda.set_device(local_rank())
    try:
        options = _rendezvous()
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=TIMEOUT, **options
        )
        try:
            yield
        except UserError as error:
            if not is_first():
                time.sleep(GRACE)
            if options["store"].add("errors", 1) > 1:
                raise SystemExit(2) from None
            raise error if is_first() else UserError(f"process {rank()}: {error}") from None
        except SystemExit:  # of all processes, when the run is stopped
            _wait_for_all()
            raise
        _wait_for_all()
    except RuntimeError as error:
        if not lost_connection(error):
            raise
        time.sleep(GRACE)
        raise SystemExit(1) from None
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def _wait_for_all() -> None:
    """Wait for the other processes: one that left too early would break their last connections."""
    gather(torch.zeros(1))


def _rendezvous() -> dict[str, Any]:
    """Return the options with which the processes find each other.

    Each attempt has its own prefix in the store: it must not read what the one before left there
    (torchrun of PyTorch 2.14 gives both the same store).
    """
    store, number, count = next(dist.rendezvous("env://", timeout=timedelta(minutes=5)))
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return {"store": dist.PrefixStore(attempt, store), "rank": number, "world_size": count}


def lost_connection(error: RuntimeError) -> bool:
    """Return whether an error means that another process cannot be reached any more."""
    return isinstance(error, dist.DistError) or "gloo" in str(error).lower()


# --- dividing and gathering tensors ---------------------------------------------------------------


def share(rows: Tensor, parts: int = 1) -> Tensor:
    """Return this process's rows of a batch (N, …): an equal share of each of its `parts`."""
    if size() == 1:
        return rows
    return rows.unflatten(0, (parts, size(), -1))[:, rank()].flatten(0, 1)


def gather(values: Tensor) -> Tensor:
    """Return the `values` (…) of all processes, of equal shapes, as (size, …)."""
    out = values.new_empty((size(), *values.shape))
    dist.all_gather(list(out.unbind()), values.contiguous())
    return out


class _Gather(torch.autograd.Function):
    """`gather`, whose gradient is the sum of the gradients of all processes."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return gather(values)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        return _Sum.apply(gradient)


class _Sum(torch.autograd.Function):
    """This process's row of the sum of `values` (size, …) over all processes."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        total = values.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total[rank()]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        return _Gather.apply(gradient)


def gather_with_gradient(values: Tensor) -> Tensor:
    """Like `gather`, and differentiable as often as wanted."""
    gathered = _Gather.apply(values)
    assert isinstance(gathered, Tensor)
    return gathered


# --- deciding together ----------------------------------------------------------------------------


class AnyProcess:
    """Logical or of a flag over all processes, which call it equally often.

    Returns the answer of the call before, so that no process waits for another.
    """

    def __init__(self) -> None:
        self._pending: tuple[Any, Tensor] | None = None

    def __call__(self, flag: bool) -> bool:
        if size() == 1:
            return flag
        answer = False
        if self._pending is not None:
            work, result = self._pending
            work.wait()
            answer = bool(result.item())
        result = torch.tensor(int(flag), dtype=torch.int32)
        work = dist.all_reduce(result, op=dist.ReduceOp.MAX, async_op=True)
        self._pending = work, result
        return answer


def on_first(function: Callable[P, T]) -> Callable[P, T]:
    """Decorate a function to run in process 0 alone; every process gets its result.

    While it runs, `size()` is 1: process 0 works as if there were no others.
    """

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        global _alone
        if size() == 1:
            return function(*args, **kwargs)
        result: list[Any] = [None]
        if is_first():
            _alone = True
            try:
                result = [function(*args, **kwargs)]
            finally:
                _alone = False
        dist.broadcast_object_list(result, device=torch.device("cpu"))
        return result[0]

    return run


@contextmanager
def first_then_others() -> Iterator[None]:
    """Let process 0 run the block before the others, which then find its files on the disk."""
    wait = on_first(lambda: None)
    if not is_first():
        wait()
    yield
    if is_first():
        wait()

"""The processes of one run, one a device, as torchrun starts them; without it there is one.

All of them hold the same numbers: each step's images and latents are drawn whole by everyone, and
each process works on its own rows; gradients, batch statistics and what the loss's state follows
are put together again. Process 0 alone writes.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, NoReturn, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from began_cli.errors import UserError

T = TypeVar("T")
PATIENCE = timedelta(hours=2)  # of processes that wait while process 0 evaluates or saves
RUIN = 3.0  # seconds that the process which caused an end has to say so before the others do

_alone = False


def launched() -> bool:
    """Whether torchrun started this process."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def restarted() -> bool:
    """Whether torchrun started it again after a failure."""
    return launched() and int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)) > 0


def size() -> int:
    """How many processes work on the run."""
    return dist.get_world_size() if dist.is_initialized() and not _alone else 1


def rank() -> int:
    """Which of them this is, from 0."""
    return dist.get_rank() if dist.is_initialized() and not _alone else 0


def first() -> bool:
    """Whether this is process 0, the one that writes."""
    return rank() == 0


def local() -> int:
    """Which of this machine's processes this is."""
    return int(os.environ.get("LOCAL_RANK", 0)) if launched() else 0


@contextmanager
def alone() -> Iterator[None]:
    """Within its block this process works for itself, as if there were no others."""
    global _alone
    _alone = True
    try:
        yield
    finally:
        _alone = False


@contextmanager
def joined() -> Iterator[None]:
    """Joins the processes that torchrun started; within its block they can reach each other.

    When another process ends, so does this one, quietly: the other has said why.
    """
    if not launched() or int(os.environ["WORLD_SIZE"]) == 1:
        yield
        return
    both = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    if torch.cuda.is_available() and local() < torch.cuda.device_count():
        torch.cuda.set_device(local())
    try:
        dist.init_process_group(both, timeout=PATIENCE, **_meeting_place())
        _Vote.start()
        yield
    except RuntimeError as error:
        if not lost(error):
            raise
        time.sleep(RUIN)
        raise SystemExit(1) from None
    finally:
        _Vote.end()
        if dist.is_initialized():
            dist.destroy_process_group()


def _meeting_place() -> dict[str, Any]:
    """Where the processes find each other; a second attempt must not read what the first one left
    there (torchrun of PyTorch 2.14 gives both the same store)."""
    store, number, count = next(dist.rendezvous("env://", timeout=timedelta(minutes=5)))
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return {"store": dist.PrefixStore(attempt, store), "rank": number, "world_size": count}


def lost(error: RuntimeError) -> bool:
    """Whether an error says that another process cannot be reached any more."""
    return isinstance(error, dist.DistError) or "gloo" in str(error).lower()


# --- what is put together -------------------------------------------------------------------------


def share(rows: Tensor, parts: int = 1) -> Tensor:
    """This process's rows of a batch (N, …): of each of its `parts` the same share, in order."""
    if size() == 1:
        return rows
    return rows.unflatten(0, (parts, size(), -1))[:, rank()].flatten(0, 1)


def gather(values: Tensor) -> Tensor:
    """Everyone's `values` (…), the same shape everywhere: (size, …)."""
    out = values.new_empty((size(), *values.shape))
    dist.all_gather(list(out.unbind()), values.contiguous())
    return out


class _Gather(torch.autograd.Function):
    """`gather`, whose gradient is the sum of everyone's."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return gather(values)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        gradient = gradient.contiguous()
        dist.all_reduce(gradient)
        return gradient[rank()]


def gather_with_gradient(values: Tensor) -> Tensor:
    """As `gather`; what everyone makes of the result, summed, can be differentiated once."""
    gathered = _Gather.apply(values)
    assert isinstance(gathered, Tensor)
    return gathered


class _Vote:
    """Whether anyone wants something, asked without waiting: the answer is that of the vote before.

    It goes over the processors, on connections of its own, and never waits for a device.
    """

    group: Any = None
    asked: tuple[Any, Tensor] | None = None

    @classmethod
    def start(cls) -> None:
        cls.group = dist.new_group(backend="gloo", timeout=PATIENCE)

    @classmethod
    def end(cls) -> None:
        cls.group, cls.asked = None, None


def anyone(wants: bool) -> bool:
    """Whether anyone wanted it when last asked: the same answer for all at the same call."""
    if size() == 1:
        return wants
    answer = False
    if _Vote.asked is not None:
        work, ballot = _Vote.asked
        work.wait()
        answer = bool(ballot.item())
    ballot = torch.tensor(int(wants), dtype=torch.int32)
    work = dist.all_reduce(ballot, op=dist.ReduceOp.MAX, group=_Vote.group, async_op=True)
    _Vote.asked = (work, ballot)
    return answer


# --- who does what --------------------------------------------------------------------------------


def of_first(work: Callable[[], T]) -> T:
    """What process 0, by itself, gets from `work`, for all; its UserError ends all, told once."""
    if size() == 1:
        return work()
    told: list[Any] = [None, None]
    if first():
        try:
            with alone():
                told[0] = work()
        except UserError as error:
            told[1] = str(error)
    dist.broadcast_object_list(told, device=torch.device("cpu"))
    if told[1] is not None:
        _end(told[1])
    return told[0]


def of_each(work: Callable[[], T], first_alone: bool = False) -> T:
    """What each process gets from `work`; a UserError of any ends all, told once.

    With `first_alone` the others begin when process 0 is done, and find what it left on the disk.
    """
    if size() == 1:
        return work()
    result, mine = None, None
    if first_alone and not first():
        dist.barrier(_Vote.group)
    try:
        result = work()
    except UserError as error:
        mine = str(error)
    if first_alone and first():
        dist.barrier(_Vote.group)
    everyone: list[Any] = [None] * size()
    dist.all_gather_object(everyone, mine, group=_Vote.group)
    for number, said in enumerate(everyone):
        if said is not None:
            _end(said if number == 0 else f"process {number}: {said}")
    return result  # pyright: ignore[reportReturnType]


def _end(message: str) -> NoReturn:
    """All leave; process 0 says why."""
    if first():
        raise UserError(message)
    time.sleep(RUIN)
    raise SystemExit(2)

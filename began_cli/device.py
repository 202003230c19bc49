"""Choose the device, the precision and the memory that holds the images."""

import ctypes
import multiprocessing
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil
import torch
from torch import Tensor

from began_cli import ranks
from began_cli.errors import UserError

# In the errors of a CPU, MPS, cuBLAS and cuDNN that find no memory.
FULL = ("can't allocate memory", "invalid buffer size", "status_alloc_failed")


def pick_device(name: str) -> torch.device:
    """Return the device that `device` names; `auto` is CUDA, MPS or the CPU, in this order.

    Of several processes each gets a GPU of its own, or all the CPU. Raise UserError for a device
    that this machine does not have.
    """
    if ranks.size() > 1 and name != "cpu":
        return own_device(name, ranks.size(), ranks.local_rank())
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", _worker() % torch.cuda.device_count())
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise UserError(
            f"device={name}: there are {count} CUDA devices here; device=auto picks one"
        )
    if device.type == "cuda":
        return torch.device("cuda", device.index or 0)
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UserError("device=mps: not available here; device=auto picks one that is")
    return device


def _worker() -> int:
    """Return the number of this process among joblib's workers on this machine, from 0."""
    match = re.fullmatch(r"LokyProcess-(\d+)", multiprocessing.current_process().name)
    return int(match[1]) - 1 if match else 0


def own_device(name: str, devices: int, local: int) -> torch.device:
    """Return the device of one of several processes; `local` is its number on this machine.

    Raise UserError if there is none for it.
    """
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if name not in ("auto", "cuda"):
        raise UserError(f"device={name}: names one device; with devices={devices} use auto or cpu")
    count = torch.cuda.device_count()
    if local >= count:
        raise UserError(
            f"devices={devices}: there are {count} CUDA devices here; use fewer, or device=cpu"
        )
    return torch.device("cuda", local)


def pick_precision(name: str, device: torch.device) -> str:
    """Return the precision that `precision` stands for: fp32, tf32, bf16 or fp16.

    `auto` is bf16 on a GPU or a processor that computes in it, else fp32. Every GPU with TF32 has
    bf16 too. Raise UserError for tf32 on another device than CUDA.
    """
    if name == "auto":
        return "bf16" if _computes_in_bf16(device) else "fp32"
    if name == "tf32" and device.type != "cuda":
        raise UserError(f"precision=tf32: device={device.type} does not have it; use fp32 or bf16")
    return name


def _computes_in_bf16(device: torch.device) -> bool:
    """Return whether a device has instructions for bf16. Converting to and fro would be slower."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return False


def set_precision(precision: str) -> torch.dtype | None:
    """Return the autocast type of a precision, None for none.

    CUDA then computes the products of single precision in TF32 with tf32, in fp32 otherwise.
    """
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    torch.backends.cudnn.benchmark = True
    return {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)


def reuse_memory() -> None:
    """Let glibc keep freed memory for the next step; do nothing with another C library.

    It would return large activations to the system and fault in every page again, which takes as
    long as computing them on a CPU.
    """
    mmap_threshold, trim_threshold = -3, -1
    with suppress(AttributeError, OSError, TypeError):  # TypeError: Windows has no CDLL(None)
        libc = ctypes.CDLL(None)
        libc.mallopt(mmap_threshold, 2**30)
        libc.mallopt(trim_threshold, 2**31 - 1)


def warn_of_busy_cores(device: torch.device) -> str | None:
    """Return a warning if other processes leave the CPU fewer cores than PyTorch has threads.

    The threads wait for each other after each operation, so one without a core delays all. The
    measurement takes 0.2 s, in which this process does nothing.
    """
    threads = torch.get_num_threads()
    if device.type != "cpu" or threads == 1 or ranks.size() > 1:
        return None
    cores = psutil.cpu_count() or threads
    busy = round(cores * psutil.cpu_percent(interval=0.2) / 100)
    if threads <= cores - busy:
        return None
    return (
        f"other processes keep {busy} of {cores} cores busy, so {threads} threads will mostly wait "
        f"for each other; OMP_NUM_THREADS={max(1, cores - busy)} began train … is faster"
    )


def place_images(images: Tensor, where: str, device: torch.device) -> Tensor:
    """Return the images on the device that `dataset.device` names.

    `auto` is the training device if they fit into a third of its free memory, else main memory.
    Raise UserError for any other device than these two.
    """
    if where != "auto":
        return images.to(pick_storage(where, device))
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return images.to(device) if images.nbytes < free / 3 else images
    return images


def pick_storage(where: str, device: torch.device) -> torch.device:
    """Return the device that `dataset.device=where` names, if it is not `auto`.

    Raise UserError if it is neither the training device nor the CPU.
    """
    held = device if where == device.type else torch.device(where)
    if held not in (device, torch.device("cpu")):
        choices = "auto or cpu" if device.type == "cpu" else f"auto, {device} or cpu"
        raise UserError(f"dataset.device={where}: the run is on device={device}; use {choices}")
    return held


def wait(device: torch.device) -> None:
    """Wait until the device has finished all its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


@contextmanager
def enough_memory(batch_size: int, width: int) -> Iterator[None]:
    """Raise UserError if the block runs out of memory, on any device."""
    try:
        yield
    except RuntimeError as error:
        full = any(words in str(error).lower() for words in FULL)
        if not full and not isinstance(error, torch.OutOfMemoryError):
            raise
        raise UserError(
            f"batch_size={batch_size}, model.width={width}: not enough memory for "
            "these networks and batches; lower one of them"
        ) from None

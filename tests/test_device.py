"""The device, the precision and the memory of a run."""

import multiprocessing
import subprocess
import sys
import time

import psutil
import pytest
import torch

from began_cli.device import (
    enough_memory,
    own_device,
    pick_device,
    pick_precision,
    place_images,
    set_precision,
    warn_of_busy_cores,
)
from began_cli.errors import UserError

CPU = torch.device("cpu")


@pytest.fixture
def four_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what there is without a GPU")
def test_a_device_that_is_not_there_is_refused():
    assert pick_device("cpu") == CPU
    with pytest.raises(UserError, match="device=cuda:1: there are 0 CUDA devices here"):
        pick_device("cuda:1")


def test_gpus_are_counted_from_0(four_gpus):
    assert str(pick_device("cuda")) == "cuda:0"
    assert str(pick_device("cuda:3")) == "cuda:3"
    with pytest.raises(UserError, match="device=cuda:4: there are 4 CUDA devices here"):
        pick_device("cuda:4")


def test_each_process_has_a_gpu_of_its_own(four_gpus):
    assert str(own_device("auto", 4, 3)) == "cuda:3"
    assert own_device("cpu", 8, 7) == CPU
    with pytest.raises(UserError, match="devices=5: there are 4 CUDA devices here"):
        own_device("auto", 5, 4)
    with pytest.raises(UserError, match="device=cuda:1: names one device"):
        own_device("cuda:1", 2, 0)


def test_joblib_s_workers_take_a_gpu_each(four_gpus, monkeypatch):
    monkeypatch.setattr(multiprocessing.current_process(), "_name", "LokyProcess-3")
    assert str(pick_device("auto")) == "cuda:2"
    monkeypatch.setattr(multiprocessing.current_process(), "_name", "LokyProcess-5")
    assert str(pick_device("auto")) == "cuda:0"
    monkeypatch.setattr(multiprocessing.current_process(), "_name", "MainProcess")
    assert str(pick_device("auto")) == "cuda:0"


def test_precisions_by_name(monkeypatch):
    gpu = torch.device("cuda", 0)
    assert pick_precision("auto", CPU) == "fp32"
    for name in ("fp32", "bf16", "fp16"):
        assert pick_precision(name, CPU) == pick_precision(name, gpu) == name
    assert pick_precision("tf32", gpu) == "tf32"
    with pytest.raises(UserError, match="precision=tf32: device=cpu does not have it"):
        pick_precision("tf32", CPU)
    for fast in (True, False):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda fast=fast, **_: fast)
        assert pick_precision("auto", gpu) == ("bf16" if fast else "fp32")
    for unit in ("avx512_bf16", "amx_tile"):
        with monkeypatch.context() as here:
            here.setattr(torch.cpu, f"_is_{unit}_supported", lambda: True)
            assert pick_precision("auto", CPU) == "bf16"
            assert pick_precision("auto", torch.device("mps")) == "fp32"


def test_single_precision_is_not_tf32_unless_it_says_so():
    for name, amp, tf32 in (
        ("tf32", None, True),
        ("fp32", None, False),
        ("fp16", torch.float16, False),
        ("bf16", torch.bfloat16, False),
    ):
        assert set_precision(name) == amp
        assert torch.backends.cuda.matmul.allow_tf32 == torch.backends.cudnn.allow_tf32 == tf32


def test_images_stay_in_main_memory_unless_a_third_of_the_device_holds_them(monkeypatch):
    images = torch.zeros(100, dtype=torch.uint8)
    assert place_images(images, "auto", CPU) is images
    assert place_images(images, "cpu", CPU) is images
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (300, 1000))
    assert place_images(images, "auto", torch.device("cuda", 0)) is images


@pytest.mark.parametrize(
    ("where", "device"), [("cuda", "cpu"), ("cuda:1", "cuda:0"), ("mps", "cpu"), ("mps", "cuda:0")]
)
def test_images_are_on_the_training_device_or_in_main_memory(where, device):
    with pytest.raises(UserError, match=f"dataset.device={where}: the run is on device={device}"):
        place_images(torch.zeros(1, dtype=torch.uint8), where, torch.device(device))


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("can't allocate memory: 9 bytes"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    ],
)
def test_full_memory_names_the_settings_to_lower(error):
    wanted = "^batch_size=64, model.width=128: not enough memory"
    with pytest.raises(UserError, match=wanted), enough_memory(64, 128):
        raise error
    with pytest.raises(RuntimeError, match="another"), enough_memory(64, 128):
        raise RuntimeError("another")


@pytest.mark.parametrize(
    ("busy", "threads", "advice"),
    [
        (52.0, 8, ""),  # 8 of 16 cores are free
        (55.0, 8, "busy, so 8 threads will mostly wait for each other; OMP_NUM_THREADS=7 began"),
        (99.0, 8, "OMP_NUM_THREADS=1 began"),
        (100.0, 1, ""),
    ],
)
def test_threads_that_others_leave_no_core_for_are_warned_of(busy, threads, advice, monkeypatch):
    monkeypatch.setattr(psutil, "cpu_count", lambda: 16)
    monkeypatch.setattr(psutil, "cpu_percent", lambda interval: busy)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    warning = warn_of_busy_cores(CPU)
    assert advice in (warning or "")
    assert (warning is None) == (advice == "")
    assert warn_of_busy_cores(torch.device("meta")) is None  # as on a GPU


def test_a_process_that_computes_beside_this_one_is_noticed(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: psutil.cpu_count())
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as process:
        try:
            time.sleep(0.3)  # until it has started
            assert (warn_of_busy_cores(CPU) or "").startswith("other processes keep ")
        finally:
            process.kill()

"""What the tests share: composed settings, the command in this process, small data."""

import gzip
import json
import os
import shlex
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir

from began_cli import cli
from began_cli.settings.parse import parse, register_schemas

register_schemas()
torch.set_num_threads(1)  # the work is tiny: threads would only wait for each other
os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault("MPLCONFIGDIR", str(Path.home() / ".cache" / "matplotlib"))  # not in a test's


@pytest.fixture(autouse=True)
def _quiet_world(monkeypatch, tmp_path):
    """Every test has its own folder, finds no data set there, and cannot wait for a network."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BEGAN_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg-cache"))
    monkeypatch.setattr("began_cli.data.sources._download", _no_network)
    # `precision=auto` does not depend on the processor that runs the tests.
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    torch.manual_seed(0)


def _no_network(folder, root, glance):
    from began_cli.data.sources import _NotThereError

    raise _NotThereError("no network in the tests")


def settings(command: str = "train", *overrides: str):
    """The settings that a command line would give."""
    with initialize_config_dir(config_dir=str(cli.CONF), version_base="1.3"):
        return parse(command, compose(command, list(overrides)))


class Grey(torch.nn.Module):
    """Images (N, 1, 16, 16) in the grey of the first coordinate of a latent."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = torch.nn.Parameter(torch.zeros(1))

    def forward(self, z):
        return z[:, :1, None, None].expand(-1, -1, 16, 16)


TINY = ("dataset.image_size=16", "dataset.width=4", "batch_size=4", "model.latent_dim=8")


@pytest.fixture
def began(capfd, monkeypatch):
    """Runs `began …` in this process: (exit code, stdout, stderr)."""

    def run(*line: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["began", *line])
        code = 0
        try:
            cli.main()
        except SystemExit as leaving:
            code = leaving.code or 0
        out, err = capfd.readouterr()
        return code, out, err

    return run


@pytest.fixture
def refusal(began, tmp_path):
    """Runs a line that must be refused: in one line, with exit code 2, writing nothing."""

    def run(line: str) -> str:
        words = shlex.split(line)
        code, out, err = began(*words)
        assert code == 2, (out, err)
        assert err.count("\n") == 1, err
        known = (cli.CONF / f"{words[0]}.yaml").exists()
        assert err.startswith(f"began {words[0]}: " if known else "began: ")
        assert list(tmp_path.iterdir()) == []
        return err

    return run


def write_idx(path: Path, images: np.ndarray) -> None:
    """Writes uint8 images (N, H, W) as an idx file, gzipped if its name says so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = struct.pack(">4i", 2051, *images.shape) + images.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


@pytest.fixture
def digits(tmp_path) -> Path:
    """A folder with 200 random 28x28 "digits" as bare idx files."""
    pixels = np.random.default_rng(0).integers(0, 256, (200, 28, 28))
    write_idx(tmp_path / "digits" / "train-images-idx3-ubyte.gz", pixels)
    return tmp_path / "digits"


@pytest.fixture
def tiny_run(began, digits, tmp_path) -> Path:
    """The folder of a run of 4 tiny steps."""
    run = tmp_path / "run"
    line = ["train", "steps=4", f"dataset.root={digits}", f"hydra.run.dir={run}", *TINY]
    assert began(*line)[0] == 0
    return run


@pytest.fixture(scope="session")
def trained_sweep(tmp_path_factory) -> Path:
    from sweep import train_sweep

    return train_sweep(tmp_path_factory.mktemp("trained"))


@pytest.fixture
def sweep(trained_sweep, tmp_path) -> Path:
    """A copy of four tiny runs, for a test to change."""
    return shutil.copytree(trained_sweep, tmp_path / "sweep")


NULL_GPU = Path(__file__).parent / "nullgpu"


@pytest.fixture(scope="session")
def null_gpu(tmp_path_factory) -> Path:
    """The folder of runtime.so and libcuda.so.1. Skips where they cannot be built."""
    if torch.version.cuda is None:
        pytest.skip("this PyTorch was built without CUDA")
    if shutil.which("g++") is None:
        pytest.skip("there is no g++")
    headers = [
        found.parent
        for folder in map(Path, sys.path)
        for found in sorted(folder.glob("nvidia/**/include/driver_types.h"))
    ]
    if not headers:
        pytest.skip("the CUDA headers are not installed with PyTorch")
    out = tmp_path_factory.mktemp("nullgpu")
    build = ["g++", "-O1", "-fPIC", "-shared", "-w"]
    include = [f"-I{NULL_GPU}", f"-I{headers[0]}"]
    subprocess.run(
        [*build, *include, "-o", out / "runtime.so", NULL_GPU / "runtime.cpp"], check=True
    )
    driver = ["gcc", "-fPIC", "-shared", "-w", "-o", out / "libcuda.so.1", NULL_GPU / "driver.c"]
    subprocess.run(driver, check=True)
    return out


@pytest.fixture
def on_gpu(null_gpu) -> Callable[..., Any]:
    """Calls a function of inside.py in a process on the null GPU, and returns its result."""

    def call(name: str, *arguments: Any, devices: int = 1) -> Any:
        env = os.environ | {
            "LD_PRELOAD": str(null_gpu / "runtime.so"),
            "LD_LIBRARY_PATH": str(null_gpu),
            "NULLGPU": str(null_gpu / "runtime.so"),
            "NULLGPU_DEVICES": str(devices),
            "PYTHONPATH": f"{NULL_GPU.parent.parent}:{NULL_GPU.parent}",
        }
        line = [sys.executable, "-P", str(NULL_GPU / "inside.py"), name, json.dumps(arguments)]
        done = subprocess.run(line, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout.splitlines()[-1])

    return call

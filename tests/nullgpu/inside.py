"""What the tests run in a process on the null GPU: `python inside.py NAME JSON`.

Each function takes and returns what JSON can hold. Values mean nothing here: kernels do not run.
"""

import contextlib
import ctypes
import importlib
import io
import json
import os
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from conftest import TINY, settings

from began_cli import cli
from began_cli.data.batches import Batches
from began_cli.data.sources import Source
from began_cli.device import pick_device
from began_cli.gan import graph
from began_cli.gan.latents import LatentStream
from began_cli.gan.update import Update
from began_cli.training import watchdog
from began_cli.training.setup import Parts, build_parts, seed_everything

torch.backends.cudnn.enabled = False  # there is none
warnings.filterwarnings("ignore", "Attempting to run cuBLAS")  # nor a context
graph.distance = lambda *_: 0.0
watchdog.finite = lambda _: True
torch.cpu._is_avx512_bf16_supported = torch.cpu._is_amx_tile_supported = lambda: False
NAMES = ("launches", "syncs", "to_device", "pageable", "to_host", "on_device", "graphs", "nodes")
NAMES += ("escaped", "allocations")


def counts() -> dict[str, int]:
    """Return what the null GPU has counted so far, by name."""
    values = (ctypes.c_long * len(NAMES))()
    ctypes.CDLL(os.environ["NULLGPU"]).nullgpu_counts(values)
    return dict(zip(NAMES, values, strict=True))


def parts(*line: str) -> Parts:
    """Return the parts of a tiny run on random pixels, on the GPU if the line names no device."""
    cuda = () if any(word.startswith("device=") for word in line) else ("device=cuda",)
    cfg = settings("train", *TINY, *cuda, *line)
    d = cfg.dataset
    seed_everything(cfg.seed)
    pixels = torch.randint(0, 256, (50, *d.image_shape), dtype=torch.uint8)
    device = pick_device(cfg.device)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return build_parts(cfg, Source(pixels, "noise"), device)


def gradients(update: Any) -> list[int]:
    """Return the addresses of the gradients."""
    networks = (update.generator, update.discriminator)
    return [weight.grad.data_ptr() for network in networks for weight in network.parameters()]


def take_steps(lines: list[list[str]], steps: int = 3) -> list[dict[str, Any]]:
    """Take steps by each line of settings, eagerly and captured; return the counts of one step."""
    results = []
    for line in lines:
        result: dict[str, Any] = {"line": " ".join(line)}
        try:
            update, batches, latents = parts(*line)
            for kind in ("eager", "captured"):
                if kind == "captured":
                    graph.capture(update, batches, latents)
                for _ in range(2):
                    update(batches, latents)
                before, places = counts(), gradients(update)
                for _ in range(steps):
                    update(batches, latents)
                after = counts()
                result[kind] = {name: (after[name] - before[name]) / steps for name in NAMES}
                result[kind]["gradients stay"] = places == gradients(update)
        except Exception as error:
            result["error"] = f"{type(error).__name__}: {error}"
        results.append(result)
    return results


def draw(device: str, n: int, state: list[Any] | None = None) -> list[Any]:
    """Return latents and rows of images from n draws of both streams, and the streams' states."""
    where = pick_device(device)
    pixels = torch.arange(30, dtype=torch.uint8).view(30, 1, 1, 1)
    latents = LatentStream(4, 3, 7, where)
    batches = Batches(pixels.to(where), 8, 7, where, flip=True)
    if state is not None:
        latents.load_state_dict({"generator": torch.tensor(state[0], dtype=torch.uint8)})
        batches.load_state_dict(state[1])
    drawn = []
    for _ in range(n):
        taken, flipped = batches._take() if batches._block is None else batches._block()
        drawn.append([latents().tolist(), taken.tolist(), flipped.tolist()])
    batches._given = (batches.epoch, batches.position)
    return [drawn, [latents.state_dict()["generator"].tolist(), batches.state_dict()]]


def move_draws() -> list[list[Any]]:
    """Return nine draws of a CPU, then five of one device and four of the other, both ways round,
    each with the streams' states at the end."""
    results = [draw("cpu", 9)]
    for first, second in (("cpu", "cuda"), ("cuda", "cpu")):
        begun, state = draw(first, 5)
        rest, end = draw(second, 4, state)
        results.append([begun + rest, end])
    return results


def refused_in_a_capture() -> dict[str, bool]:
    """Return whether each kind of work spoils a capture."""
    x, pageable, pinned = torch.ones(3, device="cuda"), torch.ones(3), torch.ones(3).pin_memory()
    default = torch.cuda.default_stream()

    def on_default() -> None:
        with torch.cuda.stream(default):
            x.add_(1)

    work = {
        "a kernel": lambda: x.add_(1),
        "memory of a pool": lambda: torch.zeros(2**24, device="cuda"),
        "a copy from pinned memory": lambda: x.copy_(pinned, non_blocking=True),
        "a copy from pageable memory": lambda: x.copy_(pageable, non_blocking=True),
        "reading a value": x.sum().item,
        "waiting for the device": torch.cuda.synchronize,
        "the legacy stream": on_default,
    }
    refused = {}
    for name, each in work.items():
        try:
            with torch.cuda.graph(torch.cuda.CUDAGraph()):
                each()
            refused[name] = False
        except RuntimeError:
            refused[name] = True
    return refused


def place(pairs: list[list[str]]) -> list[str]:
    """Take a step for each pair of `device` and `dataset.device`: what went wrong, or nothing."""
    results = []
    for device, held in pairs:
        try:
            update, batches, latents = parts(f"device={device}", f"dataset.device={held}")
            if device != "cpu":
                graph.capture(update, batches, latents)
            update(batches, latents)
            results.append("")
        except Exception as error:
            results.append(f"{type(error).__name__}: {error}")
    return results


def began(lines: list[list[str]]) -> list[list[Any]]:
    """Run `began …` for each line in this process: exit code, stdout, stderr, and the counts.

    After `!fail` the step waits for the device, so that it cannot be captured.
    """
    results, average = [], Update._average
    for line in lines:
        if line[0] == "!fail":
            line = line[1:]
            Update._average = lambda self: average(self) or torch.cuda.synchronize()
        sys.argv = ["began", *line]
        code, out, err, before = 0, io.StringIO(), io.StringIO(), counts()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                cli.main()
            except SystemExit as leaving:
                code = leaving.code or 0
        after = {name: count - before[name] for name, count in counts().items()}
        after["initialised"] = torch.cuda.is_initialized()
        results.append([code, out.getvalue(), err.getvalue(), after])
        Update._average = average
    return results


def compile_max(loss: str, model: str) -> dict[str, Any]:
    """Take steps with the bookkeeping of compile=max: PyTorch's CUDA-graph trees, no kernels."""
    compiled = torch.compile
    compilations = 0

    def backend(module: Any, inputs: Any) -> Any:
        nonlocal compilations
        compilations += 1
        return torch._dynamo.lookup_backend("cudagraphs")(module, inputs)

    torch.compile = lambda function, mode, dynamic: compiled(
        function, backend=backend, dynamic=dynamic
    )
    update, batches, latents = parts(f"loss={loss}", f"model={model}", "precision=fp32")
    update.compile("max", batches(), latents())
    before = compilations
    for _ in range(4):
        measures = update(batches, latents)
        torch.stack(list(measures.scalars.values()))
    return {"before": before, "after": compilations, "graphs": counts()["graphs"]}


def gpu_check(line: list[str]) -> list[Any]:
    """Run scripts/gpu_check.py: exit code and stdout."""
    sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
    module = importlib.import_module("gpu_check")
    sys.argv, code, out = ["gpu_check.py", *line], 0, io.StringIO()
    with contextlib.redirect_stdout(out):
        try:
            module.main()
        except SystemExit as leaving:
            code = leaving.code or 0
    return [code, out.getvalue()]


if __name__ == "__main__":
    result = globals()[sys.argv[1]](*json.loads(sys.argv[2]))
    print(json.dumps(result))

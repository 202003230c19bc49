import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY

import began_cli
from began_cli.gan import latents
from began_cli.generators import portable
from began_cli.generators.load import load

PACKAGE = Path(began_cli.__file__).parent
SEEDS = range(64)


def expected(run) -> np.ndarray:
    """Return the images of SEEDS by the run's averaged generator, in [-1, 1]."""
    trained = load(str(run), torch.device("cpu"))
    return trained.network(latents.from_seeds(SEEDS, 8)).clamp(-1, 1).numpy()


def fresh(script: str, folder: Path, **environment: str) -> str:
    """Run a script in a new process, in a folder of its own."""
    (folder / "script.py").write_text(script)
    environment = {**os.environ, "PYTHONPATH": "", **environment}
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def elsewhere(tmp_path) -> Path:
    (tmp_path / "elsewhere").mkdir()
    return tmp_path / "elsewhere"


def test_safetensors_in_a_fresh_process_without_conf_or_run(began, tiny_run, elsewhere):
    images_then = expected(tiny_run)
    code, out, err = began("export", f"ckpt={tiny_run}", f"out={elsewhere}/g.safetensors")
    assert code == 0, err
    assert "read back" in out
    assert {path.name for path in elsewhere.iterdir()} == {"g.safetensors", "g.safetensors.json"}
    shutil.rmtree(tiny_run)
    shutil.copytree(PACKAGE, elsewhere / "began_cli", ignore=shutil.ignore_patterns("conf"))
    script = """
import sys, began_cli
assert "torch" not in sys.modules
from began_cli import load_generator

import numpy, torch
assert began_cli.__file__.startswith(sys.path[0])
generator = load_generator("g.safetensors")
made = generator(generator.latents(range(64)))
assert not any(weight.requires_grad for weight in generator.parameters())
numpy.save("made.npy", made.numpy())
print(generator.latent_dim, generator.card["step"])
"""
    assert fresh(script, elsewhere).split() == ["8", "4"]
    assert (np.load(elsewhere / "made.npy") == images_then).all()


MODELS = ("model=dcgan", "model=began model.skips=true", "model=mlp loss=bgan_discrete")


@pytest.mark.parametrize("model", MODELS)
def test_onnx_makes_the_same_images_at_any_batch(began, digits, tmp_path, elsewhere, model):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    run = tmp_path / "net"
    line = ["steps=1", f"dataset.root={digits}", *TINY, *model.split(), f"hydra.run.dir={run}"]
    assert began("train", *line)[0] == 0
    code, out, err = began("export", f"ckpt={run}", "format=onnx", f"out={elsewhere}/g.onnx")
    assert code == 0, err
    assert "at batches of 1, 7, 64" in out
    assert {path.name for path in elsewhere.iterdir()} == {"g.onnx", "g.onnx.json"}
    np.save(elsewhere / "z.npy", latents.from_seeds(SEEDS, 8).numpy())
    script = """
import sys, json, numpy, onnxruntime
session = onnxruntime.InferenceSession("g.onnx", providers=["CPUExecutionProvider"])
assert session.get_inputs()[0].shape[1] == 8 and isinstance(session.get_inputs()[0].shape[0], str)
card = json.loads(session.get_modelmeta().custom_metadata_map["began"])
assert card == json.load(open("g.onnx.json"))
z = numpy.load("z.npy")
for n in (1, 7, 64):
    numpy.save(f"made-{n}.npy", session.run(["images"], {"latents": z[:n]})[0])
assert "torch" not in sys.modules and "began_cli" not in sys.modules
"""
    fresh(script, elsewhere)
    for n in (1, 7, 64):
        made = np.load(elsewhere / f"made-{n}.npy")
        assert made.shape == (n, 1, 16, 16)
        assert np.abs(made - expected(run)[:n]).max() < 1e-4


def test_torch_export_in_a_fresh_process_without_began(began, tiny_run, elsewhere):
    line = [f"ckpt={tiny_run}", "format=torch", f"out={elsewhere}/g.pt2"]
    code, _, err = began("export", *line)
    assert code == 0, err
    torch.save(latents.from_seeds(SEEDS, 8), elsewhere / "z.pt")
    script = """
import sys, json, numpy, torch
card = {"card.json": ""}
generator = torch.export.load("g.pt2", extra_files=card).module()
assert json.loads(card["card.json"]) == json.load(open("g.pt2.json"))
z = torch.load("z.pt", weights_only=True)
for n in (1, 7, 64):
    numpy.save(f"made-{n}.npy", generator(z[:n]).detach().numpy())
assert "began_cli" not in sys.modules
"""
    fresh(script, elsewhere)
    for n in (1, 7, 64):
        made = np.load(elsewhere / f"made-{n}.npy")
        assert np.abs(made - expected(tiny_run)[:n]).max() < 1e-6


@pytest.mark.parametrize("form", ["safetensors", "torch"])
def test_a_file_that_differs_is_not_written(began, tiny_run, tmp_path, monkeypatch, form):
    name = {"safetensors": "_safetensors", "torch": "_pt2"}[form]
    writer = getattr(portable, name)

    def slightly_off(*args):
        again = writer(*args)
        return lambda z: again(z) + 2e-4

    monkeypatch.setattr(portable, name, slightly_off)
    ending = {"safetensors": "safetensors", "torch": "pt2"}[form]
    out = tmp_path / f"g.{ending}"
    out.write_text("older")
    code, _, err = began("export", f"ckpt={tiny_run}", f"format={form}", f"out={out}")
    assert code == 2
    assert "differ from PyTorch's by 0.0002" in err
    assert out.read_text() == "older"
    assert [path.name for path in tmp_path.glob("*g.*")] == [out.name]


def test_a_missing_package_names_the_extra(began, tiny_run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    code, _, err = began("export", f"ckpt={tiny_run}", "format=onnx", "out=g.onnx")
    assert code == 2
    assert "began[onnx]" in err
    assert not list(tmp_path.glob("*.onnx"))

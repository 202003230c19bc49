import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import began_cli
from began_cli import images, load_generator
from began_cli.errors import UserError
from began_cli.gan import latents
from began_cli.generators import checkpoint, portable

PACKAGE = Path(began_cli.__file__).parent
SEEDS = range(64)


def expected(run) -> np.ndarray:
    """What the run's averaged generator makes of the seeds, put together by hand."""
    state = checkpoint.read(str(run))[1]
    generator, trained = checkpoint.generator_of(state, torch.device("cpu"))
    return generator(latents.from_seeds(SEEDS, trained.model.latent_dim)).clamp(-1, 1).numpy()


def fresh(script: str, folder: Path, **environment: str) -> str:
    """Runs a script in a new process, in a folder of its own."""
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


def test_commands_take_an_exported_file(began, tiny_run):
    assert began("export", f"ckpt={tiny_run}", "out=g.safetensors")[0] == 0
    for ckpt, out in ((tiny_run, "a"), ("g.safetensors", "b")):
        line = [f"ckpt={ckpt}", "n=3", "format=npz", f"out={out}"]
        assert began("sample", *line)[0] == 0
        assert began("interpolate", f"ckpt={ckpt}", "rows=1", "steps=3", f"out={out}")[0] == 0
    first, second = (np.load(f"{out}/seeds-0-2.npz")["images"] for out in "ab")
    assert (first == second).all()
    assert Path("a/lerp.png").read_bytes() == Path("b/lerp.png").read_bytes()


def test_default_place_and_card(began, tiny_run):
    assert began("export", f"ckpt={tiny_run}")[0] == 0
    path = tiny_run / "generator-step-00000004.safetensors"
    card = json.loads(path.with_name(path.name + ".json").read_text())
    state = checkpoint.read(str(tiny_run))[1]
    with safe_open(path, "pt") as file:
        assert json.loads(file.metadata()["began"]) == card
    held = load_file(path)
    assert held.keys() == state["ema"].keys()
    assert all(torch.equal(held[name], value) for name, value in state["ema"].items())
    assert card["began"] == began_cli.__version__
    assert card["step"] == 4
    assert card["latents"] == {"law": "uniform", "low": -1, "high": 1, "dim": 8}
    assert card["images"] == {"size": 16, "channels": 1, "range": [-1, 1], "layout": "NCHW"}
    assert card["data"] == {"count": 200, "sha256": state["data"]["sha256"]}
    assert card["settings"]["loss"]["name"] == "bgan"
    assert "scores" not in card
    assert str(tiny_run.parent) not in path.with_name(path.name + ".json").read_text()
    assert portable.card_of({**state, "scores": {"fid": 9.5}})["scores"] == {"fid": 9.5}


def test_the_card_has_the_scores_of_the_exported_step(began, tiny_run):
    line = ["n=60", "scores=[fid]", "extractor=pixels", "bins=2"]
    assert began("evaluate", f"ckpt={tiny_run}", *line)[0] == 0
    told = json.loads((tiny_run / "evaluation.json").read_text())["evaluations"][0]
    assert began("export", f"ckpt={tiny_run}")[0] == 0
    card = json.loads((tiny_run / "generator-step-00000004.safetensors.json").read_text())
    ((name, score),) = card["scores"].items()
    assert name == f"fid[{told['extractor']}] N=60 seed=0"
    assert score == told["scores"]["fid"]


def test_load_generator_takes_a_run_too(tiny_run):
    generator = load_generator(tiny_run)
    assert not generator.training
    assert (generator(generator.latents(SEEDS)).numpy() == expected(tiny_run)).all()
    assert generator.card == portable.card_of(checkpoint.read(str(tiny_run))[1])
    with pytest.raises(AttributeError, match="no attribute 'load_generators'"):
        _ = began_cli.load_generators


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


def test_files_that_are_no_exports(began, tiny_run, tmp_path):
    assert began("export", f"ckpt={tiny_run}", "out=whole.safetensors")[0] == 0
    whole = Path("whole.safetensors").read_bytes()
    Path("cut.safetensors").write_bytes(whole[: len(whole) // 2])
    Path("empty.safetensors").write_bytes(b"")
    save_file({"w": torch.zeros(2)}, "foreign.safetensors")
    with safe_open("whole.safetensors", "pt") as file:
        card = json.loads(file.metadata()["began"])
    later = {**card, "format": 2, "began": "9.9"}
    save_file({"w": torch.zeros(2)}, "later.safetensors", {"began": json.dumps(later)})
    save_file({"w": torch.zeros(2)}, "misfit.safetensors", {"began": json.dumps(card)})
    said = {
        "cut": "not a whole .safetensors file",
        "empty": "not a whole .safetensors file",
        "foreign": "it has no card",
        "later": "format 2, and this began reads format 1; use began 9.9",
        "misfit": "do not fit together",
    }
    for name, text in said.items():
        code, _, err = began("sample", f"ckpt={name}.safetensors")
        assert (code, err.count("\n")) == (2, 1), err
        assert text in err
        with pytest.raises(UserError, match="safetensors"):
            load_generator(f"{name}.safetensors")


def test_places_that_cannot_be_written(began, tiny_run, tmp_path):
    (tmp_path / "file").write_text("")
    code, _, err = began("export", f"ckpt={tiny_run}", "out=file/g.safetensors")
    assert code == 2
    assert "out=file/g.safetensors: cannot write" in err
    (tmp_path / "folder.safetensors").mkdir()
    code, _, err = began("export", f"ckpt={tiny_run}", "out=folder.safetensors")
    assert code == 2
    assert "is a folder" in err


def test_points_are_refused(began, tmp_path):
    line = ["dataset=ring", "steps=1", "batch_size=4", "model.width=4", "hydra.run.dir=ring"]
    assert began("train", *line)[0] == 0
    code, _, err = began("export", "ckpt=ring")
    assert code == 2
    assert "makes points of the plane" in err


def test_images_are_in_range(tiny_run):
    generator = load_generator(tiny_run)
    made = generator(generator.latents([1, 2]) * 50)
    assert made.abs().max() <= 1
    assert images.to_uint8(made).dtype == torch.uint8

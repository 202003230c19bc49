import json
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file

import began_cli
from began_cli.generators import checkpoint


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


def test_the_card_has_the_scores_of_the_exported_step(began, tiny_run):
    line = ["n=60", "scores=[fid]", "extractor=pixels", "bins=2"]
    assert began("evaluate", f"ckpt={tiny_run}", *line)[0] == 0
    evaluation = json.loads((tiny_run / "evaluation.json").read_text())["evaluations"][0]
    assert began("export", f"ckpt={tiny_run}")[0] == 0
    card = json.loads((tiny_run / "generator-step-00000004.safetensors.json").read_text())
    ((name, score),) = card["scores"].items()
    assert name == f"fid[{evaluation['extractor']}] N=60 seed=0"
    assert score == evaluation["scores"]["fid"]


def test_places_that_cannot_be_written(began, tiny_run, tmp_path):
    (tmp_path / "file").write_text("")
    code, _, err = began("export", f"ckpt={tiny_run}", "out=file/g.safetensors")
    assert code == 2
    assert "out=file: is a file; give another folder" in err


def test_a_folder_and_an_ending(began, tiny_run, tmp_path):
    assert began("export", f"ckpt={tiny_run}", "out=made")[0] == 0
    assert (tmp_path / "made" / "generator-step-00000004.safetensors").exists()
    assert began("export", f"ckpt={tiny_run}", "out=g.pt2")[0] == 0
    assert torch.export.load("g.pt2").module()(torch.zeros(3, 8)).shape == (3, 1, 16, 16)


def test_points_are_refused(began, tmp_path):
    line = ["dataset=ring", "steps=1", "batch_size=4", "model.width=4", "hydra.run.dir=ring"]
    assert began("train", *line)[0] == 0
    code, _, err = began("export", "ckpt=ring")
    assert code == 2
    assert "makes points of the plane" in err


def test_an_exported_file_is_exported_again(began, tiny_run):
    assert began("export", f"ckpt={tiny_run}", "out=g.safetensors")[0] == 0
    assert began("export", "ckpt=g.safetensors")[0] == 0
    assert Path("generator-g.safetensors").read_bytes() == Path("g.safetensors").read_bytes()

"""Pretrained generators: made from a scored run, taken by every command, and those of began."""

import json
from pathlib import Path

import make_pretrained
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from began_cli import load_generator
from began_cli.errors import UserError
from began_cli.generators import load as loading
from began_cli.generators.load import describe_pretrained, list_pretrained, load

SCORED = ("n=60", "scores=[fid,coverage]", "extractor=pixels", "bins=2", "kid_subset=10")


@pytest.fixture
def pretrained(began, tiny_run, tmp_path, monkeypatch) -> Path:
    """A folder with one pretrained generator, `tiny`, in place of what comes with began."""
    assert began("evaluate", f"ckpt={tiny_run}", *SCORED)[0] == 0
    folder = tmp_path / "shipped"
    monkeypatch.setattr("sys.argv", ["x", f"tiny={tiny_run}", "--out", str(folder)])
    make_pretrained.main()
    monkeypatch.setattr(loading, "PRETRAINED", folder)
    return folder


def test_a_file_in_half_precision_with_its_card(pretrained, tiny_run):
    (path,) = pretrained.iterdir()
    assert path.name == "tiny.safetensors"
    kept = load_file(path)
    full = load(str(tiny_run), torch.device("cpu")).network.state_dict()
    assert kept.keys() == full.keys()
    for name, weight in full.items():
        assert torch.equal(kept[name], weight.half() if weight.is_floating_point() else weight)
    card = load_generator("pretrained/tiny").card
    assert card["data"]["licence"] == make_pretrained.LICENCES["mnist"]
    assert str(tiny_run.parent) not in json.dumps(card)
    # its scores are its own: of the file, not of the run in full precision
    entry = json.loads((tiny_run / "evaluation.json").read_text())["evaluations"][0]
    label = f"fid[{entry['extractor']}] N=60 seed=0"
    made, before = card["scores"][label], entry["scores"]["fid"]
    assert made["value"] == pytest.approx(before["value"], rel=0.01)
    assert made["floor"] == before["floor"]


def test_full_precision_where_half_costs_too_much(began, tiny_run, tmp_path, monkeypatch):
    assert began("evaluate", f"ckpt={tiny_run}", *SCORED)[0] == 0
    monkeypatch.setattr(make_pretrained, "WORSE", 0)
    path = make_pretrained.make("tiny", str(tiny_run), tmp_path / "shipped")
    full = load(str(tiny_run), torch.device("cpu")).network.state_dict()
    assert all(torch.equal(load_file(path)[name], weight) for name, weight in full.items())


def test_a_run_without_scores_is_refused(tiny_run, tmp_path):
    with pytest.raises(UserError, match="not scored; run began evaluate ckpt="):
        make_pretrained.make("tiny", str(tiny_run), tmp_path / "shipped")


def test_every_command_takes_it_and_writes_here(began, pretrained, digits, tmp_path):
    before = {path: path.read_bytes() for path in pretrained.iterdir()}
    ckpt = "ckpt=pretrained/tiny"
    for line in (
        ["sample", ckpt, "n=4"],
        ["interpolate", ckpt, "rows=1", "steps=3"],
        ["export", ckpt],
        ["evaluate", ckpt, f"root={digits}", *SCORED],
    ):
        code, _, err = began(*line)
        assert code == 0, err
    sheet = np.asarray(Image.open("sampled-tiny/seeds-0-3.png"))
    generator = load_generator(pretrained / "tiny.safetensors")
    made = generator(generator.latents([0])).add(1).mul(127.5).round().numpy()[0, 0]
    assert (sheet[2:18, 2:18, 0] == made).all()
    assert Path("interpolated-tiny/lerp.png").exists()
    assert Path("generator-tiny.safetensors").read_bytes() == next(iter(before.values()))
    assert json.loads(Path("evaluation.json").read_text())["evaluations"][0]["step"] == 4
    assert {path: path.read_bytes() for path in pretrained.iterdir()} == before


def test_the_list(began, pretrained):
    for command in ("sample", "interpolate", "export", "evaluate"):
        code, out, err = began(command, "ckpt=pretrained")
        assert (code, err) == (0, "")
        assert "pretrained/tiny\n  mnist, 16x16 grey; loss=bgan model=dcgan, 4 steps; fid[" in out
        assert "MB; data: MNIST by Yann LeCun" in out
    code, _, err = began("sample", "ckpt=pretrained/tinny")
    assert code == 2
    assert "ckpt=pretrained/tinny: no such generator comes with began, but pretrained/tiny" in err


def test_a_folder_of_that_name_comes_first(began, pretrained, tiny_run, tmp_path):
    (tmp_path / "pretrained").mkdir()
    tiny_run.rename(tmp_path / "pretrained" / "tiny")
    assert load("pretrained/tiny", torch.device("cpu")).state is not None
    code, _, err = began("sample", "ckpt=pretrained")
    assert code == 2
    assert "no checkpoint in that folder" in err


def test_what_comes_with_began_is_small_scored_and_licensed():
    files = list_pretrained()
    assert sum(path.stat().st_size for path in files.values()) < 5_000_000
    for name in files:
        generator = load_generator(f"pretrained/{name}")
        assert generator.card["data"]["licence"] in make_pretrained.LICENCES.values()
        assert any(label.startswith("fid[") for label in generator.card["scores"])
        assert generator(generator.latents(range(8))).std(0).mean() > 0.05  # they differ
    assert describe_pretrained().count("; data: ") == len(files)

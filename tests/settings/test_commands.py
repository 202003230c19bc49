"""The settings of every command but train: what is refused, and the one form of the rest."""

import pytest
from conftest import settings

from began_cli.errors import UserError

BAD = {
    "sample seeds=a": "seeds=a: wants",
    "sample seeds=5-2": "seeds=5-2: wants",
    "sample n=2 seeds=0-3": "n=2 but seeds=0-3 names 4",
    "sample format=jpg": "format=jpg: wants one of",
    "interpolate steps=1": "steps=1: wants a whole number, 2 or more",
    "interpolate fps=0.001": "fps=0.001: wants 1 to 50",
    "interpolate mode=bezier": "mode=bezier: wants one of lerp, slerp",
    "interpolate path=round": "path=round: wants one of between, mirror, loop, traverse",
    "interpolate path=mirror": "name some with images=",
    "interpolate path=traverse mode=slerp": "path=traverse wants mode=lerp",
    "interpolate axes=0-3": "axes=0-3: path=between has none",
    "interpolate path=traverse axes=a": "axes=a: wants",
    "interpolate path=traverse axes=0-3 rows=2": "rows=2: wants 4, one an axis",
    "interpolate images=a.png seeds=0-1": "seeds and images: a path has ends of one kind",
    "interpolate start=middle": "start=middle: wants one of random, encoder",
    "interpolate restarts=0": "restarts=0: wants",
    "interpolate search_steps=0": "search_steps=0: wants",
    "interpolate search_lr=nan": "search_lr=nan: wants a number above 0",
    "interpolate error=huber": "error=huber: wants one of l1, l2",
    "interpolate format=mp4": "format=mp4: wants one of png, gif, webp, npz",
    "sample mode=reconstruct": "images=… and mode=reconstruct belong together",
    "sample images=a.png": "images=… and mode=reconstruct belong together",
    "sample mode=reconstruct images=a format=npz": "format=npz: wants grid for reconstructions",
    "sample mode=reconstruct images=a out=b.png": "wants a folder: mode=reconstruct writes",
    "sample out=a.jpg": "out=a.jpg: wants a file whose name ends in .png or .npz, or a folder",
    "sample out=a.png format=npz": "format=npz: the ending of out=a.png means format=grid",
    "sample out=a.png format=png": "out=a.png: is one file, and format=png writes one per image",
    "interpolate out=a.mp4": "ends in .png or .gif or .webp or .npz, or a folder",
    "interpolate out=a.gif format=png": "format=png: the ending of out=a.gif means format=gif",
    "export format=pickle": "format=pickle: wants one of safetensors, onnx, torch",
    "export out=x.pt": "out=x.pt: wants a file whose name ends in .safetensors or .onnx or .pt2",
    "export format=onnx out=x.pt2": "format=onnx: the ending of out=x.pt2 means format=torch",
}


@pytest.mark.parametrize("line", BAD)
def test_settings_that_are_refused(refusal, line):
    assert BAD[line] in refusal(line)


@pytest.mark.parametrize(
    ("line", "seeds"),
    [
        ([], list(range(64))),
        (["n=3"], [0, 1, 2]),
        (["seeds='4,1-2'"], [4, 1, 2]),
        (["seeds=[4,1]", "n=2"], [4, 1]),
    ],
)
def test_seeds_of_samples(line, seeds):
    assert settings("sample", *line).seeds == seeds


def test_an_axis_has_a_row():
    cfg = settings("interpolate", "path=traverse", "axes='3,0-1'", "seeds=7")
    assert (cfg.axes, cfg.rows, cfg.seeds) == ([3, 0, 1], 3, [7])
    assert settings("interpolate", "path=traverse", "axes=[3,1]", "rows=2").rows == 2
    cfg = settings("interpolate", "rows=5")
    assert (cfg.axes, cfg.rows, cfg.seeds) == (None, 5, None)


def test_one_run_or_score_is_a_list_of_one():
    assert settings("compare", "runs=a").runs == ["a"]
    assert settings("compare", "runs=[a,7]").runs == ["a", "7"]
    assert settings("evaluate", "scores=fid").scores == ["fid"]
    assert settings("evaluate", "scores=[all,modes]").scores == ["all", "modes"]


@pytest.mark.parametrize(
    ("protocol", "filled"),
    [
        ("lucic", (10_000, "test", "inception")),
        ("50k", (50_000, "train", "inception")),
        ("pacgan", (26_000, "train", "auto")),
        ("null", (None, "train", "auto")),
    ],
)
def test_protocols_fill_in_what_they_set(protocol, filled):
    cfg = settings("evaluate", f"protocol={protocol}")
    assert (cfg.n, cfg.reference, cfg.extractor) == filled
    assert cfg.ckpt == [None]


def test_a_protocol_is_not_overridden():
    settings("evaluate", "protocol=lucic", "n=10000", "reference=test")
    for line in ("n=10", "reference=train", "extractor=pixels"):
        with pytest.raises(UserError, match=f"^{line}: protocol=lucic has .*; leave out one"):
            settings("evaluate", "protocol=lucic", line)


@pytest.mark.parametrize(
    ("command", "line", "message"),
    [
        ("compare", "runs=null", "^runs: which ones"),
        ("compare", "runs=[]", "^runs: which ones"),
        ("evaluate", "scores=[]", "one score or more"),
        ("evaluate", "scores=[fid,foo]", "^scores=foo: wants one of auto, all, fid"),
        ("evaluate", "n=1", "^n=1: wants a whole number from 2 to 1000000"),
        ("evaluate", "n=1000001", "^n=1000001: wants"),
        ("evaluate", "seed=1000000", "^seed=1000000: wants 0 to 999999"),
        ("evaluate", "ckpt=[]", "^ckpt: which ones"),
        ("evaluate", "protocol=100k", "^protocol=100k: wants one of lucic, 50k, pacgan"),
        ("evaluate", "reference=both", "^reference=both: wants one of auto, train, test"),
        ("evaluate", "cells=0", "^cells=0: wants a whole number, 1 or more"),
    ],
)
def test_lists_and_numbers_that_are_refused(command, line, message):
    with pytest.raises(UserError, match=message):
        settings(command, line)


@pytest.mark.parametrize(
    ("line", "format"),
    [
        ("sample", "grid"),
        ("sample out=folder", "grid"),
        ("sample out=folder format=png", "png"),
        ("sample out=x.npz", "npz"),
        ("sample out=x.png", "grid"),
        ("interpolate out=folder", "png"),
        ("interpolate out=walk.webp", "webp"),
        ("interpolate out=walk.gif format=gif", "gif"),
        ("export", "safetensors"),
        ("export out=g.onnx", "onnx"),
        ("export out=g.pt2", "torch"),
    ],
)
def test_the_format_follows_from_the_ending(line, format):
    assert settings(*line.split()).format == format

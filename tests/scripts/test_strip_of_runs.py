"""The strip: the runs' own samples, in order of the setting that is asked for."""

import numpy as np
import pytest
import strip_of_runs
from conftest import TINY
from PIL import Image

from began_cli import images, load_generator


def called(monkeypatch, *words):
    monkeypatch.setattr("sys.argv", ["x", *map(str, words)])
    strip_of_runs.main()


def test_grids_stand_in_order_of_the_setting(began, digits, tmp_path, monkeypatch):
    line = ["train", "loss=began", "steps=2", f"dataset.root={digits}", *TINY]
    for rate in ("10", "2"):  # not in order of the letters
        run = tmp_path / "runs" / f"gamma{rate}"
        assert began(*line, f"loss.gamma={rate}", f"out={run}")[0] == 0
    called(monkeypatch, tmp_path / "runs", "--by", "loss.gamma", "--n", 4, "--out", "strip.png")
    strip = np.array(Image.open("strip.png").convert("RGB"))
    left = 10
    for rate in ("2", "10"):
        generator = load_generator(tmp_path / "runs" / f"gamma{rate}")
        made = generator(generator.latents(range(4)))
        sheet = np.array(images.to_pil(images.grid(images.to_uint8(made), 2)))
        there = strip[5 : 5 + sheet.shape[0], left : left + sheet.shape[1]]
        np.testing.assert_array_equal(there, sheet)
        left += max(sheet.shape[1], 120) + 20
    assert strip.shape[1] == left - 10


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (["--by", "loss.nosuch"], "--by loss.nosuch: run has no such setting"),
        (["--by", "loss"], "--by loss"),
        (["--by", "seed", "--out", "README.md"], "--out README.md"),
        (["--by", "seed", "--n", "0"], "--n"),
    ],
)
def test_bad_line_is_refused(tiny_run, monkeypatch, capfd, line, said):
    with pytest.raises(SystemExit) as ended:
        called(monkeypatch, tiny_run.name, *line)
    assert ended.value.code == 2
    assert said in capfd.readouterr().err

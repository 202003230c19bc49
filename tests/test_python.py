"""The example of docs/python.md, as it stands there."""

import re
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY
from PIL import Image

from began_cli import train
from began_cli.errors import UserError
from began_cli.generators import checkpoint

DOC = Path(__file__).parents[1] / "docs" / "python.md"


def test_the_example_trains_samples_and_shows(monkeypatch):
    shown = []
    monkeypatch.setattr(Image.Image, "show", lambda sheet: shown.append(sheet))
    (example,) = re.findall(r"```python\n(.*?)```", DOC.read_text(), re.DOTALL)
    assert example.count("\n") <= 10
    assert '"steps=200"' in example
    quick = example.replace('"batch_size=64"', '"batch_size=8", "dataset.width=4"')
    assert quick != example
    exec(quick, {})
    (sheet,) = shown
    assert sheet.size == (4 * 34 + 2, 4 * 34 + 2)
    assert (np.asarray(Image.open("digits.png")) == np.asarray(sheet)).all()
    (run,) = checkpoint.find_runs(Path("outputs"))
    assert checkpoint.step_of(checkpoint.find_all(run)[-1]) == 200
    (final,) = (run / "samples").glob("step-*.png")
    grid = np.asarray(Image.open(final))  # the same seeds, 8 in a row
    assert np.abs(np.asarray(sheet)[2:34, 2:34].astype(int) - grid[2:34, 2:34]).max() <= 1


def test_what_the_command_refuses_is_refused():
    with pytest.raises(UserError, match="steps=0: wants"):
        train("steps=0")
    with pytest.raises(UserError, match="devices=2: this process is one"):
        train("devices=2", "device=cpu", "batch_size=4", *TINY[:2])
    assert list(Path().iterdir()) == []

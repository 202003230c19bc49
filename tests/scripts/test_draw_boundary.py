"""A generator trained alone goes where its loss wants it."""

import draw_boundary
import pytest
from conftest import TINY
from PIL import Image

from began_cli.errors import UserError
from began_cli.generators.load import load


@pytest.fixture
def run(began, digits, tmp_path):
    def train(loss):
        line = [f"loss={loss}", "model=mlp", "steps=3", f"dataset.root={digits}", *TINY]
        assert began("train", *line, f"out={tmp_path}/{loss}")[0] == 0
        return load(f"{tmp_path}/{loss}", draw_boundary.CPU)

    return train


def test_gan_passes_the_boundary_and_bgan_comes_to_it(run, tmp_path):
    trained = run("gan")
    d = {steps: draw_boundary.train_alone(trained, "gan", steps) for steps in (0, 60)}
    assert d[60].mean() > d[0].mean() + 0.01
    seeking = draw_boundary.train_alone(trained, "bgan", 60)
    assert (seeking - 0.5).abs().mean() < (d[60] - 0.5).abs().mean()
    draw_boundary.draw({"before": d[0], "gan": d[60]}, tmp_path / "b.png")
    assert Image.open(tmp_path / "b.png").width > 300


def test_an_autoencoder_gives_no_scores(run):
    with pytest.raises(UserError, match="loss=ebgan gives no scores"):
        draw_boundary.train_alone(run("ebgan"), "gan", 1)

"""Pictures of a run's progress, and the samples' diversity."""

import numpy as np
import pytest
import torch
from conftest import TINY, settings
from PIL import Image

from began_cli.gan.build import build
from began_cli.training.monitor import NoMonitor
from began_cli.training.previews import Previews, pairs, spread

CPU = torch.device("cpu")


def make(*line):
    cfg = settings("train", *line)
    size = cfg.dataset.image_size
    if cfg.dataset.channels == 2:
        pixels = torch.rand(100, 2, 1, 1)
    else:
        pixels = torch.randint(0, 256, (100, 1, size, size), dtype=torch.uint8)
    update = build(cfg, pixels, CPU)
    return Previews(update, pixels, cfg.model.latent_dim, CPU), update, pixels


def test_spread_is_the_root_mean_square_of_the_pixels_deviations():
    batch = np.random.default_rng(0).normal(size=(10, 3, 4, 4))
    wanted = np.sqrt(np.mean(np.std(batch, axis=0, ddof=1) ** 2))
    assert spread(torch.from_numpy(batch)).item() == pytest.approx(wanted, rel=1e-6)


def test_diversity_is_0_for_one_image_and_1_for_the_data(monkeypatch):
    previews, _, _ = make("loss=began", *TINY)
    real = previews.reals.float() / 127.5 - 1
    monkeypatch.setattr(previews, "samples", lambda: real)
    assert previews.diversity() == pytest.approx(1, rel=0.01)
    monkeypatch.setattr(previews, "samples", lambda: real[:1].expand(64, -1, -1, -1))
    assert previews.diversity() == 0


def test_the_fixed_latents_and_images_are_the_same_each_time():
    a, _, _ = make("loss=began", *TINY)
    b, _, _ = make("loss=gan", *TINY)
    assert torch.equal(a.latents, b.latents)
    assert a.latents.abs().max() <= 1
    assert len(a.reals) == 64
    # A walk begins at one of the latents and ends at the next.
    assert torch.equal(a.walk[[0, 7]], a.latents[:2])


@pytest.mark.parametrize("line", [("loss=began", *TINY), ("loss=gan", "dataset=ring")])
def test_sheets_are_written(tmp_path, line):
    previews, _, _ = make(*line)
    (tmp_path / "samples").mkdir()
    previews.save_reals(tmp_path)
    previews.save(tmp_path, 7, NoMonitor())
    sizes = {path.name: Image.open(path).size for path in (tmp_path / "samples").iterdir()}
    side = 512 if previews.points else 8 * 18 + 2  # 8 images of 16 pixels, 2 between them
    assert sizes == {"reals.png": (side, side), "step-00000007.png": (side, side)}


def test_reconstructions_stand_beside_their_images_and_change_nothing():
    _, update, pixels = make("loss=began", *TINY)
    batch = pixels[:16].float() / 127.5 - 1
    before = {key: value.clone() for key, value in update.discriminator.state_dict().items()}
    sheet = pairs(update, batch)
    assert sheet.shape == (3, 2 * 18 + 2, 16 * 18 + 2)  # rows of 8 pairs
    assert torch.equal(sheet[0, 2:18, 2:18], pixels[0, 0])
    assert update.discriminator.training
    assert all(torch.equal(update.discriminator.state_dict()[key], before[key]) for key in before)

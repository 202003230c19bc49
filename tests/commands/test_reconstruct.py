import json
import math

import numpy as np
import pytest
import torch
from conftest import TINY
from PIL import Image

from began_cli import images
from began_cli.commands.reconstruct import wasserstein
from began_cli.commands.sample import trained_generator
from began_cli.gan import latents
from began_cli.generators import checkpoint


def test_wasserstein_of_equal_and_unequal_samples():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=30), rng.normal(1, 2, size=30)
    matched = np.abs(np.sort(a) - np.sort(b)).mean()  # the best matching is the sorted one
    assert wasserstein(torch.tensor(a), torch.tensor(b)) == pytest.approx(matched)
    c = rng.exponential(size=12)
    many = math.lcm(30, 12)  # each value as often as it takes to match them one to one
    matched = np.abs(np.sort(a.repeat(many // 30)) - np.sort(c.repeat(many // 12))).mean()
    assert wasserstein(torch.tensor(a), torch.tensor(c)) == pytest.approx(matched)
    assert wasserstein(torch.tensor(a), torch.tensor(a) + 3) == pytest.approx(3)
    assert wasserstein(torch.tensor(a), torch.tensor(a)) == 0


@pytest.fixture
def autoencoder_run(began, digits, tmp_path):
    run = tmp_path / "ae"
    line = ["loss=began", "model=began", "steps=2", f"dataset.root={digits}", *TINY]
    assert began("train", *line, f"hydra.run.dir={run}")[0] == 0
    return run


def test_energies_pictures_and_distance(began, autoencoder_run, tmp_path):
    (tmp_path / "reals").mkdir()
    rng = np.random.default_rng(3)
    pixels = rng.integers(0, 256, (5, 16, 16), np.uint8)
    for i, image in enumerate(pixels):
        Image.fromarray(image).save(tmp_path / "reals" / f"{i}.png")
    line = [f"ckpt={autoencoder_run}", "mode=reconstruct", "images=reals", "n=70", "out=o"]
    code, out, err = began("sample", *line)
    assert code == 0, err
    table = json.loads((tmp_path / "o" / "energies.json").read_text())

    critic, _, _ = checkpoint.critic_of(
        checkpoint.read(str(autoencoder_run))[1], torch.device("cpu")
    )
    x = torch.from_numpy(pixels)[:, None] / 127.5 - 1
    made = critic(x).images
    by_hand = (x - made).abs().mean((1, 2, 3))  # BEGAN's L(v)
    assert list(table["real"]) == [f"{i}.png" for i in range(5)]
    assert list(table["real"].values()) == pytest.approx(by_hand.tolist(), rel=1e-4)
    _, generator, trained = trained_generator(str(autoencoder_run), "cpu")
    g = generator(latents.from_seeds(range(70), trained.model.latent_dim))
    fake = (g - critic(g).images).abs().mean((1, 2, 3))
    assert list(table["generated"].values()) == pytest.approx(fake.tolist(), rel=1e-4)
    assert table["wasserstein"] == pytest.approx(wasserstein(by_hand, fake), rel=1e-3)
    assert f"2.png: energy {by_hand[2]:.4g}" in out

    sheet = np.asarray(Image.open(tmp_path / "o" / "reconstructions.png"))[:, :, 0]
    for i in range(5):  # three pairs a row
        top, left = 2 + 18 * (i // 3), 2 + 36 * (i % 3)
        assert (sheet[top : top + 16, left : left + 16] == pixels[i]).all()
        beside = sheet[top : top + 16, left + 18 : left + 34]
        assert (beside == images.to_uint8(made)[i, 0].numpy()).all()
    drawn = np.asarray(Image.open(tmp_path / "o" / "losses.png").convert("RGB")).astype(int)
    orange, blue = drawn[..., 0] - drawn[..., 2] > 80, drawn[..., 2] - drawn[..., 0] > 60
    assert min(orange.sum(), blue.sum()) > 200  # both histograms are there


def test_a_score_critic_is_refused(began, tiny_run, tmp_path):
    Image.fromarray(np.zeros((16, 16), np.uint8)).save("a.png")
    code, _, err = began("sample", f"ckpt={tiny_run}", "mode=reconstruct", "images=a.png")
    assert code == 2
    assert "the critic of loss=bgan gives scores, not reconstructions" in err
    assert not list(tiny_run.glob("reconstructed*"))


def test_an_exported_generator_has_no_critic(began, autoencoder_run):
    assert began("export", f"ckpt={autoencoder_run}", "out=g.safetensors")[0] == 0
    code, _, err = began("sample", "ckpt=g.safetensors", "mode=reconstruct", "images=a.png")
    assert code == 2
    assert "holds the generator alone" in err

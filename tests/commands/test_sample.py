import json

import numpy as np
import pytest
import torch
from conftest import TINY
from PIL import Image

from began_cli import images
from began_cli.commands.sample import name_seeds
from began_cli.evaluation.energies import wasserstein
from began_cli.gan import latents
from began_cli.generators import checkpoint
from began_cli.generators.load import load


def test_npz(began, tiny_run, tmp_path):
    code, out, err = began("sample", f"ckpt={tiny_run}", "seeds=3-7", "format=npz", "out=made")
    assert code == 0, err
    assert "5 images" in out
    made = np.load(tmp_path / "made" / "seeds-3-7.npz")
    assert made["images"].shape == (5, 16, 16, 1)
    assert made["images"].dtype == np.uint8
    assert made["seeds"].tolist() == [3, 4, 5, 6, 7]


def test_an_image_depends_on_its_seed_alone(began, tiny_run, tmp_path):
    assert began("sample", f"ckpt={tiny_run}", "n=70", "format=npz", "out=all")[0] == 0
    all_of_them = np.load(tmp_path / "all" / "seeds-0-69.npz")["images"]
    for i, seeds in enumerate(("65", "63-69", "[69,0,33]")):
        line = [f"ckpt={tiny_run}", f"seeds={seeds}", "format=npz", f"out=some{i}"]
        assert began("sample", *line)[0] == 0
        some = np.load(next((tmp_path / f"some{i}").glob("*.npz")))
        assert (some["images"] == all_of_them[some["seeds"]]).all()


def test_numbered_pngs_equal_the_array(began, tiny_run, tmp_path):
    assert began("sample", f"ckpt={tiny_run}", "n=3", "format=png", "out=png")[0] == 0
    assert began("sample", f"ckpt={tiny_run}", "n=3", "format=npz", "out=npz")[0] == 0
    made = np.load(tmp_path / "npz" / "seeds-0-2.npz")["images"]
    for seed in range(3):
        pixels = np.asarray(Image.open(tmp_path / "png" / f"seed-{seed:05d}.png"))
        assert (pixels == made[seed, :, :, 0]).all()


def test_grid_and_default_places(began, tiny_run):
    code, out, _ = began("sample", f"ckpt={tiny_run}")
    assert code == 0
    assert "64 images" in out
    sheet = Image.open(tiny_run / "sampled-step-00000004" / "seeds-0-63.png")
    assert sheet.size == (8 * 18 + 2, 8 * 18 + 2)


def test_out_may_be_a_file(began, tiny_run, tmp_path):
    line = ["sample", f"ckpt={tiny_run}", "n=3"]
    for name in ("digits.png", "deep/digits.npz"):
        code, out, err = began(*line, f"out={name}")
        assert code == 0, err
        assert out.endswith(f": {name}\n")
    assert Image.open(tmp_path / "digits.png").size == (2 * 18 + 2, 2 * 18 + 2)
    assert np.load(tmp_path / "deep" / "digits.npz")["images"].shape == (3, 16, 16, 1)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["digits.npz"]
    for name in ("A.PNG", "A.NPZ"):
        assert began(*line, f"out=capital/{name}")[0] == 0
    made = np.load(tmp_path / "capital" / "A.NPZ")["images"]
    assert made.shape == (3, 16, 16, 1)
    assert {path.name for path in (tmp_path / "capital").iterdir()} == {"A.PNG", "A.NPZ"}


def test_newest_run_is_the_default(began, tiny_run, tmp_path):
    (tmp_path / "outputs").mkdir()
    tiny_run.rename(tmp_path / "outputs" / "mine")
    code, out, _ = began("sample", "n=1")
    assert code == 0
    assert "outputs/mine" in out


def test_a_checkpoint_is_enough(began, tiny_run, tmp_path):
    lone = tmp_path / "lone.pt"
    checkpoint.find_candidates(str(tiny_run))[0].rename(lone)
    assert began("sample", f"ckpt={lone}", "n=1", "format=png")[0] == 0
    assert (tmp_path / "sampled-lone" / "seed-00000.png").exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut", b"not a checkpoint"])
def test_files_that_are_no_checkpoints(began, tmp_path, content):
    (tmp_path / "x.pt").write_bytes(content)
    code, _, err = began("sample", "ckpt=x.pt")
    assert code == 2
    assert "x.pt: not a checkpoint" in err
    assert [path.name for path in tmp_path.iterdir()] == ["x.pt"]


def test_unwritable_out(began, tiny_run, tmp_path):
    (tmp_path / "file").write_text("")
    code, _, err = began("sample", f"ckpt={tiny_run}", "out=file/deep")
    assert code == 2
    assert "out=" in err


def test_names_of_seeds():
    assert name_seeds([7]) == "seed-7"
    assert name_seeds([3, 4, 5]) == "seeds-3-5"
    assert name_seeds([69, 0, 33]) == "seeds-69-0-33"
    assert name_seeds(range(0, 100, 2)).startswith("50-seeds-")
    assert name_seeds(range(0, 100, 2)) != name_seeds(range(1, 101, 2))


# --- mode=reconstruct -----------------------------------------------------------------------------


@pytest.fixture
def autoencoder_run(began, digits, tmp_path):
    run = tmp_path / "ae"
    line = ["loss=began_paper", "steps=2", f"dataset.root={digits}", *TINY]
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

    trained = load(str(autoencoder_run), torch.device("cpu"))
    critic, _ = trained.critic("mode=reconstruct")
    x = torch.from_numpy(pixels)[:, None] / 127.5 - 1
    made = critic(x).images
    by_hand = (x - made).abs().mean((1, 2, 3))  # BEGAN's L(v)
    assert list(table["real"]) == [f"{i}.png" for i in range(5)]
    assert list(table["real"].values()) == pytest.approx(by_hand.tolist(), rel=1e-4)
    g = trained.network(latents.from_seeds(range(70), 8))
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

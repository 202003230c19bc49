import numpy as np
import pytest
import torch
from PIL import Image

from began_cli.commands.sample import generate
from began_cli.gan import latents
from began_cli.generators import checkpoint


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


def test_newest_run_is_the_default(began, tiny_run, tmp_path):
    (tmp_path / "outputs").mkdir()
    tiny_run.rename(tmp_path / "outputs" / "mine")
    code, out, _ = began("sample", "n=1")
    assert code == 0
    assert "outputs/mine" in out


def test_a_checkpoint_is_enough(began, tiny_run, tmp_path):
    lone = tmp_path / "lone.pt"
    checkpoint.candidates(str(tiny_run))[0].rename(lone)
    assert began("sample", f"ckpt={lone}", "n=1", "format=png")[0] == 0
    assert (tmp_path / "sampled-lone" / "seed-00000.png").exists()


def test_samples_are_the_moving_averages(tiny_run):
    state = checkpoint.read(str(tiny_run))[1]
    generator, trained = checkpoint.generator_of(state, torch.device("cpu"))
    weights = generator.state_dict()
    assert all(torch.equal(weights[key], value) for key, value in state["ema"].items())
    assert not all(torch.equal(weights[key], value) for key, value in state["generator"].items())
    z = latents.from_seeds([0], trained.model.latent_dim)
    (image,) = generate(generator, z)
    assert image.dtype == torch.uint8


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

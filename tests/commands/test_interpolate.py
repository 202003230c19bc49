import re
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY
from PIL import Image

from began_cli import images
from began_cli.gan import latents
from began_cli.generators.load import load
from began_cli.generators.sampling import generate_all

CPU = torch.device("cpu")


def strip_image(path, column: int) -> np.ndarray:
    sheet = np.asarray(Image.open(path))
    return sheet[2:18, 2 + 18 * column : 18 + 18 * column, 0]


def test_strips(began, tiny_run, tmp_path):
    line = [f"ckpt={tiny_run}", "rows=2", "steps=3", "out=o", "seeds=[4,5,6,7]"]
    code, _out, err = began("interpolate", *line)
    assert code == 0, err
    names = {path.name for path in (tmp_path / "o").iterdir()}
    assert names == {"lerp.png", "lerp-row-00.png", "lerp-row-01.png"}
    assert Image.open(tmp_path / "o" / "lerp.png").size == (3 * 18 + 2, 2 * 18 + 2)

    a, b = latents.from_seeds([4, 5], 8)
    middle = a + (b - a) / 2
    for column, z in enumerate((a, middle, b)):  # the ends, and the mean latent between
        (expected,) = made(tiny_run, z[None])
        assert (strip_image(tmp_path / "o" / "lerp-row-00.png", column) == expected).all()


def test_out_may_be_a_file(began, tiny_run, two, tmp_path):
    line = ["interpolate", f"ckpt={tiny_run}", "steps=3"]
    assert began(*line, "rows=2", "out=o")[0] == 0
    for name in ("sheet.png", "walk.gif", "walk.webp"):
        code, out, err = began(*line, "rows=2", f"out=made/{name}")
        assert code == 0, err
        assert out.endswith(f": made/{name}\n")
    assert {path.name for path in (tmp_path / "made").iterdir()} == {
        "sheet.png",
        "walk.gif",
        "walk.webp",
    }
    assert Path("made/sheet.png").read_bytes() == Path("o/lerp.png").read_bytes()
    assert Image.open("made/walk.gif").n_frames == 4
    # latents that were searched for are kept beside the file
    assert began(*line, "images=[a.png,b.png]", "out=real/pair.gif", *QUICK)[0] == 0
    assert {path.name for path in (tmp_path / "real").iterdir()} == {"pair.gif", "pair.npz"}


def test_animation_goes_to_and_fro(began, tiny_run, tmp_path):
    line = [f"ckpt={tiny_run}", "rows=2", "steps=4", "format=gif", "mode=slerp", "fps=10", "out=o"]
    assert began("interpolate", *line)[0] == 0
    with Image.open(tmp_path / "o" / "slerp.gif") as gif:
        shown = 0
        for i in range(gif.n_frames):
            gif.seek(i)
            shown += gif.info["duration"]
        assert gif.info["loop"] == 0
    assert shown == 600  # 0 1 2 3 2 1, each for 100 ms


# --- real images, saved latents, other paths ------------------------------------------------------

QUICK = ("restarts=2", "search_steps=20")


@pytest.fixture
def two(tmp_path) -> list[str]:
    """Two "real" images of the tiny model's size."""
    rng = np.random.default_rng(5)
    for name in ("a.png", "b.png"):
        Image.fromarray(rng.integers(0, 256, (16, 16), np.uint8)).save(tmp_path / name)
    return ["a.png", "b.png"]


def cell(path, left: int, row: int = 0) -> np.ndarray:
    """An image on a framed sheet of 16x16 images."""
    top = images.CAPTION + images.FRAME + row * (16 + 3 * images.FRAME)
    return np.asarray(Image.open(path))[top : top + 16, left : left + 16, 0]


def made(run, z) -> np.ndarray:
    """Return the images (N, 16, 16) of latents by the run's generator."""
    return generate_all(load(str(run), CPU).network, torch.as_tensor(z))[:, 0].numpy()


def test_between_real_images(began, tiny_run, two):
    line = [f"ckpt={tiny_run}", "images=[a.png,b.png]", "steps=4", "out=o", *QUICK]
    code, out, err = began("interpolate", *line)
    assert code == 0, err
    assert re.search(r"a.png: l1 error 0\.\d+, \d+% of the best of 1,000 samples", out)
    assert "over 2 starts" in out
    kept = np.load("o/lerp.npz")
    assert kept["latents"].shape == (2, 8)
    assert abs(kept["latents"]).max() <= 1
    assert kept["errors"].shape == (2, 2)
    assert kept["baseline"].shape == (2,)
    assert kept["names"].tolist() == two

    sheet = "o/lerp-row-00.png"  # real | G(z) | path | G(z) | real, 10 apart, 2 of frame each side
    lefts = [2, 32, 62, 82, 112, 142]
    expected = made(tiny_run, kept["path"][0])
    for left, image in zip(lefts[1:5], expected, strict=True):
        assert (cell(sheet, left) == image).all()
    for left, name in zip((lefts[0], lefts[5]), two, strict=True):
        assert (cell(sheet, left) == np.asarray(Image.open(name))).all()
    pixels = np.asarray(Image.open(sheet))
    top = images.CAPTION
    assert pixels[top, 0].tolist() == pixels[top, 159].tolist() == list(images.REAL)
    assert pixels[top, 31].tolist() == [255, 255, 255]
    # the printed error is that of the strip's own images, but for rounding
    for name, left, error in zip(two, (32, 112), kept["errors"].min(axis=0), strict=True):
        apart = np.abs(cell(sheet, left) / 127.5 - np.asarray(Image.open(name)) / 127.5).mean()
        assert apart == pytest.approx(error, abs=0.5 / 127.5)


def test_saved_latents_give_the_same_images_again(began, tiny_run, two):
    line = [f"ckpt={tiny_run}", "steps=5"]
    assert began("interpolate", *line, "images=[a.png,b.png]", "out=o", *QUICK)[0] == 0
    assert began("interpolate", *line, "latents=o/lerp.npz", "out=p", "format=npz")[0] == 0
    assert began("interpolate", *line, "latents=p/lerp.npz", "out=q")[0] == 0
    a, b = kept = np.load("o/lerp.npz")["latents"]
    assert (np.load("p/lerp.npz")["latents"] == kept).all()
    ends_and_middle = made(tiny_run, np.stack([a, (a + b) / 2, b]))
    for column, image in zip((0, 2, 4), ends_and_middle, strict=True):
        assert (strip_image("q/lerp.png", column) == image).all()


def test_a_frame_does_not_depend_on_how_many_there_are(began, tiny_run):
    line = [f"ckpt={tiny_run}", "steps=3", "mode=slerp"]
    assert began("interpolate", *line, "rows=40", "out=many")[0] == 0
    assert began("interpolate", *line, "seeds=[78,79]", "out=one")[0] == 0
    last = np.asarray(Image.open("many/slerp-row-39.png"))
    assert (last == np.asarray(Image.open("one/slerp-row-00.png"))).all()


def test_from_an_image_to_its_mirror(began, tiny_run, two):
    line = [f"ckpt={tiny_run}", "images=a.png", "path=mirror", "steps=2", "out=o", *QUICK]
    code, out, _ = began("interpolate", *line)
    assert code == 0
    assert "a.png, mirrored: l1 error" in out
    original = np.asarray(Image.open("a.png"))
    assert (cell("o/mirror.png", 2) == original).all()
    assert (cell("o/mirror.png", 92) == original[:, ::-1]).all()


def test_a_loop_comes_back(began, tiny_run):
    line = [f"ckpt={tiny_run}", "path=loop", "seeds=[4,5,6]", "steps=4"]
    assert began("interpolate", *line, "format=npz", "out=o")[0] == 0
    path = np.load("o/loop.npz")["path"]
    ends = latents.from_seeds([4, 5, 6], 8).numpy()
    assert path.shape == (3, 4, 8)
    for leg in range(3):
        assert (path[leg, 0] == ends[leg]).all()
        assert (path[leg, -1] == ends[(leg + 1) % 3]).all()
    assert began("interpolate", *line, "format=webp", "ease=false", "out=o")[0] == 0
    with Image.open("o/loop.webp") as shown:
        assert shown.n_frames == 9  # each leg's end is the next one's start
        assert shown.info["loop"] == 0
        expected = made(tiny_run, path[:, :-1].reshape(9, 8))
        for i, image in enumerate(expected):
            shown.seek(i)
            assert (np.asarray(shown.convert("RGB"))[:, :, 0] == image).all()


def test_a_traverse_moves_one_axis_a_row(began, tiny_run):
    line = [f"ckpt={tiny_run}", "path=traverse", "seeds=9", "steps=3", "format=npz"]
    assert began("interpolate", *line, "axes=[6,1]", "out=o")[0] == 0
    path = np.load("o/traverse.npz")["path"]
    z = latents.from_seeds([9], 8)[0].numpy()
    for row, axis in enumerate((6, 1)):
        assert path[row, :, axis].tolist() == [-1, 0, 1]
        assert (np.delete(path[row], axis, 1) == np.delete(z, axis)).all()
    code, out, _ = began("interpolate", *line, "rows=8", "out=p")
    assert code == 0
    order = [int(axis) for axis in re.search(r"from the top: (.*)", out)[1].split(", ")]
    assert sorted(order) == list(range(8))
    change = []
    for ends in np.load("p/traverse.npz")["path"][:, [0, -1]]:
        low, high = made(tiny_run, ends).astype(float)
        change.append(abs(high - low).mean())
    assert change == sorted(change, reverse=True)


def test_animations_are_eased(began, tiny_run):
    line = [f"ckpt={tiny_run}", "rows=1", "steps=5", "format=webp", "out=o"]
    assert began("interpolate", *line)[0] == 0
    a, b = latents.from_seeds([0, 1], 8)
    with Image.open("o/lerp.webp") as shown:
        shown.seek(1)
        quarter = np.asarray(shown.convert("RGB"))[:, :, 0]
    assert (quarter == made(tiny_run, torch.lerp(a, b, 5 / 32)[None])[0]).all()


def test_the_encoder_gives_the_first_start(began, digits, tmp_path, two):
    run = tmp_path / "ae"
    line = ["loss=ebgan", "model=began", f"dataset.root={digits}", "steps=2", *TINY]
    assert began("train", *line, "model.code_dim=8", f"hydra.run.dir={run}")[0] == 0
    search = ["search_lr=1e-9", "restarts=2", "search_steps=1", "start=encoder", "steps=2"]
    assert began("interpolate", f"ckpt={run}", "images=[a.png,b.png]", "out=o", *search)[0] == 0
    critic, _ = load(str(run), CPU).critic("start=encoder")
    reals = torch.stack([torch.from_numpy(np.array(Image.open(name)))[None] for name in two])
    code = critic(images.to_float(reals)).code.clamp(-1, 1)
    kept = np.load("o/lerp.npz")
    expected = np.abs(made_floats(run, code) - images.to_float(reals).numpy()).mean((1, 2, 3))
    assert kept["errors"][0] == pytest.approx(expected, rel=1e-4)

    assert began("train", *line, "model.code_dim=6", f"hydra.run.dir={run}6")[0] == 0
    code, _, err = began("interpolate", f"ckpt={run}6", "images=[a.png,b.png]", *search)
    assert code == 2
    assert "the critic's code has 6 numbers and a latent 8; use start=random" in err


def made_floats(run, z) -> np.ndarray:
    return load(str(run), CPU).network(z).numpy()


BAD = {
    "images=a.png": "a path goes between two, and there is 1",
    "images=[a.png,b.png] rows=2": "rows=2 wants 4 images, not 2",
    "images=[a.png,gone.png]": "images=gone.png: no such file",
    "images=text.png path=mirror": "text.png: cannot be read as an image",
    "images=[a.png,b.png] start=encoder": "gives scores, not reconstructions",
    "latents=gone.npz": "latents=gone.npz: cannot be read",
    "latents=text.png": "not an .npz with `latents`",
    "latents=long.npz": "has the shape 2x9, and this generator takes N x 8",
    "latents=nan.npz": "finite numbers",
    "latents=other.npz": "not an .npz with `latents`",
    "latents=code.npz": "not an .npz with `latents`",
    "path=traverse axes=8": "a latent has 8, counted from 0",
}


def test_bad_input_is_one_line_and_writes_nothing(began, tiny_run, two, tmp_path):
    (tmp_path / "text.png").write_text("no image")
    np.savez(tmp_path / "long.npz", latents=np.zeros((2, 9)))
    np.savez(tmp_path / "nan.npz", latents=np.full((2, 8), np.nan))
    np.savez(tmp_path / "other.npz", z=np.zeros((2, 8)))
    np.savez(tmp_path / "code.npz", latents=np.array([print], dtype=object))  # a pickle
    before = sorted(tmp_path.rglob("*"))
    for line, message in BAD.items():
        code, _, err = began("interpolate", f"ckpt={tiny_run}", *line.split())
        assert (code, err.count("\n")) == (2, 1), err
        assert message in err
    assert sorted(tmp_path.rglob("*")) == before


def test_webp_that_pillow_does_not_have(began, tiny_run, monkeypatch):
    monkeypatch.setattr(images.features, "check", lambda name: name != "webp")
    code, _, err = began("interpolate", f"ckpt={tiny_run}", "format=webp", "rows=1", "out=o")
    assert code == 2
    assert "format=webp: Pillow was built without WebP; use format=gif" in err

"""What the page shows, as tensors."""

import dataclasses
import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY
from PIL import Image

from began_cli import images
from began_cli.errors import UserError
from began_cli.explore import views
from began_cli.explore.views import Explorer
from began_cli.gan import latents
from began_cli.generators import checkpoint

CPU = torch.device("cpu")


@pytest.fixture
def explorer(tiny_run, tmp_path, monkeypatch) -> Explorer:
    """An explorer of outputs/mine, the tiny run."""
    (tmp_path / "outputs").mkdir()
    tiny_run.rename(tmp_path / "outputs" / "mine")
    monkeypatch.setattr(views, "list_pretrained", lambda: {"digits": tmp_path / "d.safetensors"})
    return Explorer(CPU)


def test_all_generators_by_run_and_step(explorer):
    path = checkpoint.find_all(explorer.root / "mine")[0]
    path.with_name("best-step-00000003.pt").write_bytes(path.read_bytes())
    found = explorer.find_all()
    assert list(found) == ["mine, best step 3", "mine, step 4", "pretrained/digits"]
    assert found["mine, step 4"] == str(path)


def test_a_file_is_read_again_only_if_it_changed(explorer):
    (path,) = map(str, checkpoint.find_all(explorer.root / "mine"))
    first = explorer.load(path)
    assert explorer.load(path) is first
    state = checkpoint.load(first.path)
    checkpoint.save(first.path, {**state, "step": 9})
    assert explorer.load(path).card["step"] == 9
    first.path.unlink()
    with pytest.raises(UserError, match="is gone: press Refresh"):
        explorer.load(path)


def test_side_by_side_only_with_latents_of_one_size(explorer, began, digits):
    line = ["train", "steps=1", f"dataset.root={digits}", "out=outputs/other", *TINY]
    assert began(*line, "model.latent_dim=6")[0] == 0
    other, mine = (explorer.find_all()[name] for name in ("other, step 1", "mine, step 4"))
    assert [each.card["step"] for each in explorer.pair(mine, mine)] == [4, 4]
    assert [each.card["step"] for each in explorer.pair(other, None)] == [1]
    with pytest.raises(UserError, match="latents have 8 numbers here and 6 beside"):
        explorer.pair(mine, other)


def test_a_walk_goes_through_its_ends(explorer):
    ends = views.read_ends("3, picture , 5-6")
    assert ends == ["3", "picture", "5", "6"]
    found = torch.full((8,), 0.5)
    z = views.find_latents(ends, 8, found)
    assert torch.equal(
        z, torch.stack([*latents.from_seeds([3], 8), found, *latents.from_seeds([5, 6], 8)])
    )
    for mode in ("lerp", "slerp"):
        path = views.walk(z, mode)
        assert torch.equal(path[:: views.FRAMES], z)
        assert len(path) == 3 * views.FRAMES + 1
    half = views.FRAMES // 2
    torch.testing.assert_close(views.walk(z, "lerp")[half], (z[0] + z[1]) / 2)
    for bad, known, message in (
        ("3", None, "a walk goes through 2 to 100 images"),
        ("", None, "a walk goes through 2 to 100 images"),
        ("0-1000", None, "a walk goes through 2 to 100 images"),
        ("3, picture", None, "no picture has been searched for"),
        ("3, picture", torch.zeros(6), "no picture has been searched for"),
        ("3, x", None, "^Through: cannot read x; write seeds"),
    ):
        with pytest.raises(UserError, match=message):
            views.walk(views.find_latents(views.read_ends(bad), 8, known), "lerp")


def test_a_picture_and_what_an_autoencoder_makes_of_it(explorer, began, digits):
    line = ["train", "loss=began_paper", "model=began", f"dataset.root={digits}", "steps=1"]
    assert began(*line, "out=outputs/ae", *TINY)[0] == 0
    pixels = np.random.default_rng(0).integers(0, 256, (20, 16, 4), np.uint8)
    Image.fromarray(pixels).save("a.png")
    trained = explorer.load(explorer.find_all()["ae, step 1"])
    made = views.judge(trained, "a.png")
    assert made.notes[0] == "cropped to the centre square"
    assert {"converted to grey", "stripped of transparency"} <= set(made.notes)
    critic, _ = trained.critic("D")
    x = images.to_float(made.picture[None])
    remade = critic(x).images
    assert torch.equal(made.remade, images.to_uint8(remade)[0])
    assert f"energy {(x - remade).abs().mean():.4g};" in made.report  # BEGAN's L(v)
    scores = views.judge(explorer.load(explorer.find_all()["mine, step 4"]), "a.png")
    assert scores.remade is None
    assert scores.report.startswith("the critic of loss=bgan gives scores")
    alone = views.judge(dataclasses.replace(trained, state=None), "a.png")  # as if exported
    assert alone.remade is None
    assert alone.report.startswith("this file holds the generator alone")


def test_a_search_finds_what_the_generator_made(explorer):
    trained = explorer.load(explorer.find_all()["mine, step 4"])
    images.save_png(views.draw(trained, latents.from_seeds([7], 8))[0], explorer.root / "seven.png")
    told = []
    seven = str(explorer.root / "seven.png")
    found = views.search(trained, seven, 2, 200, lambda *report: told.append(report))
    assert [step for step, _ in told][:2] == [25, 50]
    assert told[-1][1] <= told[0][1] < 0.02
    assert torch.equal(found.image, views.draw(trained, found.latents[None])[0])
    assert found.report.startswith("l1 error 0.0")
    assert "% of the best of 1,000 samples" in found.report


def png(width: int, height: int) -> bytes:
    """The head of a PNG that says it is so large."""
    head = b"IHDR" + struct.pack(">2I5B", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head))


def test_what_is_no_picture_gets_one_sentence(explorer, tmp_path):
    trained = explorer.load(explorer.find_all()["mine, step 4"])
    whole = io.BytesIO()
    Image.effect_noise((40, 40), 90).save(whole, "PNG")
    jpeg = io.BytesIO()
    Image.effect_noise((40, 40), 90).save(jpeg, "JPEG")
    bad = {
        "text.png": b"no image",
        "text.txt": b"no image",
        "empty.jpg": b"",
        "cut.png": whole.getvalue()[:700],
        "cut.jpg": jpeg.getvalue()[:200],
        "drawing.svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        "archive.zip": b"PK\x03\x04",
        "array.npy": b"\x93NUMPY",
        "bomb.png": png(60_000, 60_000),
        "nothing.png": png(0, 0),
    }
    for name, content in bad.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=f"^{name}: cannot be read as an image") as caught:
            views.judge(trained, str(tmp_path / name))
        assert str(tmp_path) not in str(caught.value)


def test_odd_pictures_are_shown(explorer, tmp_path):
    trained = explorer.load(explorer.find_all()["mine, step 4"])
    odd = {
        "one.png": Image.new("L", (1, 1), 255),
        "sixteen.png": Image.fromarray(np.full((20, 20), 65535, np.uint16)),
        "huge.png": Image.new("L", (8000, 8000), 255),
        "line.png": Image.new("L", (3000, 1), 255),
        "bit.png": Image.new("1", (20, 20), 1),
        "palette.gif": Image.new("P", (30, 30)),
        "ink.tif": Image.new("CMYK", (30, 300)),
        "clear.png": Image.new("RGBA", (30, 30)),
        "grey-alpha.png": Image.new("LA", (30, 30), (255, 255)),
        "float.tif": Image.new("F", (30, 30)),
        "float-white.tif": Image.new("F", (30, 30), 1.0),
    }
    white = {"float-white", "one", "sixteen", "huge", "line", "bit", "ink", "grey-alpha"}
    for name, image in odd.items():
        image.save(tmp_path / name)
        shown = views.judge(trained, str(tmp_path / name)).picture
        assert shown.shape == (1, 16, 16)
        assert (shown.max() >= 254) == (Path(name).stem in white), name

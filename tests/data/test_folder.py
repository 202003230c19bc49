"""Images of a folder: which are read, how they are decoded, and what becomes of broken ones."""

import numpy as np
import pytest
import torch
from conftest import settings
from PIL import Image

from began_cli.data import folder, sources
from began_cli.errors import UserError


def load(tmp_path, *overrides: str) -> sources.Source:
    line = ["dataset=folder", f"dataset.root={tmp_path}/p", "dataset.image_size=16", *overrides]
    return sources.load(settings("train", *line).dataset)


def put(tmp_path, name: str, image: Image.Image, **how) -> None:
    path = tmp_path / "p" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **how)


def test_folder_of_every_kind(tmp_path):
    put(tmp_path, "a.png", Image.new("L", (40, 30), 100))
    put(tmp_path, "deep/er/b.jpg", Image.new("RGB", (300, 200), (100, 100, 100)), quality=95)
    put(tmp_path, "c.webp", Image.new("RGB", (16, 16), (100, 100, 100)), lossless=True)
    put(tmp_path, "d.gif", Image.new("P", (20, 20), 0))
    put(tmp_path, "e.PNG", Image.new("RGBA", (20, 20), (100, 100, 100, 255)))
    put(tmp_path, "f.png", Image.fromarray(np.full((20, 20), 100 * 256, np.uint16)))
    put(tmp_path, ".hidden/g.png", Image.new("L", (20, 20), 7))
    (tmp_path / "p" / "notes.txt").write_text("not an image")
    images = load(tmp_path).images
    assert images.shape == (6, 3, 16, 16)
    levels = sorted(images.float().mean((1, 2, 3)).round().int().tolist())
    assert levels[1:] == [100] * 5


def test_centre_square_without_distortion(tmp_path):
    wide = np.zeros((20, 60), np.uint8)
    wide[:, 20:40] = 200  # the centre square
    put(tmp_path, "a.png", Image.fromarray(wide))
    image = load(tmp_path, "dataset.channels=1").images[0, 0]
    assert (image == 200).float().mean() == 1


def test_resizing_is_antialiased(tmp_path):
    """One-pixel stripes come out grey; without antialiasing they would be black or white."""
    stripes = np.tile(np.array([0, 255], np.uint8), (128, 64))
    put(tmp_path, "a.png", Image.fromarray(stripes))
    image = load(tmp_path, "dataset.channels=1").images[0, 0, 2:-2, 2:-2]
    assert 120 <= image.min() <= image.max() <= 135


def test_exif_rotation(tmp_path):
    upright = np.zeros((32, 32), np.uint8)
    upright[:16] = 255
    exif = Image.Exif()
    exif[274] = 6  # to be turned 90 degrees clockwise
    turned = Image.fromarray(np.rot90(upright, 1).copy())
    put(tmp_path, "a.png", turned, exif=exif)
    image = load(tmp_path, "dataset.channels=1").images[0, 0].float()
    assert image[:6].mean() > 250
    assert image[-6:].mean() < 5


@pytest.mark.parametrize("data", [b"", b"\x89PNG not one", "cut"])
def test_broken_image_is_named_or_skipped(tmp_path, data):
    put(tmp_path, "good.png", Image.new("L", (20, 20), 9))
    put(tmp_path, "bad.png", Image.effect_noise((64, 64), 50))
    bad = tmp_path / "p" / "bad.png"
    bad.write_bytes(bad.read_bytes()[:500] if data == "cut" else data)
    with pytest.raises(UserError, match=r"bad\.png"):
        load(tmp_path)
    source = load(tmp_path, "dataset.skip_broken=true")
    assert len(source.images) == 1
    assert source.images.max() == 9
    assert "1 of 2" in source.warning


def test_folder_missing_empty_or_all_broken(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        load(tmp_path)
    (tmp_path / "p").mkdir()
    with pytest.raises(UserError, match="no images"):
        load(tmp_path)
    (tmp_path / "p" / "a.png").touch()
    with pytest.raises(UserError, match="none of its 1"):
        load(tmp_path, "dataset.skip_broken=true")


def test_order_of_files_is_stable(tmp_path):
    for i in (3, 1, 2):
        put(tmp_path, f"{i}.png", Image.new("L", (16, 16), i * 50))
    images = load(tmp_path, "dataset.channels=1").images
    assert images[:, 0, 0, 0].tolist() == [50, 100, 150]
    assert images.dtype == torch.uint8


@pytest.mark.parametrize("channels", [1, 3])
def test_decoding_is_pillows_crop_and_resize(tmp_path, channels):
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    put(tmp_path, "a.png", Image.fromarray(noise))
    image = load(tmp_path, f"dataset.channels={channels}").images[0].permute(1, 2, 0)
    square = Image.fromarray(noise[:, 10:50]).convert("RGB" if channels == 3 else "L")
    expected = np.asarray(square.resize((16, 16), Image.Resampling.BICUBIC))
    assert (image.numpy() == expected.reshape(16, 16, channels)).all()


def put_five(tmp_path) -> None:
    for i in range(5):
        put(tmp_path, f"{i}.png", Image.effect_noise((40, 30), 60 + i))


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path):
    put_five(tmp_path)
    (tmp_path / "file").touch()
    source = load(tmp_path, f"dataset.cache={tmp_path}/file/x")
    assert len(source.images) == 5
    assert "dataset.cache" in source.warning


def test_broken_images_are_named_also_when_the_others_are_cached(tmp_path):
    put_five(tmp_path)
    (tmp_path / "p" / "bad.png").write_bytes(b"no")
    assert "1 of 6" in load(tmp_path, "dataset.skip_broken=true").warning
    assert "1 of 6" in load(tmp_path, "dataset.skip_broken=true").warning
    with pytest.raises(UserError, match=r"bad\.png"):
        load(tmp_path)
    assert not list((tmp_path / "xdg-cache" / "began").glob(".*"))


def test_a_glance_reads_some_and_writes_nothing(tmp_path, monkeypatch):
    put_five(tmp_path)
    decoded = []
    read_image = folder.read_image
    monkeypatch.setattr(folder, "read_image", lambda *a: decoded.append(a[0]) or read_image(*a))
    monkeypatch.setattr(folder, "GLANCE", 2)
    dataset = settings("train", "dataset=folder", f"dataset.root={tmp_path}/p").dataset
    source = sources.load(dataset, glance=True)
    assert (len(source.images), source.files, len(decoded)) == (2, 5, 2)
    assert not (tmp_path / "xdg-cache").exists()

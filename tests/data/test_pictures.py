import numpy as np
import pytest
from conftest import settings
from PIL import Image

from began_cli.data import pictures
from began_cli.errors import UserError

GREY = ("dataset=mnist",)  # 32x32x1, padded
COLOUR = ("dataset=folder", "dataset.root=x", "dataset.image_size=16")


def data(*line: str):
    return settings("train", *line).dataset


def save(path, array, mode=None):
    Image.fromarray(np.asarray(array, np.uint8), mode).save(path)


def test_what_fits_is_taken_as_it_is(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3))
    save(tmp_path / "a.png", pixels)
    given = pictures.load(str(tmp_path / "a.png"), data(*COLOUR))
    assert (given.images[0].permute(1, 2, 0).numpy() == pixels).all()
    assert given.names == ["a.png"]
    assert given.notes == []


def test_other_sizes_and_colours_are_converted_and_said(tmp_path):
    wide = np.zeros((20, 40, 3))
    wide[:, 10:30] = (255, 0, 0)  # the centre square
    save(tmp_path / "wide.png", wide)
    save(tmp_path / "grey.png", np.full((16, 16), 7))
    paths = [str(tmp_path / "wide.png"), str(tmp_path / "grey.png")]
    given = pictures.load(paths, data(*COLOUR))
    assert given.images[0].permute(1, 2, 0).reshape(-1, 3).unique(dim=0).tolist() == [[255, 0, 0]]
    assert given.images[1].unique().tolist() == [7]
    assert given.images.shape == (2, 3, 16, 16)
    assert given.notes == [
        "1 of 2 images cropped to the centre square",
        "1 of 2 images resized to 16x16",
        "1 of 2 images in grey where the model has colours",
    ]
    red = pictures.load(paths[:1], data(*COLOUR, "dataset.channels=1"))
    assert red.images.unique().tolist() == [76]  # 0.299 * 255, ITU-R 601
    assert "1 of 1 images converted to grey" in red.notes


def test_floats_go_from_0_to_1(tmp_path):
    pixels = np.random.default_rng(2).integers(0, 256, (16, 16))
    Image.fromarray((pixels / 255).astype(np.float32)).save(tmp_path / "a.tif")
    given = pictures.load(str(tmp_path / "a.tif"), data(*COLOUR))
    assert (given.images[0, 0].numpy() == pixels).all()
    assert given.notes == ["1 of 1 images in grey where the model has colours"]
    Image.fromarray(pixels.astype(np.float32)).save(tmp_path / "b.tif")
    with pytest.raises(UserError, match=r"go from \d+ to 255, not from 0 to 1"):
        pictures.load(str(tmp_path / "b.tif"), data(*COLOUR))


def test_small_images_are_padded_as_mnist_is(tmp_path):
    digit = np.random.default_rng(1).integers(1, 256, (28, 28))
    save(tmp_path / "digit.png", digit)
    given = pictures.load(str(tmp_path), data(*GREY))
    assert (given.images[0, 0, 2:30, 2:30].numpy() == digit).all()
    assert given.images.sum() == digit.sum()  # black around it
    assert given.notes == ["1 of 1 images padded with black to 32x32, as mnist is"]


def test_a_folder_is_read_by_name(tmp_path):
    for name in ("b.png", "a.jpg", ".hidden.png", "notes.txt"):
        if name.endswith("txt"):
            (tmp_path / name).write_text("")
        else:
            save(tmp_path / name, np.zeros((32, 32)))
    assert pictures.load(str(tmp_path), data(*GREY)).names == ["a.jpg", "b.png"]


def test_what_cannot_be_had(tmp_path):
    (tmp_path / "bad.png").write_bytes(b"\x89PNG no more")
    (tmp_path / "empty").mkdir()
    for named, said in {
        str(tmp_path / "bad.png"): "bad.png: cannot be read as an image",
        str(tmp_path / "empty"): "no images in that folder",
        "a.png,b.png": r"several are written images=\[a.png,b.png\]",
    }.items():
        with pytest.raises(UserError, match=said):
            pictures.load(named, data(*GREY))
    with pytest.raises(UserError, match="one image or more"):
        pictures.load([], data(*GREY))

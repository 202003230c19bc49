"""Pixels, sheets and files of images, against Pillow, NumPy and positions counted by hand."""

import math

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.utils import make_grid

from began_cli import images


def noise(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8)


def test_pixels_round_and_clip():
    v = torch.tensor([-2.0, -1.0, 0.0, 1.0, 3.0, -1 + 2 / 255]).view(6, 1, 1, 1)
    assert images.to_uint8(v).flatten().tolist() == [0, 0, 128, 255, 255, 1]
    every = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(images.to_uint8(images.to_float(every)), every)


def test_generated_pixels_are_not_rescaled_by_their_batch():
    """Mistake: fakes rescaled by the batch's own minimum and maximum (mimicry)."""
    faint = torch.full((2, 1, 4, 4), 0.1)
    assert images.to_uint8(faint).unique().tolist() == [140]  # (0.1 + 1) * 127.5


def test_bytes_become_minus_one_to_one_and_floats_stay():
    v = images.to_float(torch.tensor([0, 51, 255], dtype=torch.uint8))
    torch.testing.assert_close(v, torch.tensor([-1.0, -0.6, 1.0]))
    assert images.to_float(v) is v


def test_grey_is_pillows():
    """Pillow calculates in whole numbers: a value half-way may be rounded to the other side."""
    colours = noise(2, 3, 64, 64)
    grey = images.to_grey(colours)
    assert grey.shape == (2, 1, 64, 64)
    for image, ours in zip(colours, grey, strict=True):
        theirs = Image.fromarray(image.permute(1, 2, 0).numpy()).convert("L")
        assert np.abs(ours[0].numpy().astype(int) - np.asarray(theirs)).max() <= 1


@pytest.mark.parametrize("channels", [1, 3])
def test_a_grid_has_its_images_row_by_row_two_apart(channels):
    some = noise(5, channels, 6, 4)
    sheet = images.grid(some, 3)
    assert sheet.shape == (3, 2 * (6 + 2) + 2, 3 * (4 + 2) + 2)
    expected = torch.full_like(sheet, 255)
    for i, image in enumerate(some):
        top, left = 2 + i // 3 * 8, 2 + i % 3 * 6
        expected[:, top : top + 6, left : left + 4] = image
    assert torch.equal(sheet, expected)
    for n, columns in ((5, 3), (2, 8), (1, 1)):
        theirs = make_grid(some[:n], nrow=columns, padding=2, pad_value=255)
        assert torch.equal(images.grid(some[:n], columns), theirs)


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_paths_stand_in_their_order_between_framed_real_images(steps):
    path, reals = noise(2, steps, 1, 16, 16), noise(2, 2, 1, 16, 16)
    sheet = images.frame_paths(path, reals)
    # A column is 16 + 2 * 2 wide; 10 lie between real | first | path | last | real.
    lefts = {1: [0, 30, 60], 2: [0, 30, 60, 90], 4: [0, 30, 60, 80, 110, 140]}[steps]
    assert sheet.shape == (3, 14 + 2 * (20 + 2), lefts[-1] + 20)
    for row in range(2):
        top = 14 + row * 22
        shown = [reals[row, 0], *path[row], reals[row, 1]]
        for left, image in zip(lefts, shown, strict=True):
            frame = sheet[:, top : top + 20, left : left + 20]
            assert torch.equal(frame[:, 2:18, 2:18], image.expand(3, -1, -1))
            colour = (230, 120, 0) if left in (lefts[0], lefts[-1]) else (255, 255, 255)
            edge = torch.ones(20, 20, dtype=torch.bool)
            edge[2:18, 2:18] = False
            assert frame[:, edge].unique(dim=1).flatten().tolist() == list(colour)


def test_points_are_drawn_in_red_over_others_in_grey_with_y_upwards():
    points = torch.tensor([[0.0, 0.0], [0.6, 0.5], [3.0, 0.0]]).view(3, 2, 1, 1)  # one outside
    over = torch.tensor([[0.0, 0.0], [-1.0, 1.0]]).view(2, 2, 1, 1)
    picture = images.draw_points(points, over, side=10)
    expected = np.full((10, 10, 3), 255)
    expected[0:2, 0:2] = (190, 190, 190)
    expected[5:7, 5:7] = expected[2:4, 8:10] = (200, 30, 30)
    assert (picture.permute(1, 2, 0).numpy() == expected).all()


def test_columns_make_the_smallest_square():
    assert images.columns_for(0) == 1
    assert all(images.columns_for(n) == math.isqrt(n - 1) + 1 for n in range(1, 10_000))


@pytest.mark.parametrize("channels", [1, 3])
def test_png_files_have_the_same_pixels(tmp_path, monkeypatch, channels):
    monkeypatch.setattr(images, "AT_ONCE", 2)
    some = noise(5, channels, 6, 4)
    images.save_png(some[0], tmp_path / "one.png")
    paths = [tmp_path / f"{i}.png" for i in range(5)]
    images.save_pngs(some, paths)
    arrays = images.to_nhwc(some)
    assert arrays.shape == (5, 6, 4, channels)
    for path, array in zip([tmp_path / "one.png", *paths], arrays[[0, *range(5)]], strict=True):
        with Image.open(path) as shown:
            assert shown.mode == ("L" if channels == 1 else "RGB")
            assert (np.asarray(shown).reshape(6, 4, channels) == array).all()
    with pytest.raises(OSError, match="nowhere"):
        images.save_pngs(some[:1], [tmp_path / "nowhere" / "0.png"])


@pytest.mark.parametrize("ending", ["gif", "webp"])
def test_an_animation_has_its_frames_their_duration_and_no_end(tmp_path, ending):
    frames = [torch.full((3, 6, 4), 80 * i, dtype=torch.uint8) for i in range(3)]
    images.save_animation(frames, tmp_path / f"a.{ending}", fps=20)
    with Image.open(tmp_path / f"a.{ending}") as shown:
        assert (shown.n_frames, shown.info["loop"]) == (3, 0)
        for i, frame in enumerate(frames):
            shown.seek(i)
            assert (np.asarray(shown.convert("RGB")) == frame.permute(1, 2, 0).numpy()).all()
            assert shown.info["duration"] == 50

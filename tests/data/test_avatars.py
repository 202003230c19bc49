import hashlib

import numpy as np
import pytest
import torch

from began_cli.data import avatars
from began_cli.evaluation.avatars_classifier import ATTRIBUTES


@pytest.fixture(scope="module")
def test_images() -> torch.Tensor:
    return avatars.read("test", 64)


@pytest.mark.parametrize("size", [16, 32, 64])
def test_a_split_has_its_images_at_every_size(size):
    images = avatars.read("test", size)
    assert images.shape == (5000, 3, size, size)
    assert images.dtype == torch.uint8
    assert images.is_contiguous()


def test_the_training_images_are_20_000_and_nearly_all_differ():
    images = avatars.read("train", 16)
    assert images.shape == (20_000, 3, 16, 16)
    hashes = {hashlib.sha256(image.numpy().tobytes()).digest() for image in images}
    assert len(hashes) > 19_900


def test_the_corners_are_the_colour_of_the_background(test_images):
    background = avatars.read_attributes("test")[:, 0]
    colours = [0xB6E3F4, 0xC0AEDE, 0xD1D4F9, 0xFFD5DC, 0xFFDFBF]
    rgb = torch.tensor([[c >> 16, c >> 8 & 255, c & 255] for c in colours])
    for row, column in [(0, 0), (0, 63)]:  # the top: clothes reach into the corners below
        assert torch.equal(test_images[:, :, row, column].long(), rgb[background])


def test_blocks_of_two_by_two_pixels_are_averaged_and_a_half_goes_up():
    image = np.array([[0, 1, 10, 20], [2, 3, 30, 41], [255, 255, 0, 0], [255, 254, 0, 1]], np.uint8)
    # 6/4 = 1.5, 101/4 = 25.25, 1019/4 = 254.75, 1/4
    means = avatars.average_blocks(image[None, :, :, None], 2)
    assert means[0, :, :, 0].tolist() == [[2, 25], [255, 0]]
    assert means.dtype == np.uint8


def test_colours_and_images_are_averaged_apart():
    images = np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3)
    # The mean of 0, 3, 6, ... 45 is 22.5; the next colour has 1 more, the next image 48.
    assert avatars.average_blocks(images, 4).tolist() == [[[[23, 24, 25]]], [[[71, 72, 73]]]]


@pytest.mark.parametrize("size", [16, 32])
def test_smaller_images_are_means_of_the_large_ones(size, test_images):
    means = torch.nn.functional.avg_pool2d(test_images[-600:].double(), 64 // size)
    assert torch.equal(avatars.read("test", size)[-600:].long(), (means + 0.5).floor().long())


def test_the_attributes_are_those_that_the_style_says():
    train, test = avatars.read_attributes("train"), avatars.read_attributes("test")
    assert train.shape == (20_000, 11)
    assert test.shape == (5000, 11)
    # As DiceBear describes the seeds began-0, began-1 and began-20000.
    assert name_values(train[0]) == (
        *("purple", "brown", "auburn", "undercut", "long straight", "full"),
        *("wide", "angry", "sad", "turtleneck", "black"),
    )
    assert name_values(train[1]) == (
        *("pink", "rose", "golden", "side parting", "none", "none"),
        *("wide", "raised", "sad", "T-shirt", "white"),
    )
    assert name_values(test[0]) == (
        *("blue", "brown", "black", "bun", "neck high", "full"),
        *("humble", "angry", "agape", "shirt", "pink"),
    )


def test_every_value_occurs_and_no_other():
    for split in ("train", "test"):
        labels = avatars.read_attributes(split)
        for column, values in zip(labels.T, ATTRIBUTES.values(), strict=True):
            assert column.unique().tolist() == list(range(len(values)))


def name_values(row: torch.Tensor) -> tuple[str, ...]:
    return tuple(
        values[number] for values, number in zip(ATTRIBUTES.values(), row.tolist(), strict=True)
    )


@pytest.mark.parametrize(("split", "size"), [("train", 24), ("valid", 32)])
def test_another_split_or_size_is_refused(split, size):
    with pytest.raises(ValueError, match=rf"read\('{split}', {size}\): wants train or test"):
        avatars.read(split, size)

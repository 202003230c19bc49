from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from began_cli.data import avatars
from began_cli.evaluation import avatars_classifier
from began_cli.evaluation.avatars_classifier import (
    ATTRIBUTES,
    AvatarsClassifier,
    predict_attributes,
    split_logits,
)

N = 1000  # of the test images
WEIGHTS = Path(avatars_classifier.__file__).parent / "avatars-cnn.safetensors"


@pytest.fixture(scope="module")
def model() -> AvatarsClassifier:
    made = AvatarsClassifier()
    made.load_state_dict(load_file(WEIGHTS))
    return made.eval().requires_grad_(False)


@pytest.mark.parametrize(("size", "fine"), [(32, 0.9), (64, 0.9), (16, 0.5)])
def test_the_values_that_the_images_were_drawn_from_are_found(model, size, fine):
    features, logits = model(avatars.read("test", size)[:N])
    assert features.shape == (N, 128)
    assert features.min() == 0
    assert (features.amax(0) > 0).all()  # no feature is always 0
    right = (predict_attributes(logits) == avatars.read_attributes("test")[:N]).double().mean(0)
    found = dict(zip(ATTRIBUTES, right.tolist(), strict=True))
    for name in ("background", "skin", "hair_colour", "hair", "rear_hair", "clothes_colour"):
        assert found[name] > 0.99, name
    for name in ("beard", "eyes", "eyebrows", "clothes"):  # lines of a pixel or less
        assert found[name] > fine, name


def test_larger_images_are_averaged_down(model):
    generator = torch.Generator().manual_seed(0)
    large = torch.randint(0, 256, (4, 3, 128, 128), dtype=torch.uint8, generator=generator)
    means = F.avg_pool2d(large.float(), 4).round().byte()
    # Half a level of rounding in a pixel, of 255.
    torch.testing.assert_close(model(large)[0], model(means)[0], rtol=0.05, atol=0.05)


def test_an_image_has_the_features_that_it_has_alone(model):
    images = avatars.read("test", 32)[:8]
    together = model(images)[0]
    alone = torch.cat([model(image[None])[0] for image in images])
    # The sums are in another order; the features are of the order of 1.
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)


def test_logits_are_split_in_the_order_of_the_attributes():
    logits = torch.zeros(1, 60)
    # Of background 5, skin 5, hair colour 5, hair 4: the last hair is column 18.
    logits[0, [4, 5, 11, 18]] = 1
    logits[0, 59] = 2
    logits[0, 50] = 1  # the first colour of the clothes is less likely than the last
    parts = split_logits(logits)
    assert [part.shape[1] for part in parts.values()] == [5, 5, 5, 4, 5, 6, 5, 5, 5, 5, 10]
    assert parts["hair"].tolist() == [[0, 0, 0, 1]]
    assert predict_attributes(logits).tolist() == [[4, 0, 1, 3, 0, 0, 0, 0, 0, 0, 9]]

import torch
from torch.nn import functional as F

from began_cli.evaluation.classifier import CLASSES, FEATURES, SIDE, Classifier


def test_features_and_logits_by_hand():
    torch.manual_seed(0)
    model = Classifier().eval()
    pixels = torch.randint(0, 256, (3, 1, SIDE, SIDE), dtype=torch.uint8)
    features, logits = model(pixels)
    assert features.shape == (3, FEATURES)
    assert logits.shape == (3, CLASSES)
    assert features.min() >= 0
    w = model.state_dict()
    x = pixels / 255
    for i in range(3):
        x = F.conv2d(x, w[f"stages.{i}.weight"], w[f"stages.{i}.bias"], padding=1).clamp(min=0)
        x = x.unfold(2, 2, 2).unfold(3, 2, 2).amax((-1, -2))
    x = (x.flatten(1) @ w["hidden.weight"].T + w["hidden.bias"]).clamp(min=0)
    torch.testing.assert_close(features, x)
    torch.testing.assert_close(logits, x @ w["out.weight"].T + w["out.bias"])


def test_an_image_does_not_depend_on_its_batch_and_other_sizes_are_resized():
    model = Classifier().eval()
    pixels = torch.randint(0, 200, (4, 1, 64, 64), dtype=torch.uint8)
    white = pixels.new_full((1, 1, 64, 64), 255)
    alone, beside = model(pixels)[0], model(torch.cat([pixels, white]))[0]
    assert alone.shape == (4, FEATURES)
    torch.testing.assert_close(beside[:4], alone)

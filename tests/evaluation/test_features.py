import gzip
import hashlib

import numpy as np
import pytest
import torch
from torch import nn

from began_cli.data.sources import SHIPPED as TEST_DIGITS
from began_cli.errors import UserError
from began_cli.evaluation import features
from began_cli.evaluation.features import build
from began_cli.evaluation.scores import Options, evaluate

CPU = torch.device("cpu")
GREY, COLOUR = (1, 32, 32), (3, 32, 32)


def pictures(n: int, channels: int = 1, side: int = 32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    shape = (n, channels, side, side)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def digits(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The first images of MNIST's test split, padded, and their labels."""
    data = gzip.decompress((TEST_DIGITS / "t10k-images-idx3-ubyte.gz").read_bytes())
    pixels = np.frombuffer(data, np.uint8, offset=16).reshape(-1, 1, 28, 28)[:n]
    labels = gzip.decompress((TEST_DIGITS / "t10k-labels-idx1-ubyte.gz").read_bytes())
    padded = np.pad(pixels, ((0, 0), (0, 0), (2, 2), (2, 2)))
    return torch.from_numpy(padded), torch.frombuffer(
        bytearray(labels[8 : 8 + n]), dtype=torch.uint8
    )


@pytest.fixture(scope="module")
def test_split() -> tuple[features.Features, torch.Tensor]:
    """The features of MNIST's 10,000 test images by mnist-cnn, and their labels."""
    images, labels = digits(10_000)
    return build("mnist-cnn", None, GREY, False, CPU)(images, 500, CPU), labels


def test_mnist_cnn_is_small_and_right_on_99_in_100(test_split):
    made, labels = test_split
    assert (made.logits.argmax(1) == labels).float().mean() >= 0.99
    assert made.features.shape == (10_000, 128)
    file = features.HOME / "mnist-cnn.safetensors"
    assert file.stat().st_size <= 1_000_000
    label = build("mnist-cnn", None, GREY, False, CPU).label
    assert label == f"mnist-cnn@{hashlib.sha256(file.read_bytes()).hexdigest()[:8]}"


def test_fashion_cnn_is_another_network_and_as_small():
    images = digits(20)[0]
    fashion = build("fashion-cnn", None, GREY, False, CPU)
    assert (features.HOME / "fashion-cnn.safetensors").stat().st_size <= 1_000_000
    assert fashion.label.startswith("fashion-cnn@")
    assert fashion.sha256 != build("mnist-cnn", None, GREY, False, CPU).sha256
    assert fashion(images, 20, CPU).logits.shape == (20, 10)


def test_halves_of_mnist_give_the_floor(test_split):
    """Halves of the same digits are near, and far from a half without its last digit."""
    made, labels = test_split
    order = torch.randperm(10_000, generator=torch.Generator().manual_seed(0))
    first, second = (
        features.Features(made.features[rows], made.logits[rows]) for rows in order.split(5000)
    )
    names = ["fid", "kid", "is"]
    floor = evaluate(second, first, Options(kid_subsets=10), names)
    kept = labels[order[5000:]] != 9
    lacking = features.Features(second.features[kept], second.logits[kept])
    worse = evaluate(lacking, first, Options(kid_subsets=10), names)
    assert 0 < floor["fid"] < 0.1 * worse["fid"]
    assert abs(floor["kid"]) < 0.1 * worse["kid"]
    assert 9.5 < floor["is"] <= 10  # ten digits, each beyond doubt


def test_fakes_rescaled_by_the_batchs_own_min_and_max_before_fid():
    """mimicry does that; here an image's features do not depend on what else is in its batch."""
    dim = pictures(4) // 8
    bright = torch.full((1, 1, 32, 32), 255, dtype=torch.uint8)
    for name in ("mnist-cnn", "pixels"):
        extractor = build(name, None, GREY, False, CPU)
        alone = extractor(dim, 4, CPU).features
        beside = extractor(torch.cat([dim, bright]), 5, CPU).features[:4]
        torch.testing.assert_close(alone, beside)
    assert alone.max() <= 31 / 255  # pixels over 255, whatever the brightest is


def test_batch_size_changes_nothing():
    images = digits(50)[0]
    extractor = build("mnist-cnn", None, GREY, False, CPU)
    whole = extractor(images, 50, CPU)
    for size in (1, 7, 49):
        torch.testing.assert_close(extractor(images, size, CPU).features, whole.features)


def test_each_channel_is_a_digit():
    images, labels = digits(30)
    stacked = torch.cat([images[:10], images[10:20], images[20:]], dim=1)
    extractor = build("mnist-cnn", None, COLOUR, True, CPU)
    made = extractor(stacked, 4, CPU)
    assert extractor.name == "mnist-cnn-per-channel"
    assert not extractor.classifies
    assert made.features.shape == (10, 3 * 128)
    single = build("mnist-cnn", None, GREY, False, CPU)(images, 30, CPU)
    torch.testing.assert_close(made.features[:, 128:256], single.features[10:20])
    expected = torch.stack([labels[:10], labels[10:20], labels[20:]], dim=1)
    assert (made.logits.argmax(2) == expected).float().mean() > 0.95


def test_other_sizes_are_brought_to_the_classifiers():
    images, labels = digits(200)
    doubled = images.repeat_interleave(2, 2).repeat_interleave(2, 3)
    made = build("mnist-cnn", None, (1, 64, 64), False, CPU)(doubled, 50, CPU)
    assert (made.logits.argmax(1) == labels).float().mean() > 0.97


def test_colour_to_a_grey_network_is_said():
    extractor = build("mnist-cnn", None, COLOUR, False, CPU)
    assert extractor.note == "the colour images are made grey for mnist-cnn"
    grey = pictures(3)
    same = extractor(grey.expand(-1, 3, -1, -1), 3, CPU).features
    torch.testing.assert_close(same, extractor(grey, 3, CPU).features)


def test_pixels_are_averaged_down_to_32():
    image = pictures(2, 3, 64)
    made = build("pixels", None, (3, 64, 64), False, CPU)(image, 2, CPU)
    means = image.numpy().reshape(2, 3, 32, 2, 32, 2).mean((3, 5)).reshape(2, -1) / 255
    assert made.features.numpy() == pytest.approx(means, rel=1e-5)
    assert made.logits is None


# --- files of the user's --------------------------------------------------------------------------


class Means(nn.Module):
    """The mean of each channel, and logits; only for three channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mix = nn.Conv2d(channels, channels, 1, bias=False)
        nn.init.dirac_(self.mix.weight)

    def forward(self, pixels):
        means = self.mix(pixels.float()).mean((2, 3))
        return means, means * 2


def saved(folder, kind: str, channels: int) -> str:
    model = Means(channels).eval()
    if kind == ".pt2":
        batch = {"pixels": {0: torch.export.Dim("n", min=2, max=4096)}}
        program = torch.export.export(model, (pictures(2, channels),), dynamic_shapes=batch)
        torch.export.save(program, folder / "mine.pt2")
    else:
        torch.jit.script(model).save(str(folder / f"mine{kind}"))
    return str(folder / f"mine{kind}")


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("kind", [".pt", ".pts", ".pt2"])
def test_a_network_of_the_users(tmp_path, kind):
    path = saved(tmp_path, kind, 3)
    extractor = build(path, None, COLOUR, False, CPU)
    images = pictures(7, 3)
    made = extractor(images, 3, CPU)
    expected = images.float().mean((2, 3))
    torch.testing.assert_close(made.features, expected)
    torch.testing.assert_close(made.logits, 2 * expected)
    assert extractor.classifies
    with open(path, "rb") as file:
        assert extractor.label == f"mine@{hashlib.sha256(file.read()).hexdigest()[:8]}"


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning", "ignore::DeprecationWarning")
def test_grey_images_to_an_rgb_network_are_converted_and_said(tmp_path):
    extractor = build(saved(tmp_path, ".pt", 3), None, GREY, False, CPU)
    assert extractor.note == "the grey images are made colour for mine"
    images = pictures(4)
    expected = images.float().mean((2, 3)).expand(-1, 3)
    torch.testing.assert_close(extractor(images, 4, CPU).features, expected)


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning", "ignore::DeprecationWarning")
def test_networks_of_no_use(tmp_path):
    class Sum(nn.Module):
        def forward(self, pixels):
            return pixels.float().sum()

    torch.jit.script(Sum()).save(str(tmp_path / "sum.pt"))
    with pytest.raises(UserError, match="neither features"):
        build(str(tmp_path / "sum.pt"), None, GREY, False, CPU)
    with pytest.raises(UserError, match="does not take uint8 images"):
        build(saved(tmp_path, ".pts", 7), None, GREY, False, CPU)
    for name in ("bad.pt", "bad.pt2"):
        (tmp_path / name).write_bytes(b"no network")
        with pytest.raises(UserError, match="cannot be read as"):
            build(str(tmp_path / name), None, GREY, False, CPU)


@pytest.mark.parametrize(
    ("name", "weights", "why"),
    [
        ("incepton", None, "extractor=incepton: no such extractor; there are mnist-cnn"),
        ("gone.pt", None, r"extractor=gone\.pt: no such file"),
        ("inception", "gone.pth", r"weights=gone\.pth: no such file"),
        ("pixels", "gone.pth", r"weights=gone\.pth: only extractor=inception"),
    ],
)
def test_no_such_extractor_or_weights(name, weights, why):
    with pytest.raises(UserError, match=why):
        build(name, weights, GREY, False, CPU)


# --- Inception ------------------------------------------------------------------------------------


def test_inception_without_a_network(tmp_path, monkeypatch):
    def unreachable(*line, **how):
        raise OSError("no network in the tests")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr("torch.hub.download_url_to_file", unreachable)
    with pytest.raises(UserError, match=r"give the file weights-inception.* as weights="):
        build("inception", None, COLOUR, False, CPU)
    assert not (tmp_path / "torch").exists()


def test_a_file_that_is_not_inceptions(tmp_path):
    class Code:
        def __reduce__(self):
            return (open, (str(tmp_path / "run"), "w"))

    (tmp_path / "text.pth").write_text("no weights")
    torch.save({"weight": torch.zeros(2)}, tmp_path / "other.pth")
    torch.save(Code(), tmp_path / "code.pth")
    for name in ("text", "other", "code"):
        with pytest.raises(UserError, match=f"{name}.pth: not torch-fidelity's weights"):
            build("inception", str(tmp_path / f"{name}.pth"), COLOUR, False, CPU)
    assert not (tmp_path / "run").exists()  # the code in the file did not run


def test_inception_from_a_file(tmp_path, monkeypatch):
    """Random weights in torch-fidelity's own network: its features, and grey made colour."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    load = FeatureExtractorInceptionV3.load_state_dict
    monkeypatch.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda *_: None)
    wanted = ["2048", "logits_unbiased"]
    torch.save({}, tmp_path / "empty.pth")
    network = FeatureExtractorInceptionV3(
        "inception", wanted, feature_extractor_weights_path=str(tmp_path / "empty.pth")
    )
    torch.save(network.state_dict(), tmp_path / "w.pth")
    monkeypatch.setattr(FeatureExtractorInceptionV3, "load_state_dict", load)

    extractor = build("inception", str(tmp_path / "w.pth"), GREY, False, CPU)
    assert extractor.note == "the grey images are made colour for inception"
    images = pictures(1)
    made = extractor(images, 1, CPU)
    expected = network(images.expand(-1, 3, -1, -1))
    torch.testing.assert_close(made.features, expected[0])
    torch.testing.assert_close(made.logits, expected[1])
    assert made.features.shape == (1, 2048)

import hashlib

import numpy as np
import pytest
import torch
from conftest import settings, write_idx

from began_cli.data import avatars, sources
from began_cli.errors import UserError
from began_cli.settings.fields import GROUPS


def load(*overrides: str) -> sources.Source:
    return sources.load(settings("train", *overrides).dataset)


def load_test(*overrides: str) -> sources.Source:
    return sources.load_test(settings("train", *overrides).dataset)


def test_shipped_mnist_is_the_fallback_and_says_so():
    source = load("dataset.root=nowhere")
    assert source.images.shape == (10_000, 1, 32, 32)
    assert "10,000" in source.warning
    assert source.images[0, 0, 2:30, 2:30].sum() == 18454  # the first test digit, a 7
    assert source.images[:, :, :2].sum() == source.images[:, :, :, 30:].sum() == 0  # padded


def test_fallback_refused():
    with pytest.raises(UserError, match=r"dataset\.fallback=true"):
        load("dataset.root=nowhere", "dataset.fallback=false")


@pytest.mark.parametrize("place", ["", "mnist", "MNIST/raw"])
@pytest.mark.parametrize("ending", ["", ".gz"])
def test_mnist_layouts(tmp_path, place, ending):
    pixels = np.random.default_rng(1).integers(0, 256, (5, 28, 28))
    write_idx(tmp_path / "d" / place / f"train-images-idx3-ubyte{ending}", pixels)
    source = load(f"dataset.root={tmp_path}/d")
    assert source.warning is None
    assert (source.images[:, 0, 2:30, 2:30].numpy() == pixels).all()


def test_sizes_and_colours(digits):
    assert load(f"dataset.root={digits}", "dataset.image_size=64").images.shape[2:] == (64, 64)
    assert load(f"dataset.root={digits}", "dataset.image_size=16").images.shape[2:] == (16, 16)
    colour = load(f"dataset.root={digits}", "dataset.channels=3").images
    assert (colour[:, 0] == colour[:, 2]).all()


def test_hash_is_of_shape_and_pixels(digits):
    source = load(f"dataset.root={digits}")
    expected = hashlib.sha256(b"(200, 1, 32, 32)" + source.images.numpy().tobytes()).hexdigest()
    assert source.sha256 == expected


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-9], lambda b: b[:12], lambda b: b"", lambda b: b"x" * 99]
)
@pytest.mark.parametrize("ending", ["", ".gz"])
def test_damaged_idx_is_named(digits, damage, ending):
    good = next(digits.iterdir())
    name = f"train-images-idx3-ubyte{ending}"
    import gzip

    data = good.read_bytes() if ending else gzip.decompress(good.read_bytes())
    good.unlink()
    (digits / name).write_bytes(damage(data))
    with pytest.raises(UserError, match=name):
        load(f"dataset.root={digits}")


@pytest.mark.parametrize("shape", [(0, 28, 28), (4, 2, 3)])
def test_idx_of_no_use(tmp_path, shape):
    write_idx(tmp_path / "d" / "train-images-idx3-ubyte", np.zeros(shape))
    with pytest.raises(UserError, match="images of"):
        load(f"dataset.root={tmp_path}/d")


def test_cifar10_is_read(tmp_path, monkeypatch):
    import pickle

    from torchvision.datasets import CIFAR10

    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (5, 3, 32, 32), dtype=np.uint8)
    for name, _ in CIFAR10.train_list:
        rows = {"data": pixels.reshape(5, -1), "labels": [0] * 5}
        (folder / name).write_bytes(pickle.dumps(rows))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": []}))
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
    source = load("dataset=cifar10", f"dataset.root={tmp_path}")
    assert (source.images[:5].numpy() == pixels).all()
    other = {"data": 255 - pixels.reshape(5, -1), "labels": [0] * 5}
    (folder / "test_batch").write_bytes(pickle.dumps(other))
    assert (
        load_test("dataset=cifar10", f"dataset.root={tmp_path}").images.numpy() == 255 - pixels
    ).all()
    grey = load("dataset=cifar10", f"dataset.root={tmp_path}", "dataset.channels=1").images
    expected = np.round(pixels.transpose(0, 2, 3, 1) @ [0.299, 0.587, 0.114])
    assert np.abs(grey[:5, 0].numpy() - expected).max() <= 1


def test_stacked_mnist_is_triples_of_digits_the_same_ones_every_time(digits):
    line = ("dataset=stacked_mnist", f"dataset.root={digits}", "dataset.image_size=16")
    source = load(*line)
    assert source.images.shape == (128_000, 3, 16, 16)
    assert source.images.dtype == torch.uint8
    assert source.sha256 == load(*line).sha256
    single = load(f"dataset.root={digits}", "dataset.image_size=16").images.flatten(1)
    number = {row.numpy().tobytes(): i for i, row in enumerate(single)}
    shown = source.images[:3000].flatten(2).numpy()
    chosen = np.array([[number[digit.tobytes()] for digit in triple] for triple in shown])
    counts = np.bincount(chosen.flatten(), minlength=200)  # 45 of each, give or take
    assert 15 < counts.min() <= counts.max() < 85
    assert np.abs(np.corrcoef(chosen.T) - np.eye(3)).max() < 0.08  # one says nothing of another


def test_stacked_mnist_of_the_shipped_digits_says_so():
    source = load("dataset=stacked_mnist", "dataset.root=nowhere", "dataset.image_size=16")
    assert "10,000" in source.warning
    with pytest.raises(UserError, match="three digits"):
        load("dataset=stacked_mnist", "dataset.channels=1")


# --- test splits ----------------------------------------------------------------------------------


def test_the_test_split_is_beside_the_training_images(digits):
    pixels = np.random.default_rng(2).integers(0, 256, (5, 28, 28))
    for dataset in ("mnist", "fashion_mnist"):
        write_idx(digits / "t10k-images-idx3-ubyte.gz", pixels)
        source = load_test(f"dataset={dataset}", f"dataset.root={digits}")
        assert (source.images[:, 0, 2:30, 2:30].numpy() == pixels).all()
        assert source.origin == str(digits / "t10k-images-idx3-ubyte.gz")


def test_the_test_split_of_mnist_is_shipped(digits):
    test = load_test(f"dataset.root={digits}")
    assert test.sha256 == load("dataset.root=nowhere").sha256


def test_triples_of_test_digits(digits):
    pixels = np.zeros((2, 28, 28))
    pixels[1] = 255
    write_idx(digits / "t10k-images-idx3-ubyte.gz", pixels)
    line = ("dataset=stacked_mnist", f"dataset.root={digits}", "dataset.image_size=16")
    source = load_test(*line)
    assert source.images.shape == (52_000, 3, 16, 16)
    centre = source.images[:, :, 8, 8].numpy()
    assert set(np.unique(centre)) == {0, 255}
    assert np.abs(centre.mean(0) / 255 - 0.5).max() < 0.02


def test_the_test_avatars():
    source = load_test("dataset=avatars", "dataset.image_size=16")
    assert torch.equal(source.images, avatars.read("test", 16))


def test_no_test_split(tmp_path):
    for line, why in (
        ("dataset=folder dataset.root=x", "dataset=folder has no test split"),
        (f"dataset=fashion_mnist dataset.root={tmp_path}", "root: no t10k-images-idx3-ubyte.gz in"),
    ):
        with pytest.raises(UserError, match=why):
            load_test(*line.split())


def test_ring_is_evenly_spaced_gaussians():
    points = load("dataset=ring").images
    assert points.shape == (50_000, 2, 1, 1)
    x, y = points.flatten(1).double().numpy().T
    centres = 0.75 * np.exp(2j * np.pi * np.arange(8) / 8)
    distance = np.abs((x + 1j * y)[:, None] - centres)
    nearest = distance.argmin(1)
    assert np.bincount(nearest).min() > 5_900  # of 6,250
    assert np.sqrt((distance.min(1) ** 2).mean() / 2) == pytest.approx(0.02, rel=0.02)


def test_the_judges_of_the_data_sets():
    classifiers = {
        name: sources.judge(name).classifier
        for name in GROUPS["dataset"]
        if sources.judge(name).classifier
    }
    assert classifiers == {
        "mnist": "mnist-cnn",
        "fashion_mnist": "fashion-cnn",
        "stacked_mnist": "mnist-cnn",
        "avatars": "avatars-cnn",
    }
    assert [name for name in GROUPS["dataset"] if sources.judge(name).per_channel] == [
        "stacked_mnist"
    ]
    assert sources.judge("stacked_mnist").samples == 26_000  # as in PacGAN's table
    assert sources.judge("cifar10").samples == 10_000

import numpy as np
import pytest
import torch

from began_cli.evaluation import coverage
from began_cli.evaluation.features import Features


def test_modes_and_kl_by_hand():
    """Shares 1/2, 1/4, 1/4 of four modes: KL = 1/2 ln 2 + 2 (1/4 ln 1) = 0.3466."""
    made = coverage.modes_and_kl(torch.tensor([0, 0, 3, 1]), 4)
    assert made == {"modes": 3, "modes_kl": pytest.approx(0.5 * np.log(2))}


def test_modes_and_kl_at_the_ends():
    assert coverage.modes_and_kl(torch.arange(1000), 1000) == {"modes": 1000, "modes_kl": 0}
    one = coverage.modes_and_kl(torch.full((26_000,), 7), 1000)
    assert one == {"modes": 1, "modes_kl": pytest.approx(np.log(1000))}


def test_a_perfect_sampler_of_stacked_mnist():
    """26,000 even samples: all modes, and KL about 999 / 52,000 = 0.019."""
    labels = torch.randint(1000, (26_000,), generator=torch.Generator().manual_seed(0))
    made = coverage.modes_and_kl(labels, 1000)
    assert made["modes"] == 1000
    assert made["modes_kl"] == pytest.approx(0.0195, abs=0.001)


def test_labels_of_three_digits_are_one_number():
    digits = torch.tensor([[3, 1, 4], [0, 0, 9]])
    made = Features(torch.zeros(2, 1), torch.eye(10)[digits])
    assert coverage.label_classes(made.logits)[0].tolist() == [314, 9]
    assert coverage.label_classes(made.logits)[1] == 1000
    single = Features(torch.zeros(3, 1), torch.eye(10)[[5, 0, 9]])
    assert coverage.label_classes(single.logits)[0].tolist() == [5, 0, 9]


def test_bins_that_differ_by_hand():
    """Of 100 each: 50 against 50; 30 against 40 (z = -1.48); 20 against 10 (z = 1.98)."""
    fake, real = torch.tensor([50, 30, 20]), torch.tensor([50, 40, 10])
    assert coverage.different_bins(fake, real) == pytest.approx(1 / 3)
    assert coverage.different_bins(fake, fake) == 0
    assert coverage.different_bins(torch.tensor([0, 5]), torch.tensor([0, 9])) == 0  # empty bin


def blobs(per: int, seed: int, centres=((0, 0), (10, 0), (0, 10))) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    each = [torch.tensor(c).float() + torch.randn(per, 2, generator=generator) for c in centres]
    return torch.cat(each)


def test_kmeans_finds_the_blobs_and_their_means():
    x = blobs(200, 0)
    centres = coverage.kmeans(x, 3, seed=0)
    means = torch.stack([x[i * 200 : (i + 1) * 200].mean(0) for i in range(3)])
    order = torch.cdist(means, centres).argmin(1)
    assert sorted(order.tolist()) == [0, 1, 2]
    torch.testing.assert_close(centres[order], means)


def test_kmeans_of_fewer_points_than_centres_that_differ():
    x = torch.tensor([[0.0], [1.0]]).repeat(10, 1)
    centres = coverage.kmeans(x, 4, seed=0)
    assert set(centres.flatten().tolist()) == {0.0, 1.0}


def test_ndb_sees_a_missing_blob_and_no_more_than_chance_otherwise():
    real = blobs(300, 0)
    missing = blobs(300, 1)[:600]
    assert coverage.ndb(missing, real, 3, seed=0) == 1  # the missing one, and both others' shares
    assert coverage.ndb(blobs(300, 2), real, 3, seed=0) == 0
    state = torch.get_rng_state()
    many = coverage.ndb(blobs(3000, 3), blobs(3000, 4), 100, seed=0)
    assert many < 0.12  # 5 % by chance, and a little for bins that were fitted to one of the two
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("chunk", [7, 4096])
def test_nearest_by_a_loop(chunk, monkeypatch):
    monkeypatch.setattr(coverage, "CHUNK", chunk)
    generator = torch.Generator().manual_seed(0)
    data = torch.randint(0, 256, (30, 3, 4, 4), dtype=torch.uint8, generator=generator)
    images = torch.randint(0, 256, (5, 3, 4, 4), dtype=torch.uint8, generator=generator)
    found = coverage.nearest(images, data, 3)
    flat = data.numpy().reshape(30, -1).astype(float)
    for i, image in enumerate(images.numpy().reshape(5, -1).astype(float)):
        distance = np.sqrt(((flat - image) ** 2).mean(1))
        assert found.rows[i].tolist() == np.argsort(distance)[:3].tolist()
        assert found.distance[i].numpy() == pytest.approx(np.sort(distance)[:3], rel=1e-4)


def test_a_copy_is_at_distance_0_unless_it_is_the_image_itself():
    data = torch.arange(20, dtype=torch.uint8).mul(10).view(20, 1, 1, 1).expand(20, 1, 4, 4)
    rows = torch.tensor([4, 11])
    assert coverage.nearest(data[rows], data, 1).distance.flatten().tolist() == [0, 0]
    apart = coverage.nearest(data[rows], data, 1, apart=rows)
    assert apart.distance.flatten().tolist() == [10, 10]

import math
import random

import numpy as np
import pytest
import torch
from scipy.stats import mannwhitneyu
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors

from began_cli.evaluation import copying
from began_cli.evaluation.copying import Copying, find_nearest, mann_whitney_z


def mixture(n: int, seed: int, d: int = 8) -> torch.Tensor:
    """Points around three centres far apart, float32 (n, d)."""
    generator = torch.Generator().manual_seed(seed)
    centres = 20 * torch.eye(d)[:3]
    which = torch.randint(3, (n,), generator=generator)
    return centres[which] + torch.randn(n, d, generator=generator)


def plant(samples: torch.Tensor, train: torch.Tensor, share: float) -> torch.Tensor:
    """The samples with the first `share` of them replaced by training points."""
    n = round(share * len(samples))
    return torch.cat([train[:n], samples[n:]])


TRAIN, TEST, FRESH = mixture(2000, 0), mixture(1000, 1), mixture(1000, 2)


def authpct_by_loops(samples: np.ndarray, train: np.ndarray) -> float:
    authentic = 0
    for x in samples:
        nearest = min(range(len(train)), key=lambda i: np.linalg.norm(x - train[i]))
        own = min(
            np.linalg.norm(train[nearest] - train[i]) for i in range(len(train)) if i != nearest
        )
        authentic += np.linalg.norm(x - train[nearest]) > own
    return 100 * authentic / len(samples)


def test_authpct_is_the_double_loop(monkeypatch):
    monkeypatch.setattr(copying, "CHUNK", 17)  # so that a chunk ends within the data
    train, samples = TRAIN[:80], plant(FRESH[:50], TRAIN, 0.1)
    made = Copying(train, 1, 0).authpct(samples)
    assert made == pytest.approx(authpct_by_loops(samples.numpy(), train.numpy()))
    assert 0 < made < 90


def c_t_by_the_authors_formulas(samples, test, train, cells_of) -> float:
    """Z_U in each cell by SciPy's U and scikit-learn's neighbours; the mean weighted by P_n."""
    total = weight = 0.0
    for cell in np.unique(cells_of(train)):
        here, there, own = (x[cells_of(x) == cell] for x in (samples, test, train))
        if len(here) / len(samples) < 20 / len(samples):
            continue
        search = NearestNeighbors(n_neighbors=1).fit(own)
        q, p = (search.kneighbors(x)[0][:, 0] for x in (here, there))
        m, n = len(q), len(p)
        u = mannwhitneyu(q, p).statistic
        total += n / len(test) * (u - m * n / 2) / np.sqrt(m * n * (m + n + 1) / 12)
        weight += n / len(test)
    return total / weight


def test_c_t_is_that_of_the_authors_formulas():
    """The cells are the three centres, which k-means finds whatever its start."""

    def cells_of(x):
        return x[:, :3].argmax(1)

    copy = Copying(TRAIN, 3, 0)
    for share in (0, 0.3):
        samples = plant(FRESH, TRAIN, share)
        expected = c_t_by_the_authors_formulas(
            samples.numpy(), TEST.numpy(), TRAIN.numpy(), cells_of
        )
        assert copy.c_t(samples, TEST) == pytest.approx(expected, rel=1e-4)


def test_c_t_leaves_out_cells_with_few_samples():
    def cells_of(x):
        return x[:, :3].argmax(1)

    samples = FRESH[cells_of(FRESH) != 1]
    few = FRESH[cells_of(FRESH) == 1][: copying.PER_CELL - 1]
    both = torch.cat([samples, few + 5])  # as far off as can be, but too few to count
    copy = Copying(TRAIN, 3, 0)
    made = copy.c_t(both, TEST)
    expected = c_t_by_the_authors_formulas(both.numpy(), TEST.numpy(), TRAIN.numpy(), cells_of)
    assert made == pytest.approx(expected, rel=1e-4)
    assert made == pytest.approx(copy.c_t(samples, TEST), rel=1e-4)
    assert math.isnan(copy.c_t(few, TEST))


def test_c_t_measures_in_the_first_64_principal_components():
    generator = torch.Generator().manual_seed(0)
    scale = torch.linspace(3, 0.1, 80)
    train, test, samples = (torch.randn(n, 80, generator=generator) * scale for n in (300, 90, 99))
    pca = PCA(64, svd_solver="full").fit(train.numpy())
    low = [torch.from_numpy(pca.transform(x.numpy())) for x in (samples, test, train)]
    expected = c_t_by_the_authors_formulas(*low, cells_of=lambda x: np.zeros(len(x)))
    assert Copying(train, 1, 0).c_t(samples, test) == pytest.approx(expected, rel=1e-3)


def test_planted_copies():
    """Replaced by training images: 0, 1, 10 and 100 % of the samples."""
    copy = Copying(TRAIN, 3, 0)
    authpct = [copy.authpct(plant(FRESH, TRAIN, share)) for share in (0, 0.01, 0.1, 1)]
    floor = copy.authpct(TEST)
    assert authpct[0] == pytest.approx(floor, abs=5)
    for made, share in zip(authpct, (0, 0.01, 0.1, 1), strict=True):
        # Each authentic sample that is replaced counts no more.
        kept = copy.authpct(FRESH[round(share * 1000) :]) if share < 1 else 0
        assert made == pytest.approx((1 - share) * kept)
    assert authpct[3] == 0 < authpct[2] < authpct[1] <= authpct[0]

    c_t = [copy.c_t(plant(FRESH, TRAIN, share), TEST) for share in (0, 0.01, 0.1, 1)]
    assert abs(c_t[0]) < 2  # about N(0, 1/3): the mean of three z
    assert abs(c_t[1] - c_t[0]) < 0.5  # 1 % of copies does not show
    assert c_t[2] < c_t[0] - 1
    assert c_t[3] < -15  # z of two samples of 333 that do not overlap: -22


def test_c_t_is_high_for_samples_too_far_off():
    assert Copying(TRAIN, 3, 0).c_t(FRESH + torch.randn(FRESH.shape), TEST) > 5


def test_copies_of_images_that_occur_twice_are_copies():
    train = torch.cat([TRAIN[:50], TRAIN[:50]])
    assert Copying(train, 1, 0).authpct(TRAIN[:50]) == 0


def test_nearest_distances_are_exact(monkeypatch):
    """Far from the origin cdist's own distances of copies are not 0."""
    monkeypatch.setattr(copying, "CHUNK", 7)
    data = TRAIN[:100] + 30
    distance, row = find_nearest(data[10:40], data)
    assert distance.tolist() == [0.0] * 30
    assert row.tolist() == list(range(10, 40))
    distance, row = find_nearest(data, data, itself=True)
    apart = np.linalg.norm(data.numpy()[:, None] - data.numpy()[None], axis=-1)
    np.fill_diagonal(apart, np.inf)
    assert distance.numpy() == pytest.approx(apart.min(1), rel=1e-3)
    assert (row != torch.arange(100)).all()


def test_mann_whitney_z_is_scipys_without_its_corrections():
    a, b = FRESH[:60, 0].round(decimals=1), TEST[:45, 0].round(decimals=1)  # with ties
    u = mannwhitneyu(a.numpy(), b.numpy()).statistic
    assert mann_whitney_z(a, b) == pytest.approx((u - 1350) / np.sqrt(2700 * 106 / 12))
    assert mann_whitney_z(torch.zeros(5), torch.zeros(7)) == 0


def test_no_random_state_is_touched():
    states = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()
    first = Copying(TRAIN, 3, 0).c_t(FRESH, TEST)
    assert random.getstate() == states[0]
    assert (np.random.get_state()[1] == states[1]).all()
    assert torch.equal(torch.get_rng_state(), states[2])
    assert Copying(TRAIN, 3, 0).c_t(FRESH, TEST) == first

import random

import numpy as np
import pytest
import torch
from prdc import compute_prdc

from began_cli.errors import UserError
from began_cli.evaluation import scores
from began_cli.evaluation.features import Features
from began_cli.evaluation.scores import Options, evaluate
from began_cli.settings import commands as checks

SMALL = Options(k=3, kid_subset=20, kid_subsets=10)


def gaussian(n: int, d: int = 6, seed: int = 0, classes: int = 10) -> Features:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(n, classes, generator=generator) * 2
    return Features(torch.randn(n, d, generator=generator), logits)


def test_fid_is_the_formula_in_numpy_float64():
    """|m1 - m2|^2 + tr(C1 + C2 - 2 sqrt(sqrt(C1) C2 sqrt(C1))), roots by symmetric eigenvectors."""

    def root(matrix):
        values, vectors = np.linalg.eigh(matrix)
        return vectors @ np.diag(np.sqrt(np.maximum(values, 0))) @ vectors.T

    a = (gaussian(400).features * torch.arange(1, 7) + 3).numpy().astype(np.float64)
    b = gaussian(300, seed=1).features.numpy().astype(np.float64)
    c1, c2 = np.cov(a.T), np.cov(b.T)
    cross = root(root(c1) @ c2 @ root(c1))
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(c1 + c2 - 2 * cross)
    made = scores.fid(torch.from_numpy(a), torch.from_numpy(b))
    assert made == pytest.approx(expected, rel=1e-6)


def test_fid_of_two_gaussians_in_closed_form():
    """Between N(0, I) and N(m, s^2 I) in D dimensions: |m|^2 + D (s - 1)^2."""
    x = gaussian(200, 4).features.double()
    x = x - x.mean(0)
    x = x @ torch.linalg.inv(torch.linalg.cholesky(torch.cov(x.T))).T  # exactly N(0, I)
    assert scores.fid(x, 3 * x + 2) == pytest.approx(4 * 2**2 + 4 * (3 - 1) ** 2, rel=1e-6)


def test_kid_is_the_double_loop():
    """With subsets of everything, every subset is the unbiased MMD^2 of all."""
    n = 25
    x, y = gaussian(n, 5).features.numpy(), gaussian(n, 5, seed=1).features.numpy() + 0.5

    def kernel(a, b):
        return (float(a @ b) / 5 + 1) ** 3

    total = 0.0
    for i in range(n):
        for j in range(n):
            if i != j:
                total += (kernel(x[i], x[j]) + kernel(y[i], y[j])) / (n * (n - 1))
            total -= 2 * kernel(x[i], y[j]) / n**2
    made = scores.kid(torch.from_numpy(x), torch.from_numpy(y), Options(kid_subset=n))
    assert made["kid"] == pytest.approx(total, rel=1e-4)
    assert made["kid_std"] == pytest.approx(0, abs=1e-6)


def test_inception_score_by_hand():
    """Sure of one of ten classes, all as often: 10. Always the same class: 1. Never sure: 1."""
    real = gaussian(200)
    sure = torch.eye(10).repeat(400, 1) * 50  # 4,000, so that each split has every class often
    for logits, expected in ((sure, 10.0), (sure[:1].repeat(400, 1), 1.0), (sure * 0, 1.0)):
        fake = Features(torch.zeros(len(logits), 6), logits)
        assert evaluate(fake, real, SMALL, ["is"])["is"] == pytest.approx(expected, rel=0.01)


def test_inception_score_in_numpy():
    """exp of the mean KL(p(y|x) || p(y)), and the mean of that over ten parts of the images."""
    fake = gaussian(50)
    order = np.random.RandomState(7).permutation(50)
    logits = fake.logits.numpy().astype(np.float64)[order]
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    parts = [np.exp((q * np.log(q / q.mean(0))).sum(1).mean()) for q in np.split(p, 10)]
    made = evaluate(fake, fake, Options(seed=7), ["is"])
    assert made["is"] == pytest.approx(np.mean(parts), rel=1e-5)
    assert made["is_std"] == pytest.approx(np.std(parts), rel=1e-5)


@pytest.mark.parametrize("k", [1, 3, 5])
def test_precision_recall_density_coverage_are_those_of_prdc(k, monkeypatch):
    monkeypatch.setattr(scores, "CHUNK", 70)  # so that a chunk ends within the data
    fake, real = gaussian(200), gaussian(150, seed=1)
    fake.features = fake.features * 0.7 + 0.3
    names = ["precision", "recall", "density", "coverage"]
    made = evaluate(fake, real, Options(k=k), names)
    expected = compute_prdc(real.features.numpy(), fake.features.numpy(), nearest_k=k)
    assert made == pytest.approx(expected, rel=1e-4)


def test_density_and_coverage_by_a_loop():
    fake, real, k = gaussian(30, 2).features, gaussian(25, 2, seed=1).features, 2
    within, covered = 0, 0
    for i in range(25):
        others = sorted(float((real[i] - real[j]).norm()) for j in range(25) if j != i)
        inside = sum(float((real[i] - x).norm()) < others[k - 1] for x in fake)
        within += inside
        covered += inside > 0
    expected = {"density": within / (k * 30), "coverage": covered / 25}
    assert scores.density_and_coverage(fake, real, k) == pytest.approx(expected)


@pytest.mark.parametrize(("n", "d"), [(40, 6), (6, 40)])
def test_vendi_is_the_entropy_of_the_kernel_of_all_pairs(n, d):
    x = gaussian(n, d).features.numpy().astype(np.float64)
    kernel = np.array([[a @ b / np.linalg.norm(a) / np.linalg.norm(b) for b in x] for a in x])
    values = np.linalg.eigvalsh(kernel / n)
    values = values[values > 1e-12]
    expected = np.exp(-(values * np.log(values)).sum())
    assert scores.vendi(torch.from_numpy(x)) == pytest.approx(expected, rel=1e-6)


def test_vendi_counts_kinds():
    """Copies of one image count as one, images at right angles as many as there are."""
    for kinds, expected in (([0] * 12, 1), ([0, 1] * 6, 2), (range(12), 12)):
        assert scores.vendi(torch.eye(12)[list(kinds)] * 7) == pytest.approx(expected)
    three_of_four = torch.eye(2)[[0, 0, 0, 1]]
    entropy = -(0.75 * np.log(0.75) + 0.25 * np.log(0.25))
    assert scores.vendi(three_of_four) == pytest.approx(np.exp(entropy))


def test_a_set_against_itself():
    same = gaussian(300)
    made = evaluate(same, same, SMALL)
    assert made["fid"] == pytest.approx(0, abs=1e-6)
    assert made["precision"] == made["recall"] == made["coverage"] == 1.0


def test_two_sets_of_one_distribution_are_near_the_best():
    made = evaluate(gaussian(2000), gaussian(2000, seed=1), Options(kid_subset=500))
    assert 0 < made["fid"] < 0.05
    assert abs(made["kid"]) < 3 * made["kid_std"] / 10 + 1e-3  # the mean of a hundred subsets
    assert made["density"] == pytest.approx(1, abs=0.05)  # its expectation (2002.09797, lemma 1)
    assert made["coverage"] == pytest.approx(1 - 0.5**5, abs=0.03)  # 1 - 1/2^k (section 3.3)


def test_copies_lower_recall_and_spreading_lowers_precision():
    real, fake = gaussian(500, seed=1), gaussian(500)
    copies = Features(fake.features[:10].repeat(50, 1), None)
    copies.features = copies.features + 1e-3 * gaussian(500, seed=2).features
    spread = Features(fake.features * 3, None)
    names = ["precision", "recall", "density", "coverage"]
    base, few, wide = (evaluate(x, real, SMALL, names) for x in (fake, copies, spread))
    assert few["recall"] < 0.2 < 0.8 < base["recall"]
    assert few["coverage"] < 0.3 * base["coverage"]
    assert wide["precision"] < 0.5 * base["precision"]
    assert wide["density"] < 0.5 * base["density"]


def test_one_image_over_and_over():
    fake = gaussian(1)
    made = evaluate(fake_many(fake, 60), gaussian(60, seed=1), SMALL)
    assert np.isfinite(list(made.values())).all()
    assert made["is"] == pytest.approx(1)
    assert made["recall"] == 0


def fake_many(one: Features, n: int) -> Features:
    return Features(one.features.repeat(n, 1), one.logits.repeat(n, 1))


def test_only_what_is_asked_for():
    made = evaluate(gaussian(60), gaussian(60, seed=1), SMALL, ["recall", "kid"])
    assert set(made) == {"recall", "kid", "kid_std"}


def test_without_classes_there_is_no_inception_score():
    made = evaluate(Features(gaussian(60).features, None), gaussian(60, seed=1), SMALL)
    assert "is" not in made
    assert "fid" in made


@pytest.mark.parametrize("n", [21, 60])
def test_the_same_numbers_again_and_no_random_state_touched(n):
    states = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()
    fake, real = gaussian(n), gaussian(60, seed=1)
    first = evaluate(fake, real, SMALL)
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    assert evaluate(fake, real, SMALL) == first
    random.setstate(states[0])
    np.random.set_state(("MT19937", states[1], *np.random.get_state()[2:]))
    torch.set_rng_state(states[2])
    evaluate(fake, real, SMALL)
    assert random.getstate() == states[0]
    assert (np.random.get_state()[1] == states[1]).all()
    assert torch.equal(torch.get_rng_state(), states[2])


@pytest.mark.parametrize(
    ("n", "name", "why"),
    [
        (19, "kid", r"kid wants 20 or more \(kid_subset=20\); or leave out kid$"),
        (9, "is", "is wants 10 or more"),
        (3, "coverage", r"coverage wants 4 or more \(the k=3 neighbours of each image\)"),
        (1, "fid", "fid wants 2 or more"),
    ],
)
def test_too_few_images(n, name, why):
    with pytest.raises(UserError, match=why):
        evaluate(gaussian(n), gaussian(100), SMALL, [name])


def test_the_settings_know_the_scores_that_there_are():
    others = {"vendi", "modes", "ndb", "nearest", *checks.COPYING}
    assert {*scores.NAMES} | others == set(checks.SCORES)
    assert set(scores.BETTER) == {*checks.SCORES, "modes_kl", "fd"}

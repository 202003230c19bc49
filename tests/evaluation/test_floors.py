import pytest
import torch

from began_cli.evaluation import floors, references, scores
from began_cli.evaluation.features import Extractor, Features
from began_cli.evaluation.scores import Options


def test_the_floor_is_one_half_of_the_real_images_against_the_other():
    generator = torch.Generator().manual_seed(0)
    real = Features(torch.randn(100, 3, generator=generator), None)
    fake = Features(torch.randn(30, 3, generator=generator) + 1, None)
    plan = references.plan(100, 30)  # the features are of its rows, in their order
    names, options = ["fid", "kid", "ndb"], Options(kid_subset=10, bins=4, seed=3)
    made = floors.score_features("me@1", fake, real, plan, options, names)
    assert list(made) == names
    assert made["fid"].value == scores.fid(fake.features, real.features[:30])
    assert made["fid"].floor == scores.fid(real.features[30:60], real.features[:30])
    assert (made["fid"].extractor, made["fid"].floor_n, made["fid"].std) == ("me@1", 30, None)
    kid = scores.kid(fake.features, real.features[:30], options)
    assert (made["kid"].value, made["kid"].std) == (kid["kid"], kid["kid_std"])


def test_modes_and_classes():
    me = Extractor("me", "12345678", torch.nn.Identity())
    fake, real = (
        Features(torch.zeros(4, 1), torch.eye(3)[rows]) for rows in ([0, 0, 0, 2], [0, 1, 2, 2])
    )
    made = floors.score_modes(me, fake, real)
    assert (made["modes"].value, made["modes"].floor, made["modes"].floor_n) == (2, 3, 4)
    assert floors.count_classes(me, fake, real) == {"classes": [3, 0, 1], "real_classes": [1, 1, 2]}
    many = Features(torch.zeros(1, 1), torch.eye(11)[:1])
    assert floors.count_classes(me, many, many) == {}


def test_nearest():
    """Images of one grey each: distances are differences of the greys."""
    data = torch.tensor([0, 10, 30, 60, 100, 150, 210]).byte().view(7, 1, 1, 1).expand(7, 1, 2, 2)
    sample = torch.tensor([[12], [100]]).byte().view(2, 1, 1, 1).expand(2, 1, 2, 2)
    near, score = floors.score_nearest(sample, data, torch.tensor([0, 4, 6]))
    assert near.rows[:, 0].tolist() == [1, 4]
    assert near.rows.shape == (2, floors.NEIGHBOURS)
    assert score.value == pytest.approx((2 + 0) / 2)
    assert score.floor == pytest.approx((10 + 40 + 60) / 3)
    assert (score.extractor, score.floor_n) == ("pixels", 3)

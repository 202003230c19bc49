import pytest
import torch

from began_cli.evaluation import floors
from began_cli.evaluation.copying import Copying
from began_cli.evaluation.features import Extractor, Features
from began_cli.evaluation.scores import Score


def test_each_value_is_beside_its_floor():
    values, floors_ = {"fid": 3.0, "kid": 0.2, "kid_std": 0.01}, {"fid": 1.0, "kid": 0.1}
    made = floors.pair("me@1", values, floors_, 30)
    assert list(made) == ["fid", "kid"]
    assert made["fid"] == Score("me@1", 3.0, 1.0, 30, None)
    assert made["kid"] == Score("me@1", 0.2, 0.1, 30, 0.01)


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
    floor = floors.measure_spacing(data, torch.tensor([0, 4, 6]))
    near, score = floors.score_nearest(sample, data, floor)
    assert near.rows[:, 0].tolist() == [1, 4]
    assert near.rows.shape == (2, floors.NEIGHBOURS)
    assert score.value == pytest.approx((2 + 0) / 2)
    assert score.floor == pytest.approx((10 + 40 + 60) / 3)
    assert (score.extractor, score.floor_n) == ("pixels", 3)


def test_only_the_scores_of_copying_that_are_asked_for():
    train = torch.randn(100, 3, generator=torch.Generator().manual_seed(0))
    copying = Copying(train, 1, 0)
    assert floors.score_copying(copying, train, None, ["authpct"]) == {"authpct": 0.0}
    both = floors.score_copying(copying, train, train + 0.1, ["authpct", "c_t"])
    assert list(both) == ["authpct", "c_t"]
    assert floors.score_copying(copying, train, None, []) == {}

import pytest
import torch
from conftest import TINY, Grey, settings

from began_cli.data import sources
from began_cli.errors import UserError
from began_cli.evaluation import references, scores
from began_cli.evaluation.copying import Copying
from began_cli.evaluation.evaluator import Evaluator, load_real_images, load_test_images
from began_cli.evaluation.scores import Options

FEW = ("n=60", "kid_subset=20", "bins=5", "extractor=pixels")


@pytest.fixture
def data(digits):
    return settings("train", *TINY, f"dataset.root={digits}").dataset


def flat(source: sources.Source) -> torch.Tensor:
    return source.images.flatten(1) / 255


def test_the_floors_are_scores_of_real_images(data):
    """Of each score: which images stand for the samples, and which they are compared with."""
    evaluator = Evaluator(settings("evaluate", *FEW, "scores=[fid,authpct,c_t]"), data)
    assert evaluator.count_real() == 2 * (
        200 + 120
    )  # pixels, and the classifier that knows classes
    advanced = []
    evaluator.prepare(advanced.append)
    assert sum(advanced) == evaluator.count_real()
    advanced.clear()
    evaluator.judges.extract_generated(Grey(), 60, 8, advanced.append)
    assert sum(advanced) == evaluator.count_samples() == 2 * 60
    train, test = flat(sources.load(data)), flat(sources.load_test(data))
    order, test_rows = references.plan(200, 60, True).rows, references.plan(10_000, 60).rows
    train, test = train[order], test[test_rows]
    expected = scores.fid(train[60:120], train[:60])
    assert evaluator.floors["fid"] == pytest.approx(expected, rel=1e-5)
    copying = Copying(train, 3, 0)
    made = evaluator.copying_floors
    assert made["authpct"] == (pytest.approx(copying.authpct(test[:60])), 60)
    assert made["c_t"] == (pytest.approx(copying.c_t(test[60:], test[:60]), rel=1e-4), 60)


def test_against_the_test_images(data):
    evaluator = Evaluator(settings("evaluate", *FEW, "scores=[fid]", "reference=test"), data)
    assert (evaluator.compared_n, len(evaluator.compared.images)) == (60, 10_000)
    evaluator.prepare()
    train = flat(sources.load(data))[references.plan(200, 60).rows[:60]]
    test = flat(sources.load_test(data))[references.plan(10_000, 60).rows[:60]]
    assert torch.equal(evaluator.real[0].features, test)
    assert evaluator.floors["fid"] == pytest.approx(scores.fid(train, test), rel=1e-5)


def test_names_are_in_order(data):
    evaluator = Evaluator(settings("evaluate", *FEW, "scores=[nearest,modes,fid]"), data)
    assert evaluator.names == ["fid", "modes", "modes_kl", "nearest"]
    assert evaluator.options == Options(kid_subset=20, bins=5)
    assert evaluator.test is None  # nothing needs it


def test_test_images_that_are_the_training_images(tmp_path):
    """Without MNIST, training is on the test split that comes with began."""
    data = settings("train", *TINY, f"dataset.root={tmp_path}").dataset
    evaluator = Evaluator(settings("evaluate", *FEW, "scores=[authpct]"), data)
    assert evaluator.notes == ["authpct has no floor: the test images are the training images"]
    train = load_real_images(data, None)
    with pytest.raises(UserError, match=r"^the test images are the training images$"):
        load_test_images(data, None, None, train)
    with pytest.raises(UserError, match=r"^reference=test: the test images are the training"):
        Evaluator(settings("evaluate", *FEW, "reference=test"), data)


def test_data_that_comes_with_began_has_no_root():
    data = settings("train", "dataset=avatars").dataset
    with pytest.raises(UserError, match=r"^root=x: dataset=avatars is not read from a folder; "):
        load_real_images(data, "x")

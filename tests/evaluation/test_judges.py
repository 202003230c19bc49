import pytest
import torch
from conftest import Grey, settings

from began_cli.data import sources
from began_cli.errors import UserError
from began_cli.evaluation import features, references
from began_cli.evaluation.judges import MANY, SAMPLE, Judges, choose_scores, may_copy
from began_cli.gan import latents
from began_cli.settings.commands import SCORES

CPU = torch.device("cpu")
PIXELS = features.build("pixels", None, (1, 16, 16), False, CPU)


def test_the_classifier_counts_classes_beside_another_extractor():
    data = settings("train", "dataset=mnist").dataset
    both = Judges(data, "pixels", None, "cpu")
    assert [extractor.name for extractor in both.all] == ["pixels", "mnist-cnn"]
    assert [each.name for each in Judges(data, "auto", None, "cpu").all] == ["mnist-cnn"]
    assert Judges(data, "pixels", None, "cpu", classes=False).all == [both.extractor]
    stacked = Judges(settings("train", "dataset=stacked_mnist").dataset, "auto", None, "cpu")
    assert [each.name for each in stacked.all] == ["mnist-cnn-per-channel"]


def test_generated_images_are_those_of_the_seeds_of_an_evaluation():
    data = settings("train", "dataset=mnist", "dataset.image_size=16").dataset
    judges = Judges(data, "pixels", None, "cpu", seed=1, classes=False)
    sample, (made,) = judges.extract_generated(Grey(), 1500, 8)
    z = latents.from_seeds(range(2_000_000, 2_001_500), 8)[:, 0]
    grey = ((z + 1) * 127.5).round()
    assert made.features.shape == (1500, 256)
    assert torch.equal(made.features[:, 0], grey / 255)
    assert torch.equal(sample[:, 0, 0, 0].float(), grey[:SAMPLE])


def test_real_features_are_those_of_the_plan_in_order(tmp_path):
    data = settings("train", "dataset=mnist", "dataset.image_size=16").dataset
    pixels = torch.arange(40, dtype=torch.uint8).view(40, 1, 1, 1).expand(40, 1, 16, 16)
    source = sources.Source(pixels.contiguous(), "here")
    plan = references.plan(40, 10)
    judges = Judges(data, "pixels", None, "cpu", cache=str(tmp_path), classes=False)
    (real,), warnings = judges.extract_real(source, plan)
    assert warnings == []
    assert torch.equal(real.features[:, 0], plan.rows.float() / 255)


def test_scores_by_name_are_in_order_and_those_that_cannot_be_are_refused():
    assert choose_scores(["ndb", "fid"], "mnist", PIXELS) == (["fid", "ndb"], [])
    with pytest.raises(UserError, match="scores=is: pixels gives no classes"):
        choose_scores(["is"], "mnist", PIXELS)
    with pytest.raises(UserError, match="scores=modes: dataset=cifar10 has no classifier"):
        choose_scores(["modes"], "cifar10", PIXELS)


def test_scores_of_stacked_mnist_leave_out_the_slow_ones_unless_asked_for():
    extractor = features.build("mnist-cnn", None, (3, 32, 32), True, CPU)
    quick = ["fid", "kid", "vendi", "modes", "ndb", "nearest"]
    wanted, notes = choose_scores(["auto"], "stacked_mnist", extractor, 128_000)
    assert wanted == quick
    assert len(notes) == 7
    assert any("scores=all computes it" in note for note in notes)
    names, notes = choose_scores(["all"], "stacked_mnist", extractor, 128_000)
    assert names == [name for name in SCORES if name != "is"]
    assert len(notes) == 1
    more, _ = choose_scores(["auto", "recall"], "stacked_mnist", extractor, 128_000)
    assert sorted(more) == sorted([*quick, "recall"])


def test_copies_are_looked_for_among_few_images_or_if_asked_for():
    for asked, count, copies in (
        (["auto"], MANY, True),
        (["auto"], MANY + 1, False),
        (["all"], MANY + 1, True),
        (["c_t"], MANY + 1, True),
        (["auto", "c_t"], MANY + 1, True),
        (["fid"], 5, False),
    ):
        assert may_copy(asked, count, PIXELS) is copies
        wanted, _ = choose_scores(asked, "mnist", PIXELS, count)
        assert ("c_t" in wanted) is copies
    lacking = {"c_t": "no test images"}
    wanted, notes = choose_scores(["auto"], "mnist", PIXELS, 5, lacking)
    assert "c_t" not in wanted
    assert "'c_t' is left out: no test images" in notes
    with pytest.raises(UserError, match="scores=c_t: no test images"):
        choose_scores(["c_t"], "mnist", PIXELS, 5, lacking)

"""Scores of generated images, each beside its floor: the same score of real images."""

import torch
from torch import Tensor

from began_cli.evaluation import coverage, scores
from began_cli.evaluation.attributes import Shares, compare_shares
from began_cli.evaluation.avatars_classifier import predict_attributes
from began_cli.evaluation.features import Extractor, Features
from began_cli.evaluation.references import Plan
from began_cli.evaluation.scores import Options, Score

NEIGHBOURS = 5  # training images to find for each generated one


def score_features(
    label: str, fake: Features, real: Features, plan: Plan, options: Options, names: list[str]
) -> dict[str, Score]:
    """Return the named scores on features. The floor is one half of the plan against the other."""
    first, second = (real[half] for half in plan.floor)
    values = scores.evaluate(fake, real[plan.reference], options, names)
    floors = scores.evaluate(second, first, options, names)
    return {
        name: Score(label, value, floors[name], plan.floor_n, values.get(f"{name}_std"))
        for name, value in values.items()
        if not name.endswith("_std")
    }


def score_modes(classifier: Extractor, fake: Features, real: Features) -> dict[str, Score]:
    """Return the number of modes and their KL. The floor is that of the real images given."""
    values, floors = (coverage.modes_and_kl(*classifier.label_modes(each)) for each in (fake, real))
    label = classifier.label
    return {name: Score(label, values[name], floors[name], len(real)) for name in values}


def count_classes(classifier: Extractor, fake: Features, real: Features) -> dict[str, list[int]]:
    """Return how many images of each class there are, or {} if there are more than 10 classes."""
    if (classes := classifier.label_modes(fake)[1]) > 10:
        return {}
    counts = [
        torch.bincount(classifier.label_modes(each)[0], minlength=classes).tolist()
        for each in (fake, real)
    ]
    return dict(zip(("classes", "real_classes"), counts, strict=True))


def count_attributes(classifier: Extractor, fake: Features, real: Features) -> dict[str, Shares]:
    """Return the shares of each attribute's values, or {} if the classifier knows none."""
    if not classifier.attributes:
        return {}
    assert fake.logits is not None
    assert real.logits is not None
    return compare_shares(predict_attributes(fake.logits), predict_attributes(real.logits))


def score_nearest(sample: Tensor, data: Tensor, rows: Tensor) -> tuple[coverage.Nearest, Score]:
    """Return the nearest training images of a sample, and the mean distance to the first.

    The floor is the same distance for the training images `rows` of `data`, each to its nearest
    other one.
    """
    near = coverage.nearest(sample, data, NEIGHBOURS)
    others = coverage.nearest(data[rows], data, 1, apart=rows)
    value, floor = (each.distance[:, 0].mean().item() for each in (near, others))
    return near, Score("pixels", value, floor, len(rows))

"""Scores of generated images, each beside its floor: the same score of real images."""

import torch
from torch import Tensor

from began_cli.evaluation import coverage, scores
from began_cli.evaluation.features import Features
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


def score_modes(label: str, fake: Features, real: Features) -> dict[str, Score]:
    """Return the number of modes and their KL. The floor is that of the real images given."""
    values, floors = (coverage.modes_and_kl(*coverage.labels_of(each)) for each in (fake, real))
    return {name: Score(label, values[name], floors[name], len(real)) for name in values}


def count_classes(fake: Features, real: Features) -> dict[str, list[int]]:
    """Return how many images of each class there are, or {} if there are more than 10 classes."""
    if (classes := coverage.labels_of(fake)[1]) > 10:
        return {}
    counts = [
        torch.bincount(coverage.labels_of(each)[0], minlength=classes).tolist()
        for each in (fake, real)
    ]
    return dict(zip(("classes", "real_classes"), counts, strict=True))


def score_nearest(sample: Tensor, data: Tensor, rows: Tensor) -> tuple[coverage.Nearest, Score]:
    """Return the nearest training images of a sample, and the mean distance to the first.

    The floor is the same distance for the training images `rows` of `data`, each to its nearest
    other one.
    """
    near = coverage.nearest(sample, data, NEIGHBOURS)
    others = coverage.nearest(data[rows], data, 1, apart=rows)
    value, floor = (each.distance[:, 0].mean().item() for each in (near, others))
    return near, Score("pixels", value, floor, len(rows))

"""Scores of generated images, each beside its floor: the same score of real images."""

import math
from collections.abc import Collection, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from began_cli.evaluation import coverage
from began_cli.evaluation.attributes import Shares, compare_shares
from began_cli.evaluation.avatars_classifier import predict_attributes
from began_cli.evaluation.copying import Copying
from began_cli.evaluation.features import Extractor, Features
from began_cli.evaluation.scores import Score

NEIGHBOURS = 5  # training images to find for each generated one


def pair(
    label: str, values: Mapping[str, float], floors: Mapping[str, float], floor_n: int
) -> dict[str, Score]:
    """Return the scores of values as `scores.evaluate` gives them, each with its floor."""
    return {
        name: Score(label, value, floors[name], floor_n, values.get(f"{name}_std"))
        for name, value in values.items()
        if not name.endswith("_std")
    }


def score_modes(classifier: Extractor, fake: Features, real: Features) -> dict[str, Score]:
    """Return the number of modes and their KL. The floor is that of the real images given."""
    values, floors = (coverage.modes_and_kl(*classifier.label_modes(each)) for each in (fake, real))
    return pair(classifier.label, values, floors, len(real))


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


# --- copies of training images --------------------------------------------------------------------


def score_nearest(sample: Tensor, data: Tensor, floor: Score) -> tuple[coverage.Nearest, Score]:
    """Return the training images nearest to each image of a sample, and the mean distance to the
    first.
    """
    near = coverage.nearest(sample, data, NEIGHBOURS)
    return near, replace(floor, value=near.distance[:, 0].mean().item())


def measure_spacing(data: Tensor, rows: Tensor) -> Score:
    """Return the floor of `nearest`: the mean distance of the training images `rows` of `data` to
    their nearest other ones.
    """
    distance = coverage.nearest(data[rows], data, 1, apart=rows).distance.mean().item()
    return Score("pixels", math.nan, distance, len(rows))


def score_copying(
    copying: Copying, fake: Tensor, test: Tensor | None, names: Collection[str]
) -> dict[str, float]:
    """Return those of `authpct` and `c_t` that are among `names`, of features (N, D).

    `test`: features of real images that were not trained on; `c_t` needs them.
    """
    values = {}
    if "authpct" in names:
        values["authpct"] = copying.authpct(fake)
    if "c_t" in names:
        assert test is not None
        values["c_t"] = copying.c_t(fake, test)
    return values

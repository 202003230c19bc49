"""Scores of a generator from the features of its images and of real ones.

FID, KID, Inception score, precision and recall are torch-fidelity's; density and coverage, which it
does not have, are written here. Pure functions: the same features and seed give the same numbers,
and no global random state is read or moved, so that training may call them between two steps.
"""

from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor
from torch_fidelity import metric_fid, metric_isc, metric_kid, metric_prc

from began_cli.errors import UserError
from began_cli.evaluation.features import Features
from began_cli.settings.commands import FEATURE_SCORES, NEIGHBOURLY

NAMES = FEATURE_SCORES
BETTER = {  # which way is good
    **dict.fromkeys(("fid", "kid", "modes_kl", "ndb"), "lower"),
    **dict.fromkeys(("is", "precision", "recall", "density", "coverage", "modes"), "higher"),
    "nearest": "as the floor",  # far below it: training images, memorised
}
IS_SPLITS = 10
CHUNK = 1000  # rows of a distance matrix held at a time


@dataclass(slots=True)
class Options:
    """What the scores leave open."""

    k: int = 5  # neighbours that make the radius of a manifold
    kid_subset: int = 1000  # images in one of KID's subsets
    kid_subsets: int = 100
    seed: int = 0  # of KID's subsets and of the order that the Inception score is split in


def evaluate(
    fake: Features, real: Features, options: Options, names: Collection[str] = NAMES
) -> dict[str, float]:
    """The named scores of fake images against real ones; `kid_std` and `is_std` beside their own.

    The Inception score is left out where an extractor gives no classes. Raises UserError if there
    are too few images for a score.
    """
    n = min(len(fake), len(real))
    check_enough(f"{n} images", n, options, names)
    result: dict[str, float] = {}
    if "fid" in names:
        result["fid"] = fid(fake.features, real.features)
    if "kid" in names:
        result |= kid(fake.features, real.features, options)
    if "is" in names and fake.logits is not None and fake.logits.dim() == 2:
        made = metric_isc.isc_features_to_metric(
            fake.logits, splits=IS_SPLITS, rng_seed=options.seed
        )
        result["is"] = made[metric_isc.KEY_METRIC_ISC_MEAN]
        result["is_std"] = made[metric_isc.KEY_METRIC_ISC_STD]
    if "precision" in names or "recall" in names:
        made = metric_prc.prc_features_to_metric(
            fake.features,
            real.features,
            prc_neighborhood=options.k,
            prc_batch_size=CHUNK,
            save_cpu_ram=True,  # else three whole matrices of distances
            verbose=False,
        )
        result["precision"] = made[metric_prc.KEY_METRIC_PRECISION]
        result["recall"] = made[metric_prc.KEY_METRIC_RECALL]
    if "density" in names or "coverage" in names:
        result |= density_and_coverage(fake.features, real.features, options.k)
    wanted = {*names, "kid_std", "is_std"}
    return {name: value for name, value in result.items() if name in wanted}


def check_enough(said: str, n: int, options: Options, names: Collection[str]) -> None:
    """Raises UserError, which begins with `said`, if n images are too few for a named score."""
    least: dict[str, tuple[int, str]] = {
        "fid": (2, "for a covariance"),
        "kid": (options.kid_subset, "as kid_subset says"),
        "is": (IS_SPLITS, f"as it is a mean over {IS_SPLITS} parts"),
    }
    for name in NEIGHBOURLY:
        least[name] = (options.k + 1, f"as each image has k={options.k} neighbours")
    for name in names:
        needed, why = least.get(name, (1, ""))
        if n < needed:
            raise UserError(f"{said}: {name} wants {needed} or more, {why}; or leave out {name}")


def fid(fake: Tensor, real: Tensor) -> float:
    """The Frechet distance of the Gaussians that fit two sets of features (N, D), in float64."""
    statistics = [metric_fid.fid_features_to_statistics(x.double()) for x in (fake, real)]
    made = metric_fid.fid_statistics_to_metric(*statistics, verbose=False)
    return made[metric_fid.KEY_METRIC_FID]


def kid(fake: Tensor, real: Tensor, options: Options) -> dict[str, float]:
    """The squared MMD of features (N, D) under (x y / D + 1)^3: mean and deviation over subsets."""
    made = metric_kid.kid_features_to_metric(
        fake.double(),
        real.double(),
        kid_subsets=options.kid_subsets,
        kid_subset_size=options.kid_subset,
        rng_seed=options.seed,
        verbose=False,
    )
    return {
        "kid": made[metric_kid.KEY_METRIC_KID_MEAN],
        "kid_std": made[metric_kid.KEY_METRIC_KID_STD],
    }


def density_and_coverage(fake: Tensor, real: Tensor, k: int) -> dict[str, float]:
    """Density and coverage of features (N, D) and (M, D) (2002.09797, equations 4 and 6).

    A ball about each real image reaches to its k-th nearest other. Density is how many balls a fake
    lies in, over k; coverage the share of balls with a fake in them. Memory is CHUNK rows of
    distances.
    """
    within, covered = 0, 0
    for start in range(0, len(real), CHUNK):
        rows = real[start : start + CHUNK]
        own = torch.cdist(rows, real)
        own[torch.arange(len(rows)), torch.arange(start, start + len(rows))] = torch.inf
        radius = own.kthvalue(k, dim=1, keepdim=True).values
        inside = torch.cdist(rows, fake) < radius
        within += int(inside.sum())
        covered += int(inside.any(dim=1).sum())
    return {"density": within / (k * len(fake)), "coverage": covered / len(real)}

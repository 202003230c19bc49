"""Scores of a generator from the features of its images and of real ones.

FID, KID, Inception score, precision and recall are torch-fidelity's; density and coverage, which it
does not have, are here. Pure functions: the same features and seed give the same numbers, and the
global random states are neither read nor changed, so that training may call them between two steps.
"""

from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor
from torch_fidelity import metric_fid, metric_isc, metric_kid, metric_prc

from began_cli.errors import UserError
from began_cli.evaluation.copying import PER_CELL
from began_cli.evaluation.coverage import ndb
from began_cli.evaluation.features import Features
from began_cli.settings.commands import COPYING, FEATURE_SCORES, NEIGHBOURLY

NAMES = FEATURE_SCORES
BETTER = {  # which values are good
    **dict.fromkeys(("fid", "fd", "kid", "modes_kl", "ndb"), "lower"),
    **dict.fromkeys(("is", "precision", "recall", "density", "coverage", "vendi"), "higher"),
    "modes": "higher",
    # Far below it: memorised training images.
    **dict.fromkeys(("nearest", *COPYING), "as the floor"),
}
IS_SPLITS = 10
PER_BIN = 5  # least number of images a bin for the test of NDB to hold
CHUNK = 1000  # rows of a distance matrix in memory at a time


@dataclass(slots=True)
class Score:
    """A score, and that of real images against real ones."""

    extractor: str  # `name@hash`: scores of two extractors do not compare
    value: float
    floor: float  # NaN if there are no real images to compute it from
    floor_n: int  # real images that stand for the samples in the floor
    std: float | None = None


@dataclass(slots=True)
class Options:
    """The free parameters of the scores."""

    k: int = 5  # the radius around an image reaches to its k-th nearest neighbour
    kid_subset: int = 1000  # images in one of KID's subsets
    kid_subsets: int = 100
    bins: int = 100  # of NDB
    cells: int = 3  # of C_T
    seed: int = 0  # of KID's subsets, the Inception score's splits, NDB's bins and C_T's cells


def evaluate(
    fake: Features, real: Features, options: Options, names: Collection[str] = NAMES
) -> dict[str, float]:
    """Return the named scores of fake images against real ones, with `kid_std` and `is_std`.

    Other names than those of NAMES, `vendi` and `ndb` are ignored, and so is the Inception score if
    the extractor gives no classes. Raise UserError if there are too few images for a score.
    """
    n = min(len(fake), len(real))
    check_enough(f"{n} images", n, options, names)
    result: dict[str, float] = {}
    if "fid" in names:
        result["fid"] = fid(fake.features, real.features)
    if "kid" in names:
        result |= kid(fake.features, real.features, options)
    if "is" in names and fake.logits is not None and fake.logits.dim() == 2:
        metrics = metric_isc.isc_features_to_metric(
            fake.logits, splits=IS_SPLITS, rng_seed=options.seed
        )
        result["is"] = metrics[metric_isc.KEY_METRIC_ISC_MEAN]
        result["is_std"] = metrics[metric_isc.KEY_METRIC_ISC_STD]
    if "precision" in names or "recall" in names:
        metrics = metric_prc.prc_features_to_metric(
            fake.features,
            real.features,
            prc_neighborhood=options.k,
            prc_batch_size=CHUNK,
            save_cpu_ram=True,  # without it, three whole distance matrices are in memory
            verbose=False,
        )
        result["precision"] = metrics[metric_prc.KEY_METRIC_PRECISION]
        result["recall"] = metrics[metric_prc.KEY_METRIC_RECALL]
    if "density" in names or "coverage" in names:
        result |= density_and_coverage(fake.features, real.features, options.k)
    if "vendi" in names:
        result["vendi"] = vendi(fake.features)
    if "ndb" in names:
        result["ndb"] = ndb(fake.features, real.features, options.bins, options.seed)
    kept = {*names, "kid_std", "is_std"}
    return {name: value for name, value in result.items() if name in kept}


def check_enough(what: str, n: int, options: Options, names: Collection[str]) -> None:
    """Raise UserError, which begins with `what`, if n images are too few for a named score."""
    least: dict[str, tuple[int, str]] = {
        "fid": (2, "for a covariance"),
        "kid": (options.kid_subset, f"kid_subset={options.kid_subset}"),
        "is": (IS_SPLITS, f"the mean over {IS_SPLITS} parts"),
        "ndb": (PER_BIN * options.bins, f"{PER_BIN} for each of bins={options.bins}"),
        "c_t": (PER_CELL * options.cells, f"{PER_CELL} for each of cells={options.cells}"),
    }
    for name in NEIGHBOURLY:
        least[name] = (options.k + 1, f"the k={options.k} neighbours of each image")
    too_few = [name for name in names if n < least.get(name, (1, ""))[0]]
    if too_few:
        wants = ", ".join("{} wants {} or more ({})".format(name, *least[name]) for name in too_few)
        raise UserError(f"{what}: {wants}; or leave out {' and '.join(too_few)}")


def fid(fake: Tensor, real: Tensor) -> float:
    """Return the Fréchet distance, in float64, of Gaussians fitted to features (N, D)."""
    statistics = [metric_fid.fid_features_to_statistics(x.double()) for x in (fake, real)]
    metrics = metric_fid.fid_statistics_to_metric(*statistics, verbose=False)
    return metrics[metric_fid.KEY_METRIC_FID]


def kid(fake: Tensor, real: Tensor, options: Options) -> dict[str, float]:
    """Return the squared MMD of features (N, D) with the kernel (x y / D + 1)^3.

    `kid` is the mean over random subsets, `kid_std` the standard deviation.
    """
    metrics = metric_kid.kid_features_to_metric(
        fake.double(),
        real.double(),
        kid_subsets=options.kid_subsets,
        kid_subset_size=options.kid_subset,
        rng_seed=options.seed,
        verbose=False,
    )
    return {
        "kid": metrics[metric_kid.KEY_METRIC_KID_MEAN],
        "kid_std": metrics[metric_kid.KEY_METRIC_KID_STD],
    }


def vendi(x: Tensor) -> float:
    """Return the Vendi score of features (N, D): how many distinct images the N are worth, 1 to N.

    It is exp of the entropy of the eigenvalues of K / N, where K holds the cosines of all pairs
    (2210.02410). K / N and X^T X / N have the same eigenvalues above 0, X being the
    rows scaled to length 1, so that D x D numbers are enough.
    """
    gram = torch.zeros(x.shape[1], x.shape[1], dtype=torch.float64)
    for rows in x.split(CHUNK):
        unit = torch.nn.functional.normalize(rows.double(), dim=1)
        gram += unit.T @ unit
    values = torch.linalg.eigvalsh(gram / len(x)).clamp(min=0)
    return torch.special.entr(values).sum().exp().item()


def density_and_coverage(fake: Tensor, real: Tensor, k: int) -> dict[str, float]:
    """Return density and coverage of features (N, D) and (M, D) (2002.09797, equations 4 and 6).

    A ball around each real image reaches to its k-th nearest neighbour among the real ones. Density
    is the mean number of balls that a fake lies in, divided by k; coverage is the share of balls
    with a fake in them. Memory: CHUNK rows of distances.
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

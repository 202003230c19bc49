"""What of the data a generator makes: modes, bins, and whether it only repeats training images.

Nothing here reads or moves a global random state.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from began_cli.evaluation.features import Features

ROUNDS = 50  # of k-means, at most
CHUNK = 4096  # rows of a distance matrix held at a time
SIGNIFICANT = 1.96  # standard errors: 5 % of the bins differ by chance


def labels_of(made: Features) -> tuple[Tensor, int]:
    """The classes (N,) of classified images and how many classes there are.

    Digits of three channels make one number: 100 red + 10 green + blue, of 1000.
    """
    assert made.logits is not None
    digits = made.logits.argmax(-1)
    if digits.dim() == 1:
        return digits, made.logits.shape[-1]
    base = made.logits.shape[-1]
    powers = base ** torch.arange(digits.shape[1] - 1, -1, -1)
    return (digits * powers).sum(1), base ** digits.shape[1]


def modes_and_kl(labels: Tensor, modes: int) -> dict[str, float]:
    """How many of the modes are hit, and KL = sum q log(modes q), in nats, q their shares.

    As VEEGAN's and PacGAN's tables have it: 0 is a perfectly even sampler of endless images, log
    modes a generator of one. N images of a perfect one score about (modes - 1) / 2N.
    """
    counts = torch.bincount(labels, minlength=modes)
    q = counts[counts > 0].double() / len(labels)
    return {"modes": float(len(q)), "modes_kl": (q * (modes * q).log()).sum().item()}


# --- number of statistically different bins -------------------------------------------------------


def ndb(fake: Tensor, real: Tensor, bins: int, seed: int) -> float:
    """The share of bins that hold significantly more or fewer fakes than real images: NDB / K.

    The bins are k-means cells of the real features (N, D); a bin differs if the two-sample test of
    proportions says so at 5 % (1805.12462, section 3).
    """
    centres = kmeans(real, bins, seed)
    return different_bins(
        torch.bincount(nearest_centre(fake, centres), minlength=bins),
        torch.bincount(nearest_centre(real, centres), minlength=bins),
    )


def different_bins(fake: Tensor, real: Tensor) -> float:
    """The share of bins whose counts (K,) differ by more than chance would make them."""
    n, m = fake.sum().double(), real.sum().double()
    p, q = fake / n, real / m
    pooled = (fake + real) / (n + m)
    error = (pooled * (1 - pooled) * (1 / n + 1 / m)).sqrt()
    return ((p - q).abs() > SIGNIFICANT * error).double().mean().item()


def kmeans(x: Tensor, k: int, seed: int) -> Tensor:
    """Centres (k, D) of Lloyd's algorithm on (N, D) from a k-means++ start; no cell is empty."""
    generator = torch.Generator().manual_seed(seed)
    first = torch.randint(len(x), (1,), generator=generator)
    centres = x[first]
    far = (x - centres).square().sum(1)
    for _ in range(k - 1):
        # All that is left may lie on a centre: then any image will do.
        weights = far if far.sum() > 0 else torch.ones_like(far)
        chosen = torch.multinomial(weights, 1, generator=generator)
        centres = torch.cat([centres, x[chosen]])
        far = torch.minimum(far, (x - x[chosen]).square().sum(1))
    cells = nearest_centre(x, centres)
    for _ in range(ROUNDS):
        counts = torch.bincount(cells, minlength=k)
        sums = torch.zeros_like(centres).index_add_(0, cells, x)
        held = counts > 0
        centres[held] = sums[held] / counts[held, None]
        moved = nearest_centre(x, centres)
        if torch.equal(moved, cells):
            break
        cells = moved
    return centres


def nearest_centre(x: Tensor, centres: Tensor) -> Tensor:
    """For each row of (N, D) the nearest of the centres (K, D)."""
    return torch.cat([torch.cdist(rows, centres).argmin(1) for rows in x.split(CHUNK)])


# --- memorised or not -----------------------------------------------------------------------------


class Nearest(NamedTuple):
    """The nearest training images of some images, nearest first."""

    rows: Tensor  # (N, k), of the training images
    distance: Tensor  # (N, k), root mean square over pixels, 0 to 255


def nearest(images: Tensor, data: Tensor, k: int, apart: Tensor | None = None) -> Nearest:
    """The k images of `data` (M, C, H, W) nearest in pixels to each of (N, C, H, W), both uint8.

    `apart` (N,) names for each image a row of the data that is no neighbour: the image itself.
    """
    queries = images.flatten(1).float()
    best = torch.full((len(images), k), math.inf)
    rows = torch.zeros(len(images), k, dtype=torch.long)
    for start in range(0, len(data), CHUNK):
        chunk = data[start : start + CHUNK].flatten(1).float()
        distances = torch.cdist(queries, chunk)
        if apart is not None:
            here = (apart >= start) & (apart < start + len(chunk))
            distances[here, apart[here] - start] = math.inf
        ids = torch.arange(start, start + len(chunk)).expand(len(images), -1)
        both, which = torch.cat([best, distances], 1).topk(k, dim=1, largest=False)
        rows = torch.cat([rows, ids], 1).gather(1, which)
        best = both
    return Nearest(rows, best / queries.shape[1] ** 0.5)

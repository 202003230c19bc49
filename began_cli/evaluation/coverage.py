"""How much of the data a generator covers: modes, bins, and copies of training images.

No function reads or changes a global random state.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

ROUNDS = 50  # of k-means, at most
CHUNK = 4096  # rows of a distance matrix in memory at a time
SIGNIFICANT = 1.96  # standard errors: 5 % of the bins differ by chance


def label_classes(logits: Tensor) -> tuple[Tensor, int]:
    """Return the likeliest classes (N,), and how many classes there are.

    Logits (N, 3, 10) of a digit in each channel make one class: 100 red + 10 green + blue, of 1000.
    """
    digits = logits.argmax(-1)
    if digits.dim() == 1:
        return digits, logits.shape[-1]
    base = logits.shape[-1]
    powers = base ** torch.arange(digits.shape[1] - 1, -1, -1)
    return (digits * powers).sum(1), base ** digits.shape[1]


def modes_and_kl(labels: Tensor, modes: int) -> dict[str, float]:
    """Return how many modes occur among the labels (N,), and KL = sum q log(modes q) in nats.

    q are the shares of the modes, as in the tables of VEEGAN (1705.07761) and PacGAN (1712.04086).
    KL is 0 for even shares and log modes for a single mode; N labels of an even sampler have about
    (modes - 1) / 2N.
    """
    counts = torch.bincount(labels, minlength=modes)
    q = counts[counts > 0].double() / len(labels)
    return {"modes": float(len(q)), "modes_kl": (q * (modes * q).log()).sum().item()}


# --- number of statistically different bins -------------------------------------------------------


def ndb(fake: Tensor, real: Tensor, bins: int, seed: int) -> float:
    """Return NDB / K: the share of bins with significantly more or fewer fakes than real images.

    The bins are k-means cells of the real features (N, D). A bin differs if the two-sample test of
    proportions is significant at 5 % (1805.12462, section 3).
    """
    centres = kmeans(real, bins, seed)
    return different_bins(
        torch.bincount(nearest_centre(fake, centres), minlength=bins),
        torch.bincount(nearest_centre(real, centres), minlength=bins),
    )


def different_bins(fake: Tensor, real: Tensor) -> float:
    """Return the share of bins whose counts (K,) differ significantly."""
    n, m = fake.sum().double(), real.sum().double()
    p, q = fake / n, real / m
    pooled = (fake + real) / (n + m)
    error = (pooled * (1 - pooled) * (1 / n + 1 / m)).sqrt()
    return ((p - q).abs() > SIGNIFICANT * error).double().mean().item()


def kmeans(x: Tensor, k: int, seed: int) -> Tensor:
    """Return the k centres (k, D) of Lloyd's algorithm on x (N, D), from a k-means++ start."""
    generator = torch.Generator().manual_seed(seed)
    first = torch.randint(len(x), (1,), generator=generator)
    centres = x[first]
    far = (x - centres).square().sum(1)
    for _ in range(k - 1):
        # If all the others lie on a centre, any of them will do.
        weights = far if far.sum() > 0 else torch.ones_like(far)
        chosen = torch.multinomial(weights, 1, generator=generator)
        centres = torch.cat([centres, x[chosen]])
        far = torch.minimum(far, (x - x[chosen]).square().sum(1))
    cells = nearest_centre(x, centres)
    for _ in range(ROUNDS):
        counts = torch.bincount(cells, minlength=k)
        sums = torch.zeros_like(centres).index_add_(0, cells, x)
        filled = counts > 0
        centres[filled] = sums[filled] / counts[filled, None]
        moved = nearest_centre(x, centres)
        if torch.equal(moved, cells):
            break
        cells = moved
    return centres


def nearest_centre(x: Tensor, centres: Tensor) -> Tensor:
    """Return for each row of x (N, D) the index (N,) of the nearest of the centres (K, D)."""
    return torch.cat([torch.cdist(rows, centres).argmin(1) for rows in x.split(CHUNK)])


# --- copies of training images --------------------------------------------------------------------


class Nearest(NamedTuple):
    """The nearest training images of some images, nearest first."""

    rows: Tensor  # (N, k), of the training images
    distance: Tensor  # (N, k), root mean square over pixels, 0 to 255


def nearest(images: Tensor, data: Tensor, k: int, apart: Tensor | None = None) -> Nearest:
    """Return the k images of `data` (M, C, H, W) nearest in pixels to each image (N, C, H, W).

    Both are uint8. `apart` (N,): for each image a row of `data` to pass over, the image itself.
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

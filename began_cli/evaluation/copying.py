"""Scores of copying: whether samples lie nearer to the training images than unseen images do.

Distances are those of features, float32 (N, D), computed in blocks. No function reads or changes a
global random state.
"""

import math
from functools import cached_property

import torch
from torch import Tensor

from began_cli.evaluation.coverage import kmeans, nearest_centre

CHUNK = 500  # rows of a distance matrix in memory at a time
COMPONENTS = 64  # principal components that C_T measures distances in, as its authors do
PER_CELL = 20  # least number of samples in a cell of C_T


class Copying:
    """The scores against one training set. What depends on that alone is computed once."""

    def __init__(self, train: Tensor, cells: int, seed: int) -> None:
        """`train`: features (M, D). `cells` and `seed` are those of the k-means cells of C_T."""
        self.train, self.cells, self.seed = train, cells, seed

    @cached_property
    def _spacing(self) -> Tensor:
        """The distance (M,) of each training image to its nearest other one."""
        return find_nearest(self.train, self.train, itself=True)[0]

    @cached_property
    def _projection(self) -> tuple[Tensor, Tensor]:
        """The mean (D,) of the training features, and their first principal axes (D, ≤ 64)."""
        mean = self.train.mean(0)
        covariance = torch.zeros(len(mean), len(mean), dtype=torch.float64)
        for rows in self.train.split(CHUNK):
            centred = (rows - mean).double()
            covariance += centred.T @ centred
        axes = torch.linalg.eigh(covariance).eigenvectors.flip(1)[:, :COMPONENTS]
        return mean, axes.to(self.train.dtype)

    @cached_property
    def _partition(self) -> tuple[Tensor, Tensor, Tensor]:
        """The projected training features, the centres of the cells, and each image's cell."""
        x = self._project(self.train)
        centres = kmeans(x, self.cells, self.seed)
        return x, centres, nearest_centre(x, centres)

    def _project(self, x: Tensor) -> Tensor:
        mean, axes = self._projection
        return (x - mean) @ axes

    def authpct(self, samples: Tensor) -> float:
        """Return AuthPct, in per cent, of features (N, D) (2102.08921).

        A sample counts as authentic if it is farther from its nearest training image than that
        image is from its own nearest other one.
        """
        distance, row = find_nearest(samples, self.train)
        return 100 * (distance > self._spacing[row]).double().mean().item()

    def c_t(self, samples: Tensor, test: Tensor) -> float:
        """Return C_T of features (N, D), with test images (M, D) for comparison (2004.05675).

        In each cell, Z_U compares the distances of samples and of test images to the nearest
        training image of the cell. C_T is the mean of Z_U over the cells with PER_CELL samples or
        more, weighted by their shares of test images; NaN if those cells have no test image.
        Far below 0 the samples are too near to training images.
        """
        train, centres, cells = self._partition
        x, y = self._project(samples), self._project(test)
        x_cells, y_cells = nearest_centre(x, centres), nearest_centre(y, centres)
        total = weight = 0.0
        for cell in range(self.cells):
            own = train[cells == cell]
            here, there = x[x_cells == cell], y[y_cells == cell]
            if len(here) >= PER_CELL and len(there) and len(own):
                distances = (find_nearest(each, own)[0] for each in (here, there))
                total += len(there) * mann_whitney_z(*distances)
                weight += len(there)
        return total / weight if weight else math.nan


def find_nearest(x: Tensor, data: Tensor, itself: bool = False) -> tuple[Tensor, Tensor]:
    """Return each row's distance (N,) to the nearest row of `data` (M, D), and its number (N,).

    `itself`: x is `data`, and no row is its own neighbour.
    """
    distances, numbers = [], []
    for start in range(0, len(x), CHUNK):
        rows = x[start : start + CHUNK]
        matrix = torch.cdist(rows, data)
        if itself:
            here = torch.arange(len(rows))
            matrix[here, start + here] = math.inf
        nearest = matrix.argmin(1)
        # By subtraction: a copy's distance is 0, which cdist's products of large numbers miss.
        distances.append((rows - data[nearest]).norm(dim=1))
        numbers.append(nearest)
    return torch.cat(distances), torch.cat(numbers)


def mann_whitney_z(a: Tensor, b: Tensor) -> float:
    """Return the z of the Mann-Whitney test of a (N,) against b (M,): below 0 if a is smaller.

    U counts the pairs with a > b, a tie as half a pair. Under the hypothesis of no difference its
    mean is NM / 2 and its variance NM (N + M + 1) / 12.
    """
    n, m = len(a), len(b)
    ordered = b.sort().values
    below = torch.searchsorted(ordered, a)
    up_to = torch.searchsorted(ordered, a, right=True)
    u = (below + up_to).double().sum().item() / 2
    return (u - n * m / 2) / math.sqrt(n * m * (n + m + 1) / 12)

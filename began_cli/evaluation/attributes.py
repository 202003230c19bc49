"""Variety counted by attributes: which values, and which combinations, the samples hit.

The labels are of the avatars: int64 (N, 11), a column for each attribute in the order of ATTRIBUTES
and in it the number of one of its values, as `predict_attributes` gives them.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from began_cli.evaluation.avatars_classifier import ATTRIBUTES, predict_attributes

MODE_ATTRIBUTES = ("background", "skin", "hair_colour", "hair")
MODES = math.prod(len(ATTRIBUTES[name]) for name in MODE_ATTRIBUTES)  # 500
RARE = 1 / 3  # of the real share


@dataclass(frozen=True, slots=True)
class Shares:
    """The share of each value of an attribute, 0 to 1, among samples and among real images."""

    samples: dict[str, float]
    real: dict[str, float]

    @property
    def rarest(self) -> tuple[str, float]:
        """The value whose share is smallest relative to the real share, and that ratio."""
        ratios = {value: self.samples[value] / share for value, share in self.real.items() if share}
        return min(ratios.items(), key=lambda item: item[1])

    @property
    def missing(self) -> list[str]:
        """The values that some real image has and no sample."""
        return [value for value, share in self.real.items() if share > 0 == self.samples[value]]

    @property
    def rare(self) -> list[str]:
        """The values that are not missing, but whose share is below a third of the real share."""
        return [
            value for value, share in self.real.items() if 0 < self.samples[value] < RARE * share
        ]


def number_modes(labels: Tensor) -> Tensor:
    """Return the combination (N,), 0 to 499, that each row of labels (N, 11) has.

    A combination is of background, skin, hair colour and hair, the last one counting fastest.
    """
    modes = torch.zeros(len(labels), dtype=torch.long)
    names = list(ATTRIBUTES)
    for name in MODE_ATTRIBUTES:
        modes = modes * len(ATTRIBUTES[name]) + labels[:, names.index(name)]
    return modes


def label_combinations(logits: Tensor) -> tuple[Tensor, int]:
    """Return the combinations (N,) of logits (N, 60), and how many combinations there are.

    The four attributes were drawn evenly and independently: the uniform law, from which `modes_kl`
    is measured, is that of the data.
    """
    return number_modes(predict_attributes(logits)), MODES


def compare_shares(samples: Tensor, real: Tensor) -> dict[str, Shares]:
    """Return the shares of each attribute's values, by its name.

    `samples` (N, 11) and `real` (M, 11) are labels. Labels that the same classifier predicted of
    both make its errors count on both sides.
    """
    return {
        name: Shares(
            _measure_shares(samples[:, column], values), _measure_shares(real[:, column], values)
        )
        for column, (name, values) in enumerate(ATTRIBUTES.items())
    }


def _measure_shares(labels: Tensor, values: tuple[str, ...]) -> dict[str, float]:
    """Return the share of each value among the labels (N,)."""
    shares = torch.bincount(labels, minlength=len(values)).double() / len(labels)
    return dict(zip(values, shares.tolist(), strict=True))

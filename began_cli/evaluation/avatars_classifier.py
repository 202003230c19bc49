"""The small classifier of the avatars: features, and one head for each attribute."""

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SIDE = 32
FEATURES = 128
# Name -> values, both in the order of the columns and numbers in `data/avatars/`.
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "background": ("blue", "purple", "lavender", "pink", "peach"),
    "skin": ("dark brown", "brown", "olive", "rose", "pale"),
    "hair_colour": ("black", "brown", "auburn", "golden", "blond"),
    "hair": ("bun", "side parting", "spiky", "undercut"),
    "rear_hair": ("none", "long straight", "long wavy", "neck high", "shoulder high"),
    "beard": ("none", "chin", "chin and moustache", "full", "long", "twirled moustache"),
    "eyes": ("bow", "happy", "humble", "wide", "wink"),
    "eyebrows": ("angry", "happy", "neutral", "raised", "sad"),
    "mouth": ("agape", "angry", "laugh", "sad", "smile"),
    "clothes": ("dress", "open jacket", "shirt", "T-shirt", "turtleneck"),
    "clothes_colour": (
        *("blue", "green", "black", "grey", "purple"),
        *("red", "white", "yellow", "pink", "orange"),
    ),
}
SIZES = [len(values) for values in ATTRIBUTES.values()]


class AvatarsClassifier(nn.Module):
    """A network from avatars to features and the logits of their attributes."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 24, 48, 96)
        pairs = itertools.pairwise(widths)
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 3, padding=1, bias=False), nn.BatchNorm2d(b))
            for a, b in pairs
        )
        inputs = widths[-1] * (SIDE // 8) ** 2
        self.hidden = nn.Sequential(
            nn.Linear(inputs, FEATURES, bias=False), nn.BatchNorm1d(FEATURES)
        )
        self.out = nn.Linear(FEATURES, sum(SIZES))

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Return features (N, 128), none below 0, and logits (N, 60) of images (N, 3, H, W).

        The images are uint8 and square. They are averaged down to 32 pixels a side, or enlarged
        bilinearly. The logits are those of the first attribute's values, then of the second's, and
        so on: `split_logits` takes them apart.
        """
        x = pixels.float() / 255
        if x.shape[-1] > SIDE:
            x = F.interpolate(x, (SIDE, SIDE), mode="area")
        elif x.shape[-1] < SIDE:
            x = F.interpolate(x, (SIDE, SIDE), mode="bilinear")
        for stage in self.stages:
            x = F.max_pool2d(torch.relu(stage(x)), 2)
        features = torch.relu(self.hidden(x.flatten(1)))
        return features, self.out(F.dropout(features, 0.2, self.training))


def split_logits(logits: Tensor) -> dict[str, Tensor]:
    """Return the logits (N, 60) of each attribute: its name -> (N, number of its values)."""
    return dict(zip(ATTRIBUTES, logits.split(SIZES, 1), strict=True))


def predict_attributes(logits: Tensor) -> Tensor:
    """Return the likeliest value of each attribute, int64 (N, 11), of logits (N, 60)."""
    return torch.stack([part.argmax(1) for part in logits.split(SIZES, 1)], 1)

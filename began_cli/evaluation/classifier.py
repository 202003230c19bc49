"""The small classifier whose features replace Inception's on 28-pixel grey images."""

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SIDE = 32  # MNIST's 28 pixels, padded as `data.sources` pads them
FEATURES = 128
CLASSES = 10


class Classifier(nn.Module):
    """uint8 grey images (N, 1, H, W) to non-negative features (N, 128) and logits (N, 10)."""

    def __init__(self) -> None:
        super().__init__()
        widths = (1, 16, 32, 64)
        pairs = itertools.pairwise(widths)
        self.stages = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in pairs)
        self.hidden = nn.Linear(64 * (SIDE // 8) ** 2, FEATURES)
        self.out = nn.Linear(FEATURES, CLASSES)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        x = pixels.float() / 255  # the range of a pixel, never that of the batch
        if x.shape[-1] != SIDE:
            x = F.interpolate(x, (SIDE, SIDE), mode="bilinear", antialias=True)
        for stage in self.stages:
            x = F.max_pool2d(torch.relu(stage(x)), 2)
        features = torch.relu(self.hidden(F.dropout(x.flatten(1), 0.3, self.training)))
        return features, self.out(features)

"""Trains the classifier of the avatars that `began evaluate` ships: avatars-cnn.

    python scripts/train_avatars_cnn.py [--epochs 24] [--out FOLDER]

Trains on the 20,000 training images that come with began, averaged down to 32 pixels a side, with
a little noise; one in ten by way of 16 pixels, and one in ten moved by up to a pixel, as a sample
may be. Prints the accuracy of each attribute on the 5,000 test images at 32, 64 and 16 pixels, and
writes the weights to began_cli/evaluation/ as safetensors, in half precision. Fixed seed; 7 minutes
on one CPU core.
"""

import argparse
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from began_cli.data import avatars
from began_cli.evaluation.avatars_classifier import (
    ATTRIBUTES,
    SIDE,
    AvatarsClassifier,
    predict_attributes,
    split_logits,
)

HOME = Path(__file__).parent.parent / "began_cli" / "evaluation"
BATCH, LR, WEIGHT_DECAY = 100, 4e-3, 1e-2
NOISE = 1.0  # standard deviation of what is added to a pixel, 0 to 255
SMALL = 0.1  # share of a batch that is averaged down to 16 pixels first
MOVED = 0.1  # share of a batch that is moved


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--epochs", type=int, default=24)
    parser.add_argument("--out", type=Path, default=HOME)
    args = parser.parse_args()
    torch.manual_seed(0)
    images, labels = avatars.read("train", SIDE), avatars.read_attributes("train")
    test = {size: avatars.read("test", size) for size in (32, 64, 16)}
    truth = avatars.read_attributes("test")
    model = AvatarsClassifier()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=WEIGHT_DECAY)
    steps = args.epochs * (len(images) // BATCH)
    plan = torch.optim.lr_scheduler.OneCycleLR(optimizer, LR, total_steps=steps)
    for epoch in range(args.epochs):
        model.train()
        for rows in torch.randperm(len(images)).split(BATCH):
            loss = compute_loss(model(augment(images[rows]))[1], labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            plan.step()
        right = measure_accuracy(model, test[SIDE], truth)
        print(f"epoch {epoch + 1}: mean accuracy {right.mean():.2%}", flush=True)
    halves = {name: round_to_half(weights) for name, weights in model.state_dict().items()}
    model.load_state_dict(halves)
    path = args.out / "avatars-cnn.safetensors"
    save_file(halves, path)
    print(f"{path}: {path.stat().st_size:,} bytes")
    print(" ".join(f"{title:>14}" for title in ("accuracy", *test)))
    columns = [measure_accuracy(model, x, truth).tolist() for x in test.values()]
    for name, *shares in zip(ATTRIBUTES, *columns, strict=True):
        print(" ".join([f"{name:>14}", *(f"{share:14.2%}" for share in shares)]))


def augment(images: Tensor) -> Tensor:
    """Return uint8 images (N, 3, 32, 32) with noise.

    The first lose what 16 pixels cannot show; the next are moved by up to a pixel each way.
    """
    small, moved = round(SMALL * len(images)), round(MOVED * len(images))
    x = images.float()
    first, second, rest = x.split([small, moved, len(x) - small - moved])
    first = F.interpolate(F.avg_pool2d(first, 2), (SIDE, SIDE), mode="bilinear")
    down, right = torch.randint(0, 3, (2,)).tolist()
    second = F.pad(second, (1, 1, 1, 1), mode="replicate")
    second = second[:, :, down : down + SIDE, right : right + SIDE]
    x = torch.cat([first, second, rest])
    return (x + NOISE * torch.randn_like(x)).round().clamp(0, 255).byte()


def compute_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the cross-entropy of the logits (N, 60), summed over the attributes of (N, 11)."""
    parts = split_logits(logits).values()
    losses = [F.cross_entropy(part, labels[:, j]) for j, part in enumerate(parts)]
    return torch.stack(losses).sum()


def round_to_half(weights: Tensor) -> Tensor:
    """Return floating-point weights in half precision, others as they are."""
    return weights.half() if weights.is_floating_point() else weights


@torch.no_grad()
def measure_accuracy(model: AvatarsClassifier, images: Tensor, labels: Tensor) -> Tensor:
    """Return for each attribute the share of images that get their value, (11,)."""
    model.eval()
    predicted = torch.cat([predict_attributes(model(x)[1]) for x in images.split(500)])
    return (predicted == labels).double().mean(0)


if __name__ == "__main__":
    main()

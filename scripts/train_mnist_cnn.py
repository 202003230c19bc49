"""Trains the classifiers that `began evaluate` ships: mnist-cnn and fashion-cnn.

    python scripts/train_mnist_cnn.py --root FOLDER [--dataset mnist|fashion_mnist] [--epochs 10]

FOLDER holds the four idx.gz files of the data set. Trains on the 60,000 training images, each moved
by up to two pixels, tells the accuracy on the 10,000 test images, and writes the weights to
began_cli/evaluation/ as safetensors. Fixed seed; about half a minute an epoch on one CPU core.
"""

import argparse
import gzip
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from began_cli.evaluation.classifier import SIDE, Classifier

NAMES = {"mnist": "mnist-cnn", "fashion_mnist": "fashion-cnn"}
HOME = Path(__file__).parent.parent / "began_cli" / "evaluation"
BATCH, LR, SHIFT = 128, 2e-3, 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--dataset", choices=NAMES, default="mnist")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--out", type=Path, default=HOME)
    args = parser.parse_args()
    torch.manual_seed(0)
    images, labels = read(args.root, "train")
    model = Classifier()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=1e-2)
    steps = args.epochs * (len(images) // BATCH)
    plan = torch.optim.lr_scheduler.OneCycleLR(optimizer, LR, total_steps=steps)
    for epoch in range(args.epochs):
        model.train()
        for rows in torch.randperm(len(images)).split(BATCH)[: len(images) // BATCH]:
            loss = F.cross_entropy(model(moved(images[rows]))[1], labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            plan.step()
        print(f"epoch {epoch + 1}: test accuracy {accuracy(model, *read(args.root, 't10k')):.2%}")
    path = args.out / f"{NAMES[args.dataset]}.safetensors"
    save_file(model.eval().state_dict(), path)
    print(f"{path}: {path.stat().st_size:,} bytes")


def read(root: Path, split: str) -> tuple[Tensor, Tensor]:
    """uint8 images (N, 1, 32, 32), padded, and their labels (N,)."""
    data = gzip.decompress((root / f"{split}-images-idx3-ubyte.gz").read_bytes())
    pixels = np.frombuffer(data, np.uint8, offset=16).reshape(-1, 1, 28, 28)
    data = gzip.decompress((root / f"{split}-labels-idx1-ubyte.gz").read_bytes())
    labels = np.frombuffer(data, np.uint8, offset=8)
    edge = (SIDE - 28) // 2
    images = F.pad(torch.from_numpy(pixels.copy()), (edge, edge, edge, edge))
    return images, torch.from_numpy(labels.copy()).long()


def moved(images: Tensor) -> Tensor:
    """The batch, all of it moved by up to SHIFT pixels each way; the margin is black."""
    down, right = torch.randint(-SHIFT, SHIFT + 1, (2,)).tolist()
    return images.roll((down, right), (2, 3))


@torch.no_grad()
def accuracy(model: Classifier, images: Tensor, labels: Tensor) -> float:
    """The share of images that get their label."""
    model.eval()
    hits = [
        (model(x)[1].argmax(1) == y).sum()
        for x, y in zip(images.split(500), labels.split(500), strict=True)
    ]
    return float(sum(hits)) / len(labels)


if __name__ == "__main__":
    main()

"""Count the samples in which a face detector finds a face.

    pip install 'opencv-python-headless<5'
    python scripts/count_faces.py RUN|FOLDER … [--n 1000] [--size 128]

The detector is OpenCV's Haar cascade for frontal faces, on grey images enlarged to --size pixels a
side. A FOLDER without checkpoints counts the images in it: real photographs, for comparison. Prints
the share for each.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import at_least, make_parser, report_errors

from began_cli import images, load_generator
from began_cli.errors import UserError
from began_cli.generators import checkpoint

try:
    import cv2 as opencv  # pyright: ignore[reportMissingImports]
except ImportError:
    opencv = None
cv2: Any = opencv


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("sources", nargs="+", type=Path, metavar="RUN|FOLDER")
    parser.add_argument("--n", type=at_least(1), default=1000)
    parser.add_argument("--size", type=at_least(32), default=128)
    args = parser.parse_args()
    with report_errors():
        if cv2 is None:
            raise UserError("the detector is missing: pip install 'opencv-python-headless<5'")
        for source in args.sources:
            pictures = read_pictures(source, args.n)
            found = [has_face(picture, args.size) for picture in pictures]
            print(f"{source}: a face in {np.mean(found):.1%} of {len(found):,}", flush=True)


def read_pictures(source: Path, n: int) -> list[np.ndarray]:
    """Return up to n grey images (H, W) uint8: a run's samples, or the files of a folder."""
    if checkpoint.find_all(source) or source.suffix == ".safetensors":
        generator = load_generator(source)
        seeds = torch.arange(n).split(100)
        made = torch.cat([generator(generator.latents(part.tolist())) for part in seeds])
        pixels = images.to_uint8(made).permute(0, 2, 3, 1).numpy()
        return [
            cv2.cvtColor(p, cv2.COLOR_RGB2GRAY) if p.shape[2] == 3 else p[..., 0] for p in pixels
        ]
    files = sorted(path for path in source.rglob("*") if path.suffix in (".jpg", ".png"))[:n]
    if not files:
        raise UserError(f"{source}: holds neither a checkpoint nor pictures")
    read = (cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) for path in files)
    return [crop_square(picture) for picture in read if picture is not None]


def crop_square(picture: np.ndarray) -> np.ndarray:
    """Return the centre square at 32 x 32, as a run at that size sees it."""
    side = min(picture.shape)
    top, left = ((length - side) // 2 for length in picture.shape)
    square = picture[top : top + side, left : left + side]
    return cv2.resize(square, (32, 32), interpolation=cv2.INTER_AREA)


def has_face(picture: np.ndarray, size: int) -> bool:
    """Return whether the detector finds a face in a grey image (H, W), uint8."""
    cascade = cv2.CascadeClassifier(cv2.data.haarcascades + "haarcascade_frontalface_default.xml")
    large = cv2.resize(picture, (size, size), interpolation=cv2.INTER_CUBIC)
    return len(cascade.detectMultiScale(large, 1.1, 3)) > 0


if __name__ == "__main__":
    main()

"""Features of images: the named extractors, and networks of the user.

An extractor maps uint8 pixels (N, C, H, W) to features (N, D) and, if it is a classifier, logits.
Scores compare only if they come from the same extractor, so it carries a name and a hash.
"""

import hashlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load
from torch import Tensor
from torch.nn import functional as F

from began_cli.errors import UserError, reason
from began_cli.evaluation import dinov2
from began_cli.evaluation.attributes import label_combinations
from began_cli.evaluation.avatars_classifier import AvatarsClassifier
from began_cli.evaluation.classifier import CLASSES, FEATURES, Classifier
from began_cli.evaluation.coverage import label_classes
from began_cli.files import downloading, shipped
from began_cli.images import to_grey

HOME = Path(__file__).parent
SHIPPED = ("mnist-cnn", "fashion-cnn", "avatars-cnn")
NAMES = (*SHIPPED, "inception", *dinov2.MODELS, "pixels")
TORCHSCRIPT, EXPORTED = (".pt", ".pts"), ".pt2"
INCEPTION_FILE = "weights-inception-2015-12-05-6726825d.pth"  # torch-fidelity's name
PIXELS_SIDE = 32  # larger images are averaged down to it

Network = Callable[[Tensor], Any]


@dataclass(slots=True)
class Features:
    """The output of an extractor for N images, on the CPU."""

    features: Tensor  # float32 (N, D)
    logits: Tensor | None  # float32 (N, classes), or (N, channels, classes) per channel

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, rows: slice) -> "Features":
        return Features(self.features[rows], None if self.logits is None else self.logits[rows])


def join(parts: list[Features]) -> Features:
    """Return the features of several batches as one."""
    logits = [part.logits for part in parts if part.logits is not None]
    return Features(
        torch.cat([part.features for part in parts]), torch.cat(logits) if logits else None
    )


@dataclass(slots=True)
class Extractor:
    """A network with its name and the hash of its weights."""

    name: str
    sha256: str
    network: Network
    channels: int | None = None  # of the network's input, 1 or 3; None: any
    classifies: bool = False  # whether its logits are of the image as a whole
    mode_labels: Callable[[Tensor], tuple[Tensor, int]] = label_classes
    attributes: bool = False  # whether its logits are those of the avatars' attributes
    slow: bool = False  # whether a large data set takes it hours on a CPU
    frechet: str = "fid"  # name of its Fréchet distance; DINOv2's is called fd (2306.04675)
    note: str | None = None  # a caveat for the user

    @property
    def label(self) -> str:
        """The name and the start of the hash, such as `mnist-cnn@1a2b3c4d`."""
        return f"{self.name}@{self.sha256[:8]}"

    def rename(self, score: str) -> str:
        """Return a score's name in tables."""
        return self.frechet if score == "fid" else score

    def label_modes(self, images: Features) -> tuple[Tensor, int]:
        """Return the mode (N,) that each image belongs to, and how many modes there are."""
        assert images.logits is not None
        return self.mode_labels(images.logits)

    @torch.no_grad()
    def __call__(self, images: Tensor, batch_size: int, device: torch.device) -> Features:
        """Return the features of uint8 images (N, C, H, W), without drawing random numbers.

        Grey images are converted to colour for a network that takes colour, and the reverse.
        """
        assert images.dtype == torch.uint8
        parts = []
        for batch in images.split(batch_size):
            x = convert_channels(batch.to(device), self.channels)
            if len(x) == 1:  # networks of torch.export may be limited to two images or more
                x = torch.cat([x, x])
            output = self.network(x)
            features, *rest = output if isinstance(output, (tuple, list)) else (output,)
            logits = rest[0][: len(batch)].float().cpu() if rest else None
            parts.append(Features(features[: len(batch)].float().flatten(1).cpu(), logits))
        made = join(parts)
        if not made.features.isfinite().all():
            raise UserError(
                f"extractor={self.name}: its features are not finite; check its weights"
            )
        return made


def build(
    name: str,
    weights: str | None,
    shape: tuple[int, int, int],
    per_channel: bool,
    device: torch.device,
) -> Extractor:
    """Return the extractor `name`, of NAMES or a file, for images of this shape (C, H, W).

    `per_channel`: a shipped classifier takes each of three channels as an image of its own. Raise
    UserError if there is no such extractor, or its weights cannot be read or downloaded.
    """
    if weights is not None and name not in ("inception", *dinov2.MODELS):
        raise UserError(
            f"weights={weights}: only extractor=inception, {' and '.join(dinov2.MODELS)} take them"
        )
    if name in SHIPPED:
        extractor = _load_shipped(name, per_channel and shape[0] == 3, device)
    elif name == "inception":
        extractor = _load_inception(weights, device)
    elif name in dinov2.MODELS:
        network, path = dinov2.load(name, weights, device)
        label = dinov2.MODELS[name][0]
        extractor = Extractor(label, hash_file(path), network, channels=3, slow=True, frechet="fd")
    elif name == "pixels":
        version = hashlib.sha256(f"pixels, {PIXELS_SIDE} a side".encode()).hexdigest()
        extractor = Extractor("pixels", version, pixels)
    else:
        extractor = _load_file(Path(name).expanduser(), name, shape, device)
    if extractor.channels not in (None, shape[0]):
        words = ("grey", "colour") if shape[0] == 1 else ("colour", "grey")
        extractor.note = f"the {words[0]} images are made {words[1]} for {extractor.name}"
    return extractor


def convert_channels(images: Tensor, channels: int | None) -> Tensor:
    """Return uint8 images (N, C, H, W) with 1 or 3 channels; None leaves them as they are."""
    if channels is None or images.shape[1] == channels:
        return images
    return images.expand(-1, 3, -1, -1) if channels == 3 else to_grey(images)


def pixels(images: Tensor) -> Tensor:
    """Return uint8 images as features in [0, 1], averaged down to 32x32 if they are larger."""
    x = images.float() / 255
    if x.shape[-1] > PIXELS_SIDE:
        x = F.interpolate(x, (PIXELS_SIDE, PIXELS_SIDE), mode="area")
    return x.flatten(1)


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# --- shipped with began ---------------------------------------------------------------------------


def _load_shipped(name: str, per_channel: bool, device: torch.device) -> Extractor:
    model = AvatarsClassifier() if name == "avatars-cnn" else Classifier()
    with shipped(HOME / f"{name}.safetensors") as path:
        data = path.read_bytes()
        model.load_state_dict(load(data))
    digest = hashlib.sha256(data).hexdigest()
    model.to(device).eval().requires_grad_(False)
    if isinstance(model, AvatarsClassifier):
        return Extractor(name, digest, model, 3, mode_labels=label_combinations, attributes=True)
    if not per_channel:
        return Extractor(name, digest, model, channels=1, classifies=True)

    def classify_channels(images: Tensor) -> tuple[Tensor, Tensor]:
        n, channels = images.shape[:2]
        features, logits = model(images.flatten(0, 1).unsqueeze(1))
        return features.view(n, channels * FEATURES), logits.view(n, channels, CLASSES)

    return Extractor(f"{name}-per-channel", digest, classify_channels, channels=3)


# --- Inception of torch-fidelity ------------------------------------------------------------------


def _load_inception(weights: str | None, device: torch.device) -> Extractor:
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    path = Path(weights).expanduser() if weights is not None else _find_inception()
    if not path.is_file():
        raise UserError(f"weights={weights}: no such file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd pickles: what it can't read, it refuses
            torch.load(path, map_location="cpu", weights_only=True)  # before torch-fidelity's
        network = FeatureExtractorInceptionV3(
            "inception", ["2048", "logits_unbiased"], feature_extractor_weights_path=str(path)
        )
    except Exception as error:  # torch.load raises almost anything for a foreign file
        raise UserError(
            f"weights={path}: not torch-fidelity's weights of Inception ({INCEPTION_FILE}): "
            f"{reason(error)[:120]}"
        ) from None
    network.to(device)
    return Extractor("inception", hash_file(path), network, channels=3, classifies=True)


def _find_inception() -> Path:
    """Return the file of torch-fidelity's weights, downloaded if it is not there yet."""
    from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3

    path = Path(torch.hub.get_dir()) / "checkpoints" / INCEPTION_FILE
    if path.is_file():
        return path
    try:
        with downloading(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(URL_INCEPTION_V3, str(path), "6726825d", progress=False)
    except (OSError, RuntimeError) as error:  # no network; or another file than it should be
        raise UserError(
            f"extractor=inception: no weights in {path.parent}, and they cannot be downloaded "
            f"({error}); give the file {INCEPTION_FILE} as weights=…, or use extractor=pixels"
        ) from None
    return path


# --- networks of the user -------------------------------------------------------------------------


def _load_file(
    path: Path, typed: str, shape: tuple[int, int, int], device: torch.device
) -> Extractor:
    """Return the extractor in a TorchScript or torch.export file.

    Its network maps uint8 images (N, C, H, W) to features, or to features and logits. `typed` is
    the value of the setting, for messages.
    """
    suffix = path.suffix.lower()
    if suffix not in (*TORCHSCRIPT, EXPORTED):
        raise UserError(
            f"extractor={typed}: no such extractor; there are {', '.join(NAMES)}, or give a file "
            "of TorchScript (.pt, .pts) or torch.export (.pt2)"
        )
    if not path.is_file():
        raise UserError(f"extractor={typed}: no such file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # TorchScript is deprecated, but such files exist
            if suffix == EXPORTED:
                network: Network = torch.export.load(path).module().to(device)
            else:
                network = torch.jit.load(path, map_location=device).eval()
    except Exception as error:  # a foreign file raises almost anything
        kind = "torch.export" if suffix == EXPORTED else "TorchScript"
        raise UserError(
            f"extractor={typed}: cannot be read as {kind}: {reason(error)[:120]}"
        ) from None
    channels, classifies = _probe(network, typed, shape, device)
    return Extractor(path.stem, hash_file(path), network, channels, classifies)


def _probe(
    network: Network, typed: str, shape: tuple[int, int, int], device: torch.device
) -> tuple[int, bool]:
    """Return the number of channels of a network's input, and whether it gives logits.

    The number of the images is tried first, then the other of 1 and 3. Raise UserError, with the
    network's own error, if it takes neither or gives no features.
    """
    complaints = []
    for channels in (shape[0], 4 - shape[0]):  # 1 and 3, or 3 and 1
        probe = torch.zeros(2, channels, *shape[1:], dtype=torch.uint8, device=device)
        try:
            with torch.no_grad():
                output = network(probe)
        except Exception as error:  # a foreign network raises anything
            lines = str(error).strip().splitlines() or [type(error).__name__]
            complaints.append(lines[-1])
            continue
        parts = output if isinstance(output, (tuple, list)) else (output,)
        valid = [isinstance(part, Tensor) and part.dim() > 1 and len(part) == 2 for part in parts]
        if len(parts) <= 2 and all(valid):
            return channels, len(parts) == 2
        complaints.append("it gives neither features (N, D) nor features and logits")
    raise UserError(
        f"extractor={typed}: does not take uint8 images (N, {shape[0]}, {shape[1]}, {shape[2]}): "
        f"{complaints[0][:160]}"
    )

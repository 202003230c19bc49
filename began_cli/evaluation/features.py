"""Features of images: the named extractors, and any network of the user's.

An extractor takes uint8 pixels (N, C, H, W), 0 to 255 as they would be saved, and gives features
(N, D) and, if it is a classifier, logits. A score means something beside the name and the hash of
its extractor only, so an extractor carries both.
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

from began_cli.errors import UserError
from began_cli.evaluation.classifier import CLASSES, FEATURES, Classifier
from began_cli.files import downloading
from began_cli.images import to_grey

HOME = Path(__file__).parent
SHIPPED = ("mnist-cnn", "fashion-cnn")
NAMES = (*SHIPPED, "inception", "pixels")
TORCHSCRIPT, EXPORTED = (".pt", ".pts"), ".pt2"
INCEPTION_FILE = "weights-inception-2015-12-05-6726825d.pth"  # as torch-fidelity names it
PIXELS_SIDE = 32  # `pixels` averages larger images down to this

Network = Callable[[Tensor], Any]


@dataclass(slots=True)
class Features:
    """What an extractor makes of N images, on the CPU."""

    features: Tensor  # float32 (N, D)
    logits: Tensor | None  # float32 (N, classes), or (N, channels, classes) of each channel alone

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, rows: slice) -> "Features":
        return Features(self.features[rows], None if self.logits is None else self.logits[rows])


def joined(parts: list[Features]) -> Features:
    """The features of several batches as one."""
    logits = [part.logits for part in parts if part.logits is not None]
    return Features(
        torch.cat([part.features for part in parts]), torch.cat(logits) if logits else None
    )


@dataclass(slots=True)
class Extractor:
    """A network of images with its name and the hash of its weights."""

    name: str
    sha256: str
    network: Network
    channels: int | None = None  # that the network takes; None: any
    classifies: bool = False  # whether its logits are of the image as a whole
    note: str | None = None  # what the user should know of these scores

    @property
    def label(self) -> str:
        """The name that scores carry: `mnist-cnn@1a2b3c4d`."""
        return f"{self.name}@{self.sha256[:8]}"

    @torch.no_grad()
    def __call__(self, images: Tensor, batch_size: int, device: torch.device) -> Features:
        """Features of uint8 images (N, C, H, W), in order. Uses no random numbers.

        Grey images are made colour for a network that takes colour, and colour ones grey.
        """
        assert images.dtype == torch.uint8
        parts = []
        for batch in images.split(batch_size):
            given = coloured(batch.to(device), self.channels)
            alone = len(given) == 1  # torch.export's networks may take two images or more only
            made = self.network(torch.cat([given, given]) if alone else given)
            first, *second = made if isinstance(made, (tuple, list)) else (made,)
            logits = second[0][: len(batch)].float().cpu() if second else None
            parts.append(Features(first[: len(batch)].float().flatten(1).cpu(), logits))
        return joined(parts)


def build(
    name: str, weights: str | None, shape: tuple[int, int, int], each: bool, device: torch.device
) -> Extractor:
    """The extractor that `extractor=` names, for images of this shape (C, H, W).

    `each`: a shipped classifier looks at every channel as a picture of its own. Raises UserError if
    there is no such extractor, or its weights cannot be had.
    """
    if weights is not None and name != "inception":
        raise UserError(f"weights={weights}: only extractor=inception takes a file of weights")
    if name in SHIPPED:
        made = _shipped(name, each and shape[0] == 3, device)
    elif name == "inception":
        made = _inception(weights, device)
    elif name == "pixels":
        version = hashlib.sha256(f"pixels, {PIXELS_SIDE} a side".encode()).hexdigest()
        made = Extractor("pixels", version, pixels)
    else:
        made = _of_the_user(Path(name).expanduser(), name, shape, device)
    if made.channels not in (None, shape[0]):
        words = ("grey", "colour") if shape[0] == 1 else ("colour", "grey")
        made.note = f"the {words[0]} images are made {words[1]} for {made.name}"
    return made


def coloured(images: Tensor, channels: int | None) -> Tensor:
    """uint8 images (N, C, H, W) with so many channels, 1 or 3; None leaves them."""
    if channels is None or images.shape[1] == channels:
        return images
    return images.expand(-1, 3, -1, -1) if channels == 3 else to_grey(images)


def pixels(images: Tensor) -> Tensor:
    """The pixels over 255 as features, images of more than 32 a side averaged down to that."""
    x = images.float() / 255
    if x.shape[-1] > PIXELS_SIDE:
        x = F.interpolate(x, (PIXELS_SIDE, PIXELS_SIDE), mode="area")
    return x.flatten(1)


def sha256_of(path: Path) -> str:
    """The hash of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# --- what comes with began ------------------------------------------------------------------------


def _shipped(name: str, each: bool, device: torch.device) -> Extractor:
    data = (HOME / f"{name}.safetensors").read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    model = Classifier()
    model.load_state_dict(load(data))
    model.to(device).eval().requires_grad_(False)
    if not each:
        return Extractor(name, digest, model, channels=1, classifies=True)

    def of_each_channel(images: Tensor) -> tuple[Tensor, Tensor]:
        n, channels = images.shape[:2]
        features, logits = model(images.flatten(0, 1).unsqueeze(1))
        return features.view(n, channels * FEATURES), logits.view(n, channels, CLASSES)

    return Extractor(f"{name}-per-channel", digest, of_each_channel, channels=3)


# --- Inception, by torch-fidelity -----------------------------------------------------------------


def _inception(weights: str | None, device: torch.device) -> Extractor:
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    path = Path(weights).expanduser() if weights is not None else _inception_file()
    if not path.is_file():
        raise UserError(f"weights={weights}: no such file")
    what = f"weights={path}: not torch-fidelity's weights of Inception ({INCEPTION_FILE})"
    try:
        torch.load(path, map_location="cpu", weights_only=True)  # torch-fidelity would run its code
        network = FeatureExtractorInceptionV3(
            "inception", ["2048", "logits_unbiased"], feature_extractor_weights_path=str(path)
        )
    except Exception as error:  # torch.load raises nearly anything at a foreign file
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"{what}: {reason[:120]}") from None
    network.to(device)
    return Extractor("inception", sha256_of(path), network, channels=3, classifies=True)


def _inception_file() -> Path:
    """Where torch-fidelity keeps its weights, downloaded if they are not there yet."""
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


# --- a network of the user's ----------------------------------------------------------------------


def _of_the_user(
    path: Path, typed: str, shape: tuple[int, int, int], device: torch.device
) -> Extractor:
    """A TorchScript or torch.export file: uint8 (N, C, H, W) to features, or (features, logits)."""
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
            warnings.simplefilter("ignore")  # TorchScript is old, and people have files of it
            if suffix == EXPORTED:
                network: Network = torch.export.load(path).module().to(device)
            else:
                network = torch.jit.load(path, map_location=device).eval()
    except Exception as error:  # a foreign file raises nearly anything
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        kind = "torch.export" if suffix == EXPORTED else "TorchScript"
        raise UserError(f"extractor={typed}: cannot be read as {kind}: {reason[:120]}") from None
    channels, classifies = _probed(network, typed, shape, device)
    return Extractor(path.stem, sha256_of(path), network, channels, classifies)


def _probed(
    network: Network, typed: str, shape: tuple[int, int, int], device: torch.device
) -> tuple[int, bool]:
    """The channels that a user's network takes, and whether it gives logits.

    Those of the images if it can, else the other: 1 or 3.

    Raises UserError, with what the network said, if it takes neither or gives no features.
    """
    complaints = []
    for channels in (shape[0], 4 - shape[0]):  # 1 and 3, or 3 and 1
        probe = torch.zeros(2, channels, *shape[1:], dtype=torch.uint8, device=device)
        try:
            with torch.no_grad():
                made = network(probe)
        except Exception as error:  # whatever the network does not like
            lines = str(error).strip().splitlines() or [type(error).__name__]
            complaints.append(lines[-1])
            continue
        parts = made if isinstance(made, (tuple, list)) else (made,)
        fits = [isinstance(part, Tensor) and part.dim() > 1 and len(part) == 2 for part in parts]
        if len(parts) <= 2 and all(fits):
            return channels, len(parts) == 2
        complaints.append("it gives neither features (N, D) nor features and logits")
    raise UserError(
        f"extractor={typed}: does not take uint8 images (N, {shape[0]}, {shape[1]}, {shape[2]}): "
        f"{complaints[0][:160]}"
    )

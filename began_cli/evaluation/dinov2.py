"""DINOv2's features of images (2304.07193), as dgm-eval computes them (2306.04675).

The network is timm's, and its weights those of Meta, in timm's or in Meta's own file.
"""

import pickle
import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from began_cli.errors import UserError, reason

MODELS = {  # extractor -> its name in tables, and timm's for the network
    "dinov2": ("dinov2-l", "vit_large_patch14_dinov2.lvd142m"),
    "dinov2-b": ("dinov2-b", "vit_base_patch14_dinov2.lvd142m"),
}
SIDE, PATCH = 224, 14
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
OFFSET = 0.1  # in patches: Meta's code adds it to the side when it resizes the position embedding


class Dinov2(nn.Module):
    """uint8 colour images (N, 3, H, W) to the class token after the last norm, (N, D)."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(STD).view(3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        x = resize(images).to(self.mean.device).float() / 255
        return self.network((x - self.mean) / self.std)


def resize(images: Tensor) -> Tensor:
    """Return uint8 images (N, 3, H, W) at 224 pixels a side, by Pillow's bicubic filter.

    The result is rounded to uint8, as by torchvision's `Resize` in dgm-eval.
    """
    side = (SIDE, SIDE)
    rows = [Image.fromarray(x) for x in images.permute(0, 2, 3, 1).cpu().numpy()]
    arrays = [np.asarray(row.resize(side, Image.Resampling.BICUBIC)) for row in rows]
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2)


def load(name: str, weights: str | None, device: torch.device) -> tuple[Dinov2, Path]:
    """Return the network of an extractor in MODELS, and the file of its weights.

    `weights`: a .safetensors or PyTorch file; None: from timm's cache, else downloaded. Raise
    UserError if timm is not installed or the weights cannot be had.
    """
    model = MODELS[name][1]
    try:
        import timm
    except ImportError:
        raise UserError(f"extractor={name}: needs timm; pip install 'began[dino]'") from None
    path = _find(name, model) if weights is None else Path(weights).expanduser()
    if not path.is_file():
        raise UserError(f"weights={weights}: no such file")
    network = timm.create_model(model, num_classes=0, img_size=SIDE)
    state = _read(path)
    state.pop("mask_token", None)  # of the training, in Meta's files
    state["pos_embed"] = resize_positions(state.get("pos_embed", torch.empty(0)))
    expected = network.state_dict()
    wrong = [key for key in expected if key not in state or state[key].shape != expected[key].shape]
    wrong += state.keys() - expected.keys()
    if wrong:
        raise UserError(
            f"weights={path}: not those of {MODELS[name][0]} ({model}): {len(wrong)} tensors are "
            f"missing, superfluous or of another shape, such as {wrong[0]}"
        )
    network.load_state_dict(state)
    return Dinov2(network).to(device).eval().requires_grad_(False), path


def resize_positions(embedding: Tensor) -> Tensor:
    """Return a position embedding (1, 1 + M^2, D) for the 16 x 16 patches of 224 pixels.

    The grid is resized as by Meta's code, bicubic and without the smoothing that timm applies. What
    has another shape, or fits already, is returned as it is.
    """
    side = SIDE // PATCH
    m = round((embedding.shape[1] - 1) ** 0.5) if embedding.dim() == 3 else 0
    if m in (0, side) or m * m + 1 != embedding.shape[1]:
        return embedding
    token, grid = embedding.float().split([1, m * m], 1)
    grid = grid.unflatten(1, (m, m)).permute(0, 3, 1, 2)
    scale = (side + OFFSET) / m
    grid = F.interpolate(grid, scale_factor=(scale, scale), mode="bicubic")
    return torch.cat([token, grid.flatten(2).transpose(1, 2)], 1)


def _find(name: str, model: str) -> Path:
    """Return the file of weights in timm's cache, downloaded if it is not there yet."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.utils import logging

    logging.set_verbosity_error()  # it tells of each try without a network
    place = f"timm/{model}", "model.safetensors"
    try:
        return Path(hf_hub_download(*place, local_files_only=True))
    except Exception:  # of many kinds, and the download says more
        pass
    try:
        return Path(hf_hub_download(*place))
    except Exception as error:
        raise UserError(
            f"extractor={name}: its weights cannot be downloaded ({reason(error)[:120]}); give "
            f"{place[1]} of huggingface.co/{place[0]}, or Meta's .pth, as weights=FILE"
        ) from None


def _read(path: Path) -> dict[str, Tensor]:
    """Return the tensors in a file, on the CPU. No code in it is run."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd pickles: what it can't read, it refuses
            state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise UserError(f"weights={path}: not a file of tensors alone; it may hold code") from None
    except Exception:  # a foreign file raises almost anything
        problem = "cannot be read: cut short, or no file of weights"
        raise UserError(f"weights={path}: {problem}") from None
    if not isinstance(state, dict) or not all(isinstance(x, Tensor) for x in state.values()):
        raise UserError(f"weights={path}: no table of tensors by name")
    return state

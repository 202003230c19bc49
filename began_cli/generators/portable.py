"""A trained generator by itself: one file with a card, which needs no run folder and no `conf/`.

A .safetensors file holds tensors and the card, and reading it runs no code. ONNX and torch.export
files hold the computation too, for programs that do not have began.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from began_cli import __version__
from began_cli.device import pick_device
from began_cli.errors import UserError
from began_cli.files import replacing
from began_cli.gan import latents, networks
from began_cli.generators import checkpoint
from began_cli.settings.parse import parse, to_plain
from began_cli.settings.train import FileDatasetConfig, TrainConfig

FORMAT = 1
KEY = "began"  # where a file's metadata hold the card
CHECKED = (1, 7, 64)  # batches that an exported file is compared on
TOLERANCE = 1e-4  # of images in [-1, 1]


class TrainedGenerator(nn.Module):
    """A generator with its card: latents (N, latent_dim) to images (N, C, H, W) in [-1, 1]."""

    def __init__(self, network: nn.Module, card: dict[str, Any]) -> None:
        super().__init__()
        self.network, self.card = network, card
        self.latent_dim: int = card["latents"]["dim"]

    def forward(self, z: Tensor) -> Tensor:
        return self.network(z).clamp(-1, 1)

    def latents(self, seeds: list[int] | range) -> Tensor:
        """The latents (len(seeds), latent_dim) that `began sample seeds=…` uses."""
        return latents.from_seeds(seeds, self.latent_dim)


def load_generator(ckpt: str | os.PathLike[str] | None, device: str = "cpu") -> TrainedGenerator:
    """The generator of an exported .safetensors file, a checkpoint, or a run folder (its newest).

    In evaluation mode, without gradients for its weights. Runs no code from the file. Raises
    UserError if it cannot be read.
    """
    on, named = pick_device(device), None if ckpt is None else os.fspath(ckpt)
    if named is not None and is_exported(named):
        network, _, card = read(Path(named).expanduser(), on)
    else:
        path, state, _ = checkpoint.read(named)
        return of_checkpoint(path, state, on)
    return TrainedGenerator(network, card).eval()


def of_checkpoint(path: Path, state: dict[str, Any], device: torch.device) -> TrainedGenerator:
    """The generator of what a checkpoint holds, in evaluation mode, with its card."""
    with checkpoint.fits(path):
        network, _ = checkpoint.generator_of(state, device)
        return TrainedGenerator(network, card_of(state)).eval()


def card_of(state: dict[str, Any]) -> dict[str, Any]:
    """What a checkpoint's generator is, in plain values: the card of its exported file."""
    trained = parse("train", state["config"])
    if isinstance(trained.dataset, FileDatasetConfig):
        trained.dataset.root = "."  # the folders of this machine are nobody else's business
    trained.out, trained.resume = ".", None
    data, model = trained.dataset, trained.model
    card: dict[str, Any] = {
        "format": FORMAT,
        "began": __version__,
        "step": state["step"],
        "latents": {"law": "uniform", "low": -1.0, "high": 1.0, "dim": model.latent_dim},
        "images": {
            "size": data.image_size,
            "channels": data.channels,
            "range": [-1.0, 1.0],
            "layout": "NCHW",
        },
        "data": {key: state["data"][key] for key in ("count", "sha256") if key in state["data"]},
        "settings": to_plain(trained),
    }
    if "scores" in state:
        card["scores"] = state["scores"]
    return card


# --- reading --------------------------------------------------------------------------------------


def is_exported(ckpt: str) -> bool:
    """Whether `ckpt` names an exported file and not a checkpoint or a run."""
    return Path(ckpt).suffix == ".safetensors"


def read(path: Path, device: torch.device) -> tuple[nn.Module, TrainConfig, dict[str, Any]]:
    """The generator of a .safetensors file, the settings of its training, and its card.

    Raises UserError if it is not such a file, or not a whole one.
    """
    try:
        with safe_open(path, framework="pt") as file:
            card = json.loads((file.metadata() or {}).get(KEY, "null"))
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise UserError(f"ckpt={path}: no such file or folder") from None
    except OSError as error:
        raise UserError(f"ckpt={path}: cannot be read ({error.strerror or error})") from None
    except (SafetensorError, ValueError) as error:
        raise UserError(f"ckpt={path}: not a whole .safetensors file ({error})") from None
    if not isinstance(card, dict):
        raise UserError(f"ckpt={path}: not written by began export: it has no card")
    if card.get("format") != FORMAT:
        raise UserError(
            f"ckpt={path}: format {card.get('format')}, and this began reads format {FORMAT}; "
            f"use began {card.get('began')}"
        )
    with checkpoint.fits(path):
        trained = parse("train", checkpoint.upgrade_config(card["settings"]))
        network = networks.build_generator(trained, device)
        network.load_state_dict(weights)
    return network.eval().requires_grad_(False), trained, card


# --- writing --------------------------------------------------------------------------------------


def write(generator: TrainedGenerator, path: Path, form: str) -> float:
    """Writes the generator in one of the forms, and its card beside it, or nothing at all.

    What was written is read back and compared before it gets its name: returns the greatest
    difference of a pixel in [-1, 1]. Raises UserError if a package is missing, or it differs.
    """
    writers = {"safetensors": _safetensors, "onnx": _onnx, "torch": _pt2}
    generator = generator.cpu().eval()
    text = json.dumps(generator.card, indent=1, ensure_ascii=False)
    with replacing(path, path.suffix) as temporary:
        again = writers[form](generator, temporary, text)
        worst = 0.0
        for n in CHECKED:
            z = generator.latents(range(n))
            with torch.no_grad():
                worst = max(worst, (again(z) - generator(z)).abs().max().item())
        if not worst <= TOLERANCE:
            raise UserError(
                f"format={form}: the file's images differ from PyTorch's by {worst:.2g}, more than "
                f"{TOLERANCE:g}; nothing was written"
            )
        _flush(temporary)
    with replacing(card_path(path)) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
        _flush(temporary)
    return worst


def card_path(path: Path) -> Path:
    """Where the card of an exported file stands."""
    return path.with_name(f"{path.name}.json")


Images = Callable[[Tensor], Tensor]


def _safetensors(generator: TrainedGenerator, path: Path, card: str) -> Images:
    save_file(generator.network.state_dict(), path, {KEY: card})
    network, _, written = read(path, torch.device("cpu"))
    return TrainedGenerator(network, written)


def _pt2(generator: TrainedGenerator, path: Path, card: str) -> Images:
    program = torch.export.export(
        generator, (generator.latents(range(2)),), dynamic_shapes={"z": _batches()}
    )
    torch.export.save(program, path, extra_files={"card.json": card})
    module = torch.export.load(path).module()
    return lambda z: module(z)


def _onnx(generator: TrainedGenerator, path: Path, card: str) -> Images:
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401 - torch.onnx needs it
    except ImportError as error:
        raise UserError(
            f"format=onnx: the package {error.name} is missing; "
            "python -m pip install 'began[onnx]', or use format=torch"
        ) from None
    program = torch.onnx.export(
        generator,
        (generator.latents(range(2)),),
        dynamo=True,
        dynamic_shapes={"z": _batches()},
        input_names=["latents"],
        output_names=["images"],
        verbose=False,
    )
    assert program is not None
    model = program.model_proto
    model.metadata_props.add(key=KEY, value=card)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda z: torch.from_numpy(session.run(["images"], {"latents": z.numpy()})[0])


def _batches() -> dict[int, Any]:
    return {0: torch.export.Dim("batch", min=1)}


def _flush(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())

"""Export a trained generator to one file, which needs neither the run folder nor `conf/`.

A .safetensors file holds the weights and a card, and `load` reads it without running code; if the
card has "weights": "float16", they are in half precision. ONNX and torch.export files hold the
computation too, for programs that do not have began.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from began_cli.errors import UserError
from began_cli.files import replacing
from began_cli.generators.load import KEY, TrainedGenerator, load_generator

CHECKED = (1, 7, 64)  # batch sizes at which a file is compared with the generator
TOLERANCE = 1e-4  # of images in [-1, 1]

Images = Callable[[Tensor], Tensor]  # latents (N, latent_dim) to images (N, C, H, W)


def write(generator: TrainedGenerator, path: Path, kind: str) -> float:
    """Write the generator as `kind` (safetensors, onnx or torch), and its card beside it.

    The file is read back and compared before it takes its name. Return the greatest difference of a
    pixel in [-1, 1]. Raise UserError, writing nothing, if it is above TOLERANCE or a package is
    missing.
    """
    writers = {"safetensors": _safetensors, "onnx": _onnx, "torch": _pt2}
    generator = generator.cpu().eval()
    card = json.dumps(generator.card, indent=1, ensure_ascii=False)
    with replacing(path, path.suffix, durable=True) as temporary:
        again = writers[kind](generator, temporary, card)
        worst = 0.0
        for n in CHECKED:
            z = generator.latents(range(n))
            with torch.no_grad():
                worst = max(worst, (again(z) - generator(z)).abs().max().item())
        if not worst <= TOLERANCE:
            raise UserError(
                f"format={kind}: the file's images differ from PyTorch's by {worst:.2g}, more than "
                f"{TOLERANCE:g}; nothing was written"
            )
    with replacing(card_path(path), durable=True) as temporary:
        temporary.write_text(card + "\n", encoding="utf-8")
    return worst


def card_path(path: Path) -> Path:
    """Return the path of the card of an exported file."""
    return path.with_name(f"{path.name}.json")


# Each writes a file and returns the function that the file computes.


def _safetensors(generator: TrainedGenerator, path: Path, card: str) -> Images:
    weights = generator.network.state_dict()
    if generator.card.get("weights") == "float16":
        weights = {k: v.half() if v.is_floating_point() else v for k, v in weights.items()}
    path.write_bytes(save(weights, {KEY: card}))
    return load_generator(path)


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

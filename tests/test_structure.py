"""The house rules that a machine can hold."""

import ast
from pathlib import Path

import pytest
import torch
from conftest import settings
from omegaconf import OmegaConf

from began_cli import cli
from began_cli.data.batches import Batches
from began_cli.errors import UserError
from began_cli.gan.build import build
from began_cli.gan.latents import LatentStream
from began_cli.settings.fields import COMMANDS, GROUPS
from began_cli.settings.parse import parse, to_plain

LOSS_FILES = sorted(path.stem for path in (cli.CONF / "loss").glob("*.yaml"))
PACKAGE = Path(cli.__file__).parent
# From the ground up: a module imports from the levels below its own, and from its own folder.
LEVELS = (
    {"errors", "__init__"},  # of __init__: the version
    {"files", "ranks", "terminal"},
    {"block", "images", "device", "settings"},
    {"gan", "data"},
    {"generators"},
    {"evaluation"},
    {"training", "comparison", "explore"},
    {"commands"},
    {"error_text"},
    {"run_command"},
    {"cli"},
    {"python"},
    {"__main__"},
)
LEVEL = {room: level for level, rooms in enumerate(LEVELS) for room in rooms}


def modules():
    return sorted(PACKAGE.rglob("*.py"))


def imported(path: Path) -> set[str]:
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("began_cli"):
            parts = node.module.split(".")
            names = [parts[1]] if len(parts) > 1 else [alias.name for alias in node.names]
            rooms |= {name if name != "__version__" else "__init__" for name in names}
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if alias.name.startswith("began_cli.")]
            rooms |= {name.split(".")[1] for name in names}
    return rooms


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_downwards(path):
    if path == PACKAGE / "__init__.py":
        return  # it fetches its functions from above when they are asked for
    room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    upwards = {name for name in imported(path) - {room} if LEVEL[name] >= LEVEL[room]}
    assert not upwards


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_the_command_line_and_the_settings_know_hydra(path):
    source = path.read_text()
    room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if room not in ("cli", "settings", "error_text", "run_command", "python"):
        assert "import hydra" not in source
        assert "omegaconf" not in source
    assert "_target_" not in source


def test_every_command_has_a_module_and_settings():
    names = {path.stem for path in cli.CONF.glob("*.yaml")}
    assert names == set(COMMANDS)
    assert names <= {path.stem for path in (PACKAGE / "commands").glob("*.py")}


def test_every_module_has_its_tests_at_the_mirrored_path():
    tests = Path(__file__).parent
    modules_of = [path for path in modules() if path.name not in ("__init__.py", "__main__.py")]
    mirrors = [path.relative_to(PACKAGE).with_name(f"test_{path.name}") for path in modules_of]
    assert [str(path) for path in mirrors if not (tests / path).exists()] == []


def test_every_key_stands_in_a_yaml_with_a_comment():
    for path in cli.CONF.rglob("*.yaml"):
        text = path.read_text().split("\nhydra:")[0].split("\n")
        for line in text:
            key = line.strip().partition(":")[0]
            is_list = line.strip().startswith("-") or not line.strip() or line.startswith("#")
            opens = line.rstrip().endswith(":") or key in (
                "name",
                "optimizer",
                "steps",
                "batch_size",
            )
            if not is_list and not opens:
                assert "#" in line, f"{path.name}: {line}"


REFUSED = {
    "model=began dataset=ring": "use model=mlp",
    "model=dcgan dataset=ring": "use model=mlp",
    "loss=bgan_discrete dataset=ring": "black and white",
    "loss=bgan_discrete dataset=stacked_mnist": "three digits",
    "loss=bgan_discrete dataset=avatars": "avatars are in colour",
}


@pytest.mark.parametrize("loss", LOSS_FILES)
@pytest.mark.parametrize("model", GROUPS["model"])
@pytest.mark.parametrize("dataset", GROUPS["dataset"])
def test_every_loss_dataset_model_composes_and_takes_two_steps(loss, model, dataset):
    line = [f"loss={loss}", f"model={model}", f"dataset={dataset}", "batch_size=4"]
    line += ["dataset.root=x"] if dataset == "folder" else []
    line += ["dataset.image_size=16", "dataset.width=2"] if dataset != "ring" else []
    line += ["dataset.channels=1"] if loss == "bgan_discrete" and dataset != "ring" else []
    pairs = (f"model={model} dataset={dataset}", f"loss={loss} dataset={dataset}")
    if reason := REFUSED.get(pairs[0]) or REFUSED.get(pairs[1]):
        with pytest.raises(UserError, match=reason):
            settings("train", *line)
        return
    cfg = settings("train", *line)
    assert (cfg.model.name, cfg.dataset.name) == (model, dataset)
    again = parse("train", OmegaConf.create(to_plain(cfg)))
    assert again == cfg
    if dataset in ("fashion_mnist", "stacked_mnist", "folder", "avatars"):
        return  # the same shapes as mnist or cifar10: the same networks

    size = cfg.dataset.image_size
    if dataset == "ring":
        pixels = torch.rand(20, 2, 1, 1)
    else:
        pixels = torch.randint(0, 256, (20, cfg.dataset.channels, size, size), dtype=torch.uint8)
    cpu = torch.device("cpu")
    update = build(cfg, pixels, cpu)
    batches = Batches(pixels, 4, 0, cpu)
    stream = LatentStream(4, cfg.model.latent_dim, 0, cpu)
    for _ in range(2):
        measures = update(batches, stream)
    assert all(torch.isfinite(value) for value in measures.scalars.values())
    assert update.ema(stream()).shape == (4, cfg.dataset.channels, size, size)

"""The house rules that a machine can hold."""

import ast
from pathlib import Path

import pytest
import torch
from conftest import settings
from omegaconf import OmegaConf

from began_cli import cli, config
from began_cli import settings as reading
from began_cli.data.batches import Batches
from began_cli.errors import UserError
from began_cli.gan.build import build
from began_cli.gan.latents import LatentStream

LOSS_FILES = sorted(path.stem for path in (cli.CONF / "loss").glob("*.yaml"))
PACKAGE = Path(config.__file__).parent
BASE = {"checks", "config", "ranks", "settings", "errors", "files", "images", "__init__"}
# room -> what it may import from began_cli
ALLOWED = {
    "errors": set(),
    "command_config": set(),
    "config": {"command_config"},
    "checks": {"config", "errors"},
    "settings": {"checks", "config", "errors"},
    "files": set(),
    "images": {"files"},
    "ranks": {"errors"},
    "gan": BASE,
    "data": BASE,
    "run": BASE,
    "evaluation": BASE,
    "comparison": BASE,
    "commands": BASE | {"gan", "data", "run", "evaluation", "comparison"},
    "cli": {"settings", "errors", "task", "wording", "__init__"},
    "task": {"settings", "errors", "commands", "wording"},
    "wording": {"errors"},
    "__main__": {"cli"},
    "__init__": {"run"},  # load_generator, when it is asked for
}
EXCEPTIONS = {("run/checkpoint.py", "gan"), ("run/monitor.py", "gan")}  # rebuild G; Measures
EXCEPTIONS |= {("run/portable.py", "gan")}  # rebuild G from its own file


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
def test_imports_go_one_way(path):
    relative = path.relative_to(PACKAGE)
    room = relative.parts[0].removesuffix(".py")
    foreign = imported(path) - ALLOWED[room] - {room}
    assert {(relative.as_posix(), name) for name in foreign} <= EXCEPTIONS


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_cli_and_config_know_hydra(path):
    source = path.read_text()
    if path.stem not in ("cli", "config", "command_config", "settings", "wording", "task"):
        assert "import hydra" not in source
        assert "omegaconf" not in source
    assert "_target_" not in source
    assert len(source.splitlines()) <= 350


def test_every_command_has_a_module_and_settings():
    names = {path.stem for path in cli.CONF.glob("*.yaml")}
    assert names == set(config.COMMANDS)
    assert names <= {path.stem for path in (PACKAGE / "commands").glob("*.py")}


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


FROZEN = """
    accumulate batch_size checkpoint_every compile dataset.channels dataset.device dataset.fallback
    dataset.flip dataset.image_size dataset.name dataset.root dataset.width device devices disk_full
    dry_run ema.decay evaluate_every evaluation.extractor evaluation.n evaluation.score
    evaluation.weights
    log_every loss.content_floor loss.energy loss.gamma loss.k_0 loss.k_max loss.k_min
    loss.lambda_k loss.name loss.separate_latents model.carry_steps model.code_dim
    model.first_stage model.gain model.init model.latent_dim model.name model.output model.residual
    model.skips model.upsample model.width optimizer.betas optimizer.eps
    optimizer.lr optimizer.lr_d optimizer.lr_g optimizer.name out precision resume sample_every
    schedule.cooldown
    schedule.floor schedule.name schedule.threshold schedule.window seed steps watch.diversity
    watch.patience watch.rollbacks watchdog
"""


def test_names_of_the_settings_are_frozen():
    """People and scripts type them."""
    from began_cli.run.resume import flat

    cfg = settings("train", "loss=began")
    assert sorted(flat(reading.plain(cfg))) == FROZEN.split()


REFUSED = {
    "model=began dataset=ring": "use model=mlp",
    "model=dcgan dataset=ring": "use model=mlp",
    "loss=bgan_discrete dataset=ring": "black and white",
    "loss=bgan_discrete dataset=stacked_mnist": "three digits",
}


@pytest.mark.parametrize("loss", LOSS_FILES)
@pytest.mark.parametrize("model", config.MODELS)
@pytest.mark.parametrize("dataset", config.DATASETS)
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
    again = reading.parse("train", OmegaConf.create(reading.plain(cfg)))
    assert again == cfg
    if dataset in ("fashion_mnist", "stacked_mnist", "folder"):
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

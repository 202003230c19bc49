import json
from pathlib import Path

import pytest
import torch
from conftest import TINY
from safetensors import safe_open
from safetensors.torch import save_file

import began_cli
from began_cli import images, load_generator
from began_cli.errors import UserError
from began_cli.gan import latents, networks
from began_cli.generators import checkpoint
from began_cli.generators.load import load, make_card
from began_cli.settings.parse import parse

CPU = torch.device("cpu")


def by_hand(run) -> torch.nn.Module:
    """Return the averaged generator of a run's newest checkpoint, without `load`."""
    state = checkpoint.read(str(run))[1]
    settings = parse("train", state["config"])
    network = networks.build_generator(settings, CPU)
    network.load_state_dict(state["ema"])
    return network.eval().requires_grad_(False)


def test_a_run_a_checkpoint_and_an_exported_file_are_the_same_generator(began, tiny_run):
    assert began("export", f"ckpt={tiny_run}", "out=g.safetensors")[0] == 0
    path = checkpoint.find_all(tiny_run)[-1]
    z = latents.from_seeds([0, 1], 8)
    expected = by_hand(tiny_run)(z)
    for ckpt, file in ((tiny_run, path), (path, path), ("g.safetensors", Path("g.safetensors"))):
        trained = load(str(ckpt), CPU)
        assert trained.path == file
        assert torch.equal(trained.network(z), expected)
        assert not trained.network.training
        assert not any(weight.requires_grad for weight in trained.network.parameters())
        assert trained.card == make_card(checkpoint.load(path))
        assert trained.settings.loss.name == "bgan"


def test_the_best_checkpoint_and_the_newest_run(tiny_run, tmp_path):
    path = checkpoint.find_all(tiny_run)[-1]
    best = path.with_name("best-step-00000003.pt")
    torch.save(checkpoint.load(path) | {"step": 3}, best)
    assert load(f"{tiny_run}/best", CPU).card["step"] == 3
    (tmp_path / "outputs").mkdir()
    tiny_run.rename(tmp_path / "outputs" / "mine")
    assert load(None, CPU).path == Path("outputs/mine/checkpoints") / path.name


def test_a_damaged_checkpoint_is_skipped_with_a_warning(tiny_run, capfd):
    damaged = checkpoint.path_for(tiny_run, 5)
    damaged.write_bytes(b"PK")
    assert load(str(tiny_run), CPU).card["step"] == 4
    assert capfd.readouterr().err.startswith(f"warning: ckpt={damaged}: not a checkpoint")


def test_samples_are_the_moving_averages(tiny_run):
    trained = load(str(tiny_run), CPU)
    state, weights = trained.checkpoint("ckpt"), trained.network.state_dict()
    assert all(torch.equal(weights[key], value) for key, value in state["ema"].items())
    assert not all(torch.equal(weights[key], value) for key, value in state["generator"].items())


def test_points_only_on_request(began, tmp_path):
    line = ["dataset=ring", "steps=1", "batch_size=4", "model.width=4", "hydra.run.dir=ring"]
    assert began("train", *line)[0] == 0
    with pytest.raises(UserError, match="makes points of the plane"):
        load("ring", CPU)
    generator = load_generator("ring")
    assert generator(generator.latents([0])).shape == (1, 2, 1, 1)


def test_a_critic_of_scores_or_of_an_exported_file_is_refused(began, tiny_run):
    with pytest.raises(UserError, match="the critic of loss=bgan gives scores"):
        load(str(tiny_run), CPU).critic("mode=reconstruct")
    assert began("export", f"ckpt={tiny_run}", "out=g.safetensors")[0] == 0
    with pytest.raises(UserError, match=r"start=encoder: g\.safetensors holds the generator alone"):
        load("g.safetensors", CPU).critic("start=encoder")


def test_the_critic_is_that_of_the_checkpoint(began, digits, tmp_path):
    line = ["loss=began", "model=began", "steps=2", f"dataset.root={digits}", *TINY]
    assert began("train", *line, "hydra.run.dir=ae")[0] == 0
    critic, loss = load("ae", CPU).critic("mode=reconstruct")
    state = checkpoint.read("ae")[1]
    for network, key in ((critic, "discriminator"), (loss, "loss")):
        weights = network.state_dict()
        assert weights.keys() == state[key].keys()
        assert all(torch.equal(weights[name], value) for name, value in state[key].items())
    assert not critic.training


def test_load_generator_takes_a_run_too(tiny_run):
    generator = load_generator(tiny_run)
    assert not generator.training
    z = latents.from_seeds(range(64), 8)
    assert torch.equal(generator.latents(range(64)), z)
    assert (generator(z).numpy() == by_hand(tiny_run)(z).clamp(-1, 1).numpy()).all()
    assert generator.card == make_card(checkpoint.read(str(tiny_run))[1])
    with pytest.raises(AttributeError, match="no attribute 'load_generators'"):
        _ = began_cli.load_generators


def test_files_that_are_no_exports(began, tiny_run, tmp_path):
    assert began("export", f"ckpt={tiny_run}", "out=whole.safetensors")[0] == 0
    whole = Path("whole.safetensors").read_bytes()
    Path("cut.safetensors").write_bytes(whole[: len(whole) // 2])
    Path("empty.safetensors").write_bytes(b"")
    save_file({"w": torch.zeros(2)}, "foreign.safetensors")
    with safe_open("whole.safetensors", "pt") as file:
        card = json.loads(file.metadata()["began"])
    later = {**card, "format": 2, "began": "9.9"}
    save_file({"w": torch.zeros(2)}, "later.safetensors", {"began": json.dumps(later)})
    save_file({"w": torch.zeros(2)}, "misfit.safetensors", {"began": json.dumps(card)})
    messages = {
        "cut": "not a whole .safetensors file",
        "empty": "not a whole .safetensors file",
        "foreign": "it has no card",
        "later": "format 2, and this began reads format 1; use began 9.9",
        "misfit": "do not fit together",
    }
    for name, text in messages.items():
        code, _, err = began("sample", f"ckpt={name}.safetensors")
        assert (code, err.count("\n")) == (2, 1), err
        assert text in err
        with pytest.raises(UserError, match="safetensors"):
            load_generator(f"{name}.safetensors")


def test_images_are_in_range(tiny_run):
    generator = load_generator(tiny_run)
    made = generator(generator.latents([1, 2]) * 50)
    assert made.abs().max() <= 1
    assert images.to_uint8(made).dtype == torch.uint8

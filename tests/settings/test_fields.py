"""What the fields say about the settings: paths, and what a resumed run may change."""

from dataclasses import dataclass

import pytest
from omegaconf import MISSING

from began_cli.settings import fields
from began_cli.settings.fields import command, names_with, option, setting
from began_cli.settings.train import PATHS, RESUMABLE

FROZEN = """
    checkpoint_every compile dataset.cache dataset.device dataset.fallback dataset.root device
    devices disk_full dry_run evaluate_every evaluation.extractor evaluation.n evaluation.score
    evaluation.weights graph log_every out resume sample_every show steps watch.diversity
    watch.patience watch.rollbacks watchdog
"""


def test_the_settings_that_a_resumed_run_may_change_are_frozen():
    assert sorted(RESUMABLE) == FROZEN.split()


def test_the_settings_that_are_paths():
    train = {"dataset.cache", "dataset.root", "out", "resume"}
    train |= {"evaluation.weights", "evaluation.extractor"}
    others = {"beside", "cache", "ckpt", "extractor", "images", "latents", "out", "root", "runs"}
    others |= {"test_root", "weights"}
    assert train | others == PATHS


@pytest.mark.parametrize("name", ["weights", "extractor"])
def test_a_path_inside_a_part_is_taken_as_it_is_typed(began, name):
    code, out, err = began("train", f"evaluation.{name}=a=b, c.pth", "--cfg", "job")
    assert code == 0, err
    assert f"  {name}: a=b, c.pth\n" in out


def test_names_come_from_every_command_part_and_option(monkeypatch):
    monkeypatch.setattr(fields, "COMMANDS", {})
    monkeypatch.setattr(fields, "GROUPS", {"loss": {}})

    @dataclass
    class Part:
        file: str = setting(path=True)
        n: int = setting(resumable=True)

    @option("loss", "a", "b")
    class Loss:
        weights: str = setting(path=True)

    @command("fly")
    class Fly:
        part: Part = setting()
        out: str = setting(path=True, resumable=True)

    assert {"fly": Fly} == fields.COMMANDS
    assert {"loss": {"a": Loss, "b": Loss}} == fields.GROUPS
    assert names_with("path") == {"part.file", "out", "loss.weights"}
    assert names_with("resumable") == {"part.n", "out"}


def test_no_setting_has_a_value_of_its_own():
    assert setting().default == MISSING

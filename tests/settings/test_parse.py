"""Settings from a table of names and values, to YAML and back."""

import pytest
from conftest import settings
from omegaconf.errors import OmegaConfBaseException

from began_cli.errors import UserError
from began_cli.settings.fields import GROUPS
from began_cli.settings.parse import file_name, flatten, parse, read_yaml, to_plain, to_yaml


def test_what_composes_survives_its_own_yaml(began, tmp_path):
    for loss in GROUPS["loss"]:
        cfg = settings("train", f"loss={loss}")
        (tmp_path / "config.yaml").write_text(to_yaml(cfg))
        assert flatten(read_yaml(tmp_path / "config.yaml")) == flatten(to_plain(cfg))


def test_nested_settings_become_dotted_names():
    tree = {"a": {"b": 1, "c": {"d": [2, 3]}}, "e": None, "f": False}
    assert flatten(tree) == {"a.b": 1, "a.c.d": "[2, 3]", "e": "None", "f": False}


def test_values_are_completed_typed_and_checked():
    plain = to_plain(settings("train", "loss=began"))
    plain["loss"]["gamma"], plain["steps"] = "0.25", "7"
    cfg = parse("train", plain)
    assert (cfg.loss.gamma, cfg.steps) == (0.25, 7)
    with pytest.raises(UserError, match=r"^watch\.patience=0: wants"):
        parse("train", plain | {"watch": plain["watch"] | {"patience": 0}})
    with pytest.raises(OmegaConfBaseException, match="unknown"):
        parse("train", plain | {"unknown": 1})


@pytest.mark.parametrize("loss", ["nothing", None, {"name": "nothing"}, {}])
def test_an_option_that_there_is_not_is_refused(loss):
    with pytest.raises(UserError, match=r"^loss\.name=.*: wants one of .*bgan"):
        parse("train", to_plain(settings("train")) | {"loss": loss})


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"- 1\n- 2\n", "holds no settings"),
        (b"a: [", "parsing a flow"),
        (b"\xff\xfe\x00", "can't decode"),
        (b"a: ${nothing", "no viable alternative"),
    ],
)
def test_a_file_without_settings_is_a_value_error(tmp_path, text, why):
    (tmp_path / "config.yaml").write_bytes(text)
    with pytest.raises(ValueError, match=why):
        read_yaml(tmp_path / "config.yaml")


def test_a_file_name_is_safe_short_and_unlike_others():
    assert file_name("a/b\\c 'd'") == "a-b-c-d-"
    long, other = file_name("ü" * 150), file_name("ü" * 151)
    assert long != other
    assert len(long.encode()) < 60
    assert long.startswith("ü" * 25 + "-")
    assert file_name("a" * 59) == "a" * 59
    assert len(file_name("a" * 60)) < 60

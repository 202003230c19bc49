"""Read and write settings: schemas for Hydra, and `parse()`.

Hydra composes against the schemas, so a wrong name or type fails before anything is written. Below
this module and `cli` a setting is a plain dataclass: neither Hydra nor OmegaConf is known there.
"""

import hashlib
import re
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from began_cli.errors import UserError
from began_cli.settings.checks import check_fields
from began_cli.settings.fields import COMMANDS, GROUPS
from began_cli.settings.train import TrainConfig  # also registers every schema

OmegaConf.register_new_resolver("times", lambda a, b: a * b, replace=True)
OmegaConf.register_new_resolver("when", lambda a, b, c, d=None: c if a == b else d, replace=True)


def file_name(text: str) -> str:
    """Return the text as a file name: without slashes, and of less than 60 bytes.

    A longer one is cut, and ends in a hash of the whole text.
    """
    name = re.sub(r"[/\\\s'\"]+", "-", text)
    if len(name.encode()) < 60:
        return name
    short = hashlib.sha256(text.encode()).hexdigest()[:8]
    return f"{name.encode()[:50].decode(errors='ignore')}-{short}"


OmegaConf.register_new_resolver("file_name", file_name, replace=True)


def register_schemas() -> None:
    """Put every schema into Hydra's store, at its root so that no group lists it as a choice."""
    store = ConfigStore.instance()
    for name, schema in COMMANDS.items():
        store.store(name=f"{name}_schema", node=schema)
    for group, options in GROUPS.items():
        for name, schema in options.items():
            store.store(name=f"{group}_{name}_schema", node={group: schema})


def parse(command: str, cfg: DictConfig | dict[str, Any]) -> Any:
    """Return the settings of `command` as its dataclass: complete, typed and checked.

    Raise UserError for a value out of range, and OmegaConf's own errors for unknown names (also
    those that `+name=…` slipped past the schema) and wrong types.
    """
    plain = OmegaConf.to_container(OmegaConf.create(cfg), resolve=True)
    if not isinstance(plain, dict):
        raise UserError("the settings are not a table of names and values")
    schema = OmegaConf.structured(COMMANDS[command])
    if COMMANDS[command] is TrainConfig:
        for group, options in GROUPS.items():
            chosen = plain.get(group)
            name = chosen.get("name") if isinstance(chosen, dict) else chosen
            if name not in options:
                raise UserError(f"{group}.name={name}: wants one of {', '.join(options)}")
            schema[group] = OmegaConf.structured(options[name])
    settings: Any = OmegaConf.to_object(OmegaConf.merge(schema, plain))
    check_fields(settings)
    for step in ("check", "normalise"):  # either may be missing
        if hasattr(settings, step):
            getattr(settings, step)()
    return settings


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings as `loss.gamma` -> value; lists and None as text."""
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            leaves |= flatten(value, f"{prefix}{key}.")
        else:
            leaves[prefix + key] = str(value) if isinstance(value, list | type(None)) else value
    return leaves


def to_plain(settings: Any) -> dict[str, Any]:
    """Return the settings as plain values, as a checkpoint and `config.yaml` hold them."""
    container = OmegaConf.to_container(OmegaConf.structured(settings), enum_to_str=True)
    assert isinstance(container, dict)
    return {str(k): v for k, v in container.items()}


def read_yaml(path: Path) -> dict[str, Any]:
    """Read what `to_yaml` wrote. Raise OSError, or ValueError if the file holds no settings."""
    try:
        container = OmegaConf.to_container(OmegaConf.load(path))
    except (OmegaConfBaseException, YAMLError, UnicodeDecodeError) as error:
        raise ValueError(str(error)) from None
    if not isinstance(container, dict):
        raise ValueError(f"{path} holds no settings")
    return {str(key): value for key, value in container.items()}


def to_yaml(settings: Any) -> str:
    """Return the settings as YAML text."""
    return OmegaConf.to_yaml(OmegaConf.create(to_plain(settings)))

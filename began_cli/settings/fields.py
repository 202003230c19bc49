"""Describe each setting once, by the field of a dataclass.

A field has no value of its own: the values stand in `conf/`. Beside its type it says which rule a
value must meet, whether it is a path, and whether a resumed run may change it.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar, dataclass_transform

from omegaconf import MISSING

from began_cli.settings.checks import Rule

T = TypeVar("T")

COMMANDS: dict[str, type] = {}
GROUPS: dict[str, dict[str, type]] = {
    "loss": {},
    "model": {},
    "dataset": {},
    "optimizer": {},
    "schedule": {},
}


def setting(
    rule: Rule | None = None, *, path: bool = False, resumable: bool = False, only: str = ""
) -> Any:
    """Return a dataclass field for a setting.

    `path`: the value is taken as it is typed, whatever characters it has. `resumable`: a resumed
    run may change it, because what the run computes does not depend on it. `only`: why some losses
    lack it, for the message to a user who sets it for one of those.
    """
    metadata = {"rule": rule, "path": path, "resumable": resumable, "only": only}
    return dataclasses.field(default=MISSING, metadata=metadata)


@dataclass_transform()
def command(name: str) -> Callable[[type[T]], type[T]]:
    """Make the decorated class a dataclass: the settings of `began NAME`."""

    def register(cls: type[T]) -> type[T]:
        COMMANDS[name] = dataclasses.dataclass(slots=True)(cls)
        return COMMANDS[name]

    return register


@dataclass_transform()
def option(group: str, *names: str) -> Callable[[type[T]], type[T]]:
    """Make the decorated class a dataclass: the settings of `GROUP=NAME` for each of the names."""

    def register(cls: type[T]) -> type[T]:
        schema = dataclasses.dataclass(slots=True)(cls)
        GROUPS[group] |= dict.fromkeys(names, schema)
        return schema

    return register


def names_with(mark: str) -> frozenset[str]:
    """Return the dotted names of the settings whose field has `mark`: "path" or "resumable"."""
    names: set[str] = set()
    for schema in COMMANDS.values():
        names |= _marked(schema, mark, "")
    for group, options in GROUPS.items():
        for schema in options.values():
            names |= _marked(schema, mark, f"{group}.")
    return frozenset(names)


def _marked(schema: type, mark: str, prefix: str) -> set[str]:
    names: set[str] = set()
    for field in dataclasses.fields(schema):
        if field.metadata.get(mark):
            names.add(prefix + field.name)
        if isinstance(field.type, type) and dataclasses.is_dataclass(field.type):
            names |= _marked(field.type, mark, f"{prefix}{field.name}.")
    return names

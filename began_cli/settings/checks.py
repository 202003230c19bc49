"""Rules that a setting's value must meet. A broken one raises UserError, naming the setting."""

import dataclasses
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from began_cli.errors import UserError


@dataclass(frozen=True, slots=True)
class Rule:
    """A condition on one value, and the words for what the setting wants."""

    holds: Callable[[Any], bool]
    wants: str


def at_least(least: int) -> Rule:
    """Return the rule for a whole number of `least` or more."""
    return Rule(lambda value: value >= least, f"a whole number, {least} or more")


def from_zero(wants: str = "0 or more") -> Rule:
    """Return the rule for a finite number of 0 or more."""
    return Rule(lambda value: 0 <= value < math.inf, wants)


def above_zero(example: str = "") -> Rule:
    """Return the rule for a finite number above 0; `example` completes the words."""
    return Rule(lambda value: 0 < value < math.inf, f"a number above 0{example}")


def fraction() -> Rule:
    """Return the rule for a number from 0 to below 1."""
    return Rule(lambda value: 0 <= value < 1, "a number from 0 to below 1")


def inside_unit() -> Rule:
    """Return the rule for a number strictly between 0 and 1."""
    return Rule(lambda value: 0 < value < 1, "a number between 0 and 1")


def one_of(*choices: Any) -> Rule:
    """Return the rule for a value that is one of `choices`."""
    return Rule(lambda value: value in choices, f"one of {', '.join(map(str, choices))}")


def device(*others: str) -> Rule:
    """Return the rule for the name of a device, or one of `others`."""
    names = re.compile(r"auto|cpu|mps|cuda(:\d{1,3})?")
    return Rule(
        lambda value: value in others or names.fullmatch(value) is not None,
        "auto, cpu, mps, cuda or cuda:N",
    )


def require(holds: bool, setting: str, value: Any, wants: str) -> None:
    """Raise UserError unless `holds`."""
    if not holds:
        raise UserError(f"{setting}={value}: wants {wants}")


def check_fields(settings: Any, prefix: str = "") -> None:
    """Raise UserError for the first value, in the order of the fields, that breaks its rule.

    `settings` is a dataclass whose fields may carry a `rule`, or be such dataclasses; `prefix` is
    put before their names. None, where the type allows it, meets every rule.
    """
    for field in dataclasses.fields(settings):
        value, name = getattr(settings, field.name), prefix + field.name
        if dataclasses.is_dataclass(value):
            check_fields(value, f"{name}.")
        elif (rule := field.metadata.get("rule")) and value is not None:
            require(rule.holds(value), name, value, rule.wants)


def read_numbers(value: Any, setting: str) -> list[int] | None:
    """Return `7`, `0-63`, `"0-3,8"` or `[0,3,8]` as a list of whole numbers, None as None."""
    if value is None:
        return None
    parts = value if isinstance(value, list) else str(value).split(",")
    numbers: list[int] = []
    for part in parts:
        match = re.fullmatch(r"\s*(\d{1,18})(?:\s*-\s*(\d{1,18}))?\s*", str(part))
        require(match is not None, setting, value, "7, 0-63 or [0,3,8]")
        assert match is not None
        first, last = int(match[1]), int(match[2] or match[1])
        require(first <= last < first + 10**7, setting, value, "a range that rises, such as 0-63")
        numbers.extend(range(first, last + 1))
    require(bool(numbers), setting, value, f"one of the {setting} or more")
    return numbers

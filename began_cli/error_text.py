"""Describe errors in one line that names the setting, and quote values for Hydra's grammar."""

import dataclasses
import difflib
import re
from pathlib import Path
from typing import Any

from began_cli.errors import UserError, reason

# Hydra's launchers and sweepers, and the extra of ours that installs each
ENGINES = {"joblib": "joblib", "submitit_local": "slurm", "submitit_slurm": "slurm", "ray": "ray"}
ENGINES |= {"ray_aws": "ray", "optuna": "optuna"}


def suggest(word: str, choices: list[str]) -> str:
    """Return the choice that was probably meant, as ` (did you mean …?)`, or nothing."""
    close = difflib.get_close_matches(word, choices, n=1)
    return f" (did you mean {close[0]}?)" if close else ""


def describe(error: BaseException, conf: Path, resumes: bool = False) -> str:
    """Return one line that names the setting and what was wrong with it; `conf` holds the groups.

    `resumes`: the line has resume=, so it was read without the groups of the run that it names.
    """
    from hydra.errors import MissingConfigException, OverrideParseException
    from omegaconf import errors as oc

    from began_cli.settings.fields import GROUPS

    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OverrideParseException):
        return (
            f"cannot read '{error.override}': write setting=value, and quote a value with spaces "
            "or commas"
        )
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, name = error.missing_cfg_file.rpartition("/")
        options = [str(option) for option in error.options or []]
        if group.startswith("hydra/") and name in ENGINES:
            return f"{group}={name}: not installed; pip install 'began[{ENGINES[name]}]' brings it"
        if group:
            return f"no {group} '{name}'{suggest(name, options)}; there are {', '.join(options)}"
    cause = error if isinstance(error, oc.OmegaConfBaseException) else error.__cause__
    if isinstance(cause, oc.ConfigKeyError | oc.ConfigAttributeError) and cause.full_key:
        kept = resumes and cause.full_key.partition(".")[0] in GROUPS
        return _no_setting(cause) + ("; a resumed run keeps its own settings: leave it out" * kept)
    first = reason(cause or error)
    match = re.match(r"Ambiguous value for argument '(.*?)=", str(error))
    if match:
        return (
            f"{match[1]}: several values: add -m for a sweep, or write {match[1]}=[a,b] for a list"
        )
    if isinstance(cause, oc.MissingMandatoryValue):
        return f"{cause.full_key} is missing: give it as {cause.full_key}=…"
    if isinstance(cause, oc.ValidationError) and cause.full_key:
        kinds = {"Integer": "a whole number", "Float": "a number", "Boolean": "true or false"}
        match = re.match(r"Value '(.*)' of type '.*' could not be converted to (\w+)", first)
        if match:
            return f"{cause.full_key}={match[1]}: wants {kinds.get(match[2], match[2])}"
        if "is not Optional" in first:
            return f"{cause.full_key}=null: wants a value"
        return f"{cause.full_key}: {first}"
    inside = r"In '(\w+)/(\w+)': ConfigKeyError[^']*'\w+' not in[^:]*full_key: ((\w+)\.\S+)"
    if match := re.search(inside, str(error)):  # one group's entry is made for another's
        who = f"{match[1]}={match[2]} sets {match[3]}, which this {match[4]} does not have"
        return f"{who}: leave {match[4]}=… out"
    match = re.search(r"Could not override '(.*)'", first)
    if match and "defaults list" in str(error):
        groups = [path.name for path in conf.iterdir() if path.is_dir()]
        return f"no group '{match[1]}'{suggest(match[1], groups)}"
    return first


def _no_setting(error: Any) -> str:
    from began_cli.settings.fields import GROUPS

    group, _, name = error.full_key.partition(".")
    owners = {
        option: field.metadata.get("only")
        for option, schema in GROUPS.get(group, {}).items()
        for field in dataclasses.fields(schema)
        if field.name == name
    }
    if only := next(filter(None, owners.values()), None):
        return f"no setting '{error.full_key}' here: {only}"
    if owners:
        return f"no setting '{error.full_key}' here; it belongs to {group}={', '.join(owners)}"
    parent = error.parent_node
    keys = [str(key) for key in parent] if parent is not None and hasattr(parent, "keys") else []
    return f"no setting '{error.full_key}'{suggest(str(error.key), keys)}"


def quote(value: str) -> str:
    """Return a value so that Hydra takes it as it is typed, whatever characters it has."""
    # In Hydra's grammar a backslash is special only before a quote, and so at the end.
    escaped = re.sub(
        r"(\\*)('|$)", lambda match: match[1] * 2 + match[2].replace("'", "\\'"), value
    )
    return f"'{escaped}'"

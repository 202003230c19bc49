"""Functions that several scripts share: settings, the command line, and what run folders hold."""

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from began_cli.cli import CONF
from began_cli.comparison import records
from began_cli.error_text import describe
from began_cli.errors import UserError
from began_cli.generators import checkpoint
from began_cli.settings.parse import parse, read_yaml, register_schemas, to_plain
from began_cli.settings.train import TrainConfig


@contextmanager
def report_errors() -> Iterator[None]:
    """Print an error that the user can put right in one line, as began does, and exit with 2."""
    try:
        yield
    except (UserError, HydraException, OmegaConfBaseException, OSError) as error:
        print(describe(error, CONF), file=sys.stderr)
        raise SystemExit(2) from error


def make_parser(doc: str | None) -> argparse.ArgumentParser:
    """Return a parser whose help starts with the docstring of the script."""
    formatter = argparse.RawDescriptionHelpFormatter
    return argparse.ArgumentParser(description=doc, formatter_class=formatter)


def at_least(least: int) -> Callable[[str], int]:
    """Return a type for argparse: a whole number, `least` or more."""

    def read(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text}: wants a whole number, at least {least}")
        return int(text)

    return read


# --- settings -------------------------------------------------------------------------------------


def name_of(word: str) -> str:
    """Return the name of the setting in `name=value`, `+name=value`, `~name` and the like."""
    return word.partition("=")[0].lstrip("+~")


def compose_settings(overrides: list[str], command: str = "train") -> Any:
    """Return the settings that `began COMMAND OVERRIDES` would use."""
    register_schemas()
    with initialize_config_dir(config_dir=str(CONF), version_base="1.3"):
        return parse(command, compose(command, overrides))


def check_settings(run: Path, cfg: TrainConfig, words: list[str]) -> None:
    """Raise UserError if a run has other values than `cfg` for the settings named by `words`."""
    wanted = OmegaConf.create(to_plain(cfg))
    saved = read_settings(run) or wanted
    for key in map(name_of, words):
        was, now = OmegaConf.select(saved, key), OmegaConf.select(wanted, key)
        if key != "steps" and was != now:
            raise UserError(f"{key}: {run} has {was}, not {now}; give another --out")


# --- run folders ----------------------------------------------------------------------------------


def run_began(*line: str) -> None:
    """Run a command of began; exit with its code if it fails. It prints its own errors.

    On Ctrl-C, wait until the command has saved its run.
    """
    command = [sys.executable, "-m", "began_cli", *line]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            try:
                process.wait()
            except KeyboardInterrupt:
                print(
                    "waiting until the run is saved; the same command resumes it", file=sys.stderr
                )
    if process.returncode:
        raise SystemExit(process.returncode)


def newest_step(run: Path) -> int:
    """Return the step of a run's last checkpoint, 0 if it has none."""
    return max(map(checkpoint.step_of, checkpoint.find_all(run)), default=0)


def read_settings(run: Path) -> DictConfig | None:
    """Return the settings of a run, None if it was never started."""
    path = run / "config.yaml"
    try:
        return OmegaConf.create(read_yaml(path)) if path.exists() else None
    except ValueError as error:
        raise UserError(f"{path}: not what `began train` writes; move the run away") from error


def read_evaluation(run: Path, step: int | None = None) -> dict[str, Any]:
    """Return the newest scores of the checkpoint of `step`, by default of the last one scored.

    Return {} if there are none. Raise UserError if the file isn't one of `began evaluate`.
    """
    path = run / "evaluation.json"
    if not path.exists():
        return {}
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))["evaluations"]
        step = max(entry["step"] for entry in entries) if step is None else step
        entry = next((entry for entry in reversed(entries) if entry["step"] == step), {})
        if entry and not all(
            isinstance(score[key], int | float)
            for score in entry["scores"].values()
            for key in ("value", "floor")
        ):
            raise TypeError
        return entry
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: not what `began evaluate` writes; remove it") from error


def read_logs(run: Path) -> list[dict[str, Any]]:
    """Return the lines of a run's metrics.jsonl that are whole."""
    return [log for log in records.read_logs(run) if isinstance(log.get("images"), int)]


def class_shares(counts: list[int]) -> list[float]:
    """Return the percentage of each class."""
    return [100 * count / sum(counts) for count in counts]


# --- numbers --------------------------------------------------------------------------------------


def format_number(value: float, digits: int = 3) -> str:
    """Return a number with `digits` significant digits, from 100 on as a whole number."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.{digits}g}"


def format_spread(values: list[float]) -> str:
    """Return mean ± sample standard deviation, or just the value if all are equal."""
    if len(set(values)) < 2:
        return format_number(values[0]) if values else "-"
    return (
        f"{format_number(statistics.mean(values))} ± {format_number(statistics.stdev(values), 2)}"
    )

"""The commands as functions, for Python programs."""

from pathlib import Path

from hydra import compose, initialize_config_dir

from began_cli.cli import CONF
from began_cli.commands import train as train_command
from began_cli.errors import UserError
from began_cli.run_command import key_of
from began_cli.settings.parse import parse, register_schemas


def train(*line: str) -> Path:
    """Train in this process as `began train LINE` does, and return the run folder.

    Each word of the line is an argument: `train("loss=bgan", "steps=200")`. Raise UserError for
    what the command would refuse, Hydra's and OmegaConf's errors for names that do not exist, and
    SystemExit if a signal stops the run.
    """
    register_schemas()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = parse("train", compose("train", list(line)))
    if cfg.devices > 1:
        raise UserError(f"devices={cfg.devices}: this process is one; use the command began train")
    train_command.main(cfg, [key_of(word) for word in line])
    return Path(cfg.out)

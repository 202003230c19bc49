"""Run one command with one set of settings: the function that Hydra and its launchers call."""

import importlib
import os
import sys
import traceback
from pathlib import Path
from typing import Any

from began_cli.error_text import describe, quote
from began_cli.errors import UserError


class Task:
    """Run a command with composed settings. In a sweep a failure is noted and the sweep goes on.

    It can be pickled: launchers take it to other processes, and to other machines that see the same
    folders.
    """

    def __init__(
        self,
        command: str,
        flags: list[str],
        multirun: bool,
        existing: set[Path],
        failures_file: Path | None,
        conf: Path,
    ) -> None:
        """`existing` are folders never to remove; `failures_file` collects failures from other
        processes; `conf` holds the settings' YAML."""
        self.command, self.flags, self.multirun, self.existing = command, flags, multirun, existing
        self.failures_file, self.conf = failures_file, conf
        self.crashed, self._failures = False, list[str]()

    def __setstate__(self, state: dict[str, Any]) -> None:
        from began_cli.settings.parse import register_schemas

        os.environ["HYDRA_FULL_ERROR"] = "1"
        register_schemas()  # a new process has no schemas and resolvers yet
        self.__dict__ |= state

    def __call__(self, cfg: Any) -> Any:
        """Return what the command returns: for `began train` the best score, if there is one."""
        from hydra.core.hydra_config import HydraConfig
        from hydra.errors import HydraException
        from omegaconf.errors import OmegaConfBaseException

        hydra = HydraConfig.get()
        job = f"[{' '.join(hydra.overrides.task)}]"
        try:
            return self._run(cfg, hydra)
        except (UserError, HydraException, OmegaConfBaseException) as error:
            message = describe(error, self.conf)
            if self.multirun:
                message = f"{job} {message}"
                print(f"began {self.command}: {message}", file=sys.stderr, flush=True)
            self._note(message)
        except SystemExit as ended:  # the processes of a run have printed the reason
            if not self.multirun or ended.code not in (1, 2):
                raise
            self._note(f"{job} ended with exit code {ended.code}")
        except Exception as error:  # a bug of ours: the whole traceback
            if not self.multirun:
                self.crashed = True
                raise
            traceback.print_exc()
            self._note(f"{job} {type(error).__name__}: {error}")
        finally:
            remove_empty(Path(hydra.runtime.output_dir), self.existing)

    def _run(self, cfg: Any, hydra: Any) -> Any:
        from began_cli.settings.parse import parse

        if self.command != "train":
            parsed = parse(self.command, cfg)
            if getattr(parsed, "ckpt", None) in ("pretrained", ["pretrained"]) and not (
                Path("pretrained").exists()
            ):
                print(importlib.import_module("began_cli.generators.load").describe_pretrained())
                return None
            return importlib.import_module(f"began_cli.commands.{self.command}").main(parsed)
        cfg.out = hydra.runtime.output_dir
        begun = any(Path(cfg.out).glob("checkpoints/step-*.pt"))
        if self.multirun and cfg.resume is None and begun:
            cfg.resume = cfg.out  # the same sweep again: resume the run, unless it is done
        parsed = parse("train", cfg)
        words = list(hydra.overrides.task)
        typed = [key_of(word) for word in words]
        if parsed.devices > 1 and not parsed.dry_run and "WORLD_SIZE" not in os.environ:
            launch = importlib.import_module("began_cli.training.launch")
            line = [word for word in self.flags if word not in ("-m", "--multirun")]
            line += [word for word in words if not word.startswith("resume=")]
            line += [f"resume={quote(parsed.resume)}"] if parsed.resume else []
            return launch.main(parsed, typed, [*line, f"hydra.run.dir={quote(cfg.out)}"])
        return importlib.import_module("began_cli.commands.train").main(parsed, typed)

    def _note(self, failure: str) -> None:
        failure = " ".join(failure.split())
        self._failures.append(failure)
        if self.failures_file is None:
            return
        self.failures_file.parent.mkdir(parents=True, exist_ok=True)
        with self.failures_file.open("a", encoding="utf-8") as file:
            print(failure, file=file)

    def failures(self) -> list[str]:
        """Return the failures, a line each, and remove their file."""
        if self.failures_file is None or not self.failures_file.exists():
            return self._failures
        noted = self.failures_file.read_text(encoding="utf-8").splitlines()
        self.failures_file.unlink()
        return noted


def key_of(override: str) -> str:
    """Return the name of the setting in a word of the line."""
    return override.partition("=")[0].lstrip("+~").partition("@")[0]


def remove_empty(folder: Path, existing: set[Path]) -> None:
    """Remove the run folder that Hydra made, and its parents, as far as they are empty and new."""
    for path in (folder, *folder.parents):
        if path in existing:
            return
        try:
            path.rmdir()
        except OSError:
            return

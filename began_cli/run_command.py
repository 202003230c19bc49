"""What Hydra runs: one command with one set of settings, here or wherever a launcher takes it."""

import importlib
import os
import sys
import traceback
from pathlib import Path
from typing import Any

from began_cli.error_text import quoted, worded
from began_cli.errors import UserError


class Task:
    """Runs a command with composed settings; failures are noted, and do not end a sweep.

    It can be pickled: launchers carry it into other processes, and to other machines that see the
    same folders.
    """

    def __init__(
        self,
        command: str,
        flags: list[str],
        multirun: bool,
        kept: set[Path],
        notes: Path | None,
        conf: Path,
    ) -> None:
        """`kept` are the folders that were there before, `notes` a file for what went wrong, where
        other processes may run this."""
        self.command, self.flags, self.multirun, self.kept = command, flags, multirun, kept
        self.notes, self.conf = notes, conf
        self.crashed, self._failures = False, list[str]()

    def __setstate__(self, state: dict[str, Any]) -> None:
        from began_cli.settings.parse import register_schemas

        os.environ["HYDRA_FULL_ERROR"] = "1"
        register_schemas()  # a new process does not know the schemas and resolvers yet
        self.__dict__ |= state

    def __call__(self, cfg: Any) -> Any:
        """What the command returns; of `began train` the best score, where it was scored."""
        from hydra.core.hydra_config import HydraConfig
        from hydra.errors import HydraException
        from omegaconf.errors import OmegaConfBaseException

        hydra = HydraConfig.get()
        job = f"[{' '.join(hydra.overrides.task)}]"
        try:
            return self._run(cfg, hydra)
        except (UserError, HydraException, OmegaConfBaseException) as error:
            said = worded(error, self.conf)
            if self.multirun:
                said = f"{job} {said}"
                print(f"began {self.command}: {said}", file=sys.stderr, flush=True)
            self._note(said)
        except SystemExit as ended:  # of processes that have said why
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
            discard_empty(Path(hydra.runtime.output_dir), self.kept)

    def _run(self, cfg: Any, hydra: Any) -> Any:
        from began_cli.settings.parse import parse

        if self.command != "train":
            parsed = parse(self.command, cfg)
            return importlib.import_module(f"began_cli.commands.{self.command}").main(parsed)
        cfg.out = hydra.runtime.output_dir
        begun = any(Path(cfg.out).glob("checkpoints/step-*.pt"))
        if self.multirun and cfg.resume is None and begun:
            cfg.resume = cfg.out  # the same sweep once more: it goes on, or is done
        parsed = parse("train", cfg)
        words = list(hydra.overrides.task)
        typed = [key_of(word) for word in words]
        if parsed.devices > 1 and not parsed.dry_run and "WORLD_SIZE" not in os.environ:
            launch = importlib.import_module("began_cli.training.launch")
            line = [word for word in self.flags if word not in ("-m", "--multirun")]
            line += [word for word in words if not word.startswith("resume=")]
            line += [f"resume={quoted(parsed.resume)}"] if parsed.resume else []
            return launch.main(parsed, typed, [*line, f"hydra.run.dir={quoted(cfg.out)}"])
        return importlib.import_module("began_cli.commands.train").main(parsed, typed)

    def _note(self, failure: str) -> None:
        failure = " ".join(failure.split())
        self._failures.append(failure)
        if self.notes is None:
            return
        self.notes.parent.mkdir(parents=True, exist_ok=True)
        with self.notes.open("a", encoding="utf-8") as file:
            print(failure, file=file)

    def failures(self) -> list[str]:
        """What went wrong, a line each; the file is not needed any more."""
        if self.notes is None or not self.notes.exists():
            return self._failures
        noted = self.notes.read_text(encoding="utf-8").splitlines()
        self.notes.unlink()
        return noted


def key_of(override: str) -> str:
    """The setting that a word of the line is about."""
    return override.partition("=")[0].lstrip("+~").partition("@")[0]


def discard_empty(folder: Path, kept: set[Path]) -> None:
    """Removes the run folder that Hydra made if nothing came of it, and its empty parents."""
    for path in (folder, *folder.parents):
        if path in kept:
            return
        try:
            path.rmdir()
        except OSError:
            return

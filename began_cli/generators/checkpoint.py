"""Checkpoints: one file, a dict of tensors and plain values, written whole or not at all."""

import os
import pickle
import re
import tempfile
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from began_cli.errors import UserError
from began_cli.gan import losses, networks
from began_cli.settings.parse import parse
from began_cli.settings.train import TrainConfig

FORMAT = 2
SCORED = ("gan", "bgan", "wgan", "wgan_gp")
TABLES = {"config", "data", "monitor"}  # looked into before anything else is put to use
WHOLE = TABLES | {
    *("format", "began", "step", "generator", "ema", "discriminator", "loss", "optimizer_g"),
    *("optimizer_d", "schedule", "batches", "latents", "rollbacks", "rng"),
    *("scaler", "best"),
}
NAME = re.compile(r"step-(\d{8,})\.pt")


def path_for(run: Path, step: int) -> Path:
    """Where the checkpoint of `step` stands in a run folder."""
    return run / "checkpoints" / f"step-{step:08d}.pt"


def save(path: Path, state: dict[str, Any]) -> None:
    """Writes `state` to `path`: a sibling file, flushed to the disk, then renamed over it.

    Whoever reads `path` finds the old file or the new, never a part of one. Raises OSError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            torch.save({"format": FORMAT, **state}, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except RuntimeError as error:  # torch's own, raised while the system's error was on its way
        Path(temporary).unlink(missing_ok=True)
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    if os.name == "posix":
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def keep_newest(run: Path, n: int) -> None:
    """Deletes all but the n newest checkpoints of a run folder."""
    for path in all_of(run)[:-n]:
        path.unlink()


def all_of(run: Path) -> list[Path]:
    """The checkpoints of a run folder, oldest first."""
    found = [path for path in (run / "checkpoints").glob("step-*.pt") if NAME.fullmatch(path.name)]
    return sorted(found, key=step_of)


def best_path(run: Path, step: int) -> Path:
    """Where the checkpoint with the best score stands in a run folder, being of `step`."""
    return run / "checkpoints" / f"best-step-{step:08d}.pt"


def best_of(run: Path) -> list[Path]:
    """The checkpoint with the best score of a run folder, if it has one."""
    found = (run / "checkpoints").glob("best-step-*.pt")
    return sorted(found, key=step_of, reverse=True)


def save_best(run: Path, step: int, state: dict[str, Any]) -> None:
    """Writes the best checkpoint; the one before it is deleted after that."""
    save(best_path(run, step), state)
    for path in best_of(run):
        if path != best_path(run, step):
            path.unlink()


def runs(root: Path) -> list[Path]:
    """The run folders below `root` that hold a checkpoint, the newest first."""
    found = [path for path in root.rglob("step-*.pt") if NAME.fullmatch(path.name)]
    found.sort(key=lambda path: (path.stat().st_mtime_ns, path.name), reverse=True)
    return list(dict.fromkeys(path.parent.parent for path in found))


def step_of(path: Path) -> int:
    """The step in a checkpoint's name."""
    return int(path.stem.rpartition("step-")[2])


def sweep(run: Path) -> None:
    """Removes what a process that died while writing has left; the caller holds the run's lock."""
    for path in (*run.glob("checkpoints/.*.tmp"), *run.glob("samples/.*.tmp")):
        path.unlink(missing_ok=True)


def set_aside(run: Path, after: int) -> list[str]:
    """Renames the checkpoints of later steps than `after`, so that none is taken for the newest.

    Returns a line for each; the caller holds the run's lock.
    """
    later = [path for path in [*all_of(run), *best_of(run)] if step_of(path) > after]
    for path in later:
        path.rename(path.with_suffix(".superseded"))
    return [f"{path} is of a later step, and set aside as .superseded" for path in later]


def candidates(ckpt: str | None, setting: str = "ckpt") -> list[Path]:
    """The files that `ckpt` may mean, likeliest first: itself, or those of a run folder, newest
    first; RUN/best is the one with the best score.

    None means the newest run under outputs/. Raises UserError if there is none.
    """
    if ckpt is None:
        newest = runs(Path("outputs"))
        if not newest:
            raise UserError(
                f"{setting}: no checkpoint under outputs/; train first, or give {setting}=…"
            )
        return all_of(newest[0])[::-1]
    path = Path(ckpt).expanduser()
    if path.is_file():
        return [path]
    if path.name == "best" and path.parent.is_dir():
        if not best_of(path.parent):
            raise UserError(
                f"{setting}={ckpt}: no best checkpoint there; evaluate_every=… keeps it"
            )
        return best_of(path.parent)
    if not path.exists():
        raise UserError(f"{setting}={ckpt}: no such file or folder")
    run = path.parent if path.name == "checkpoints" else path
    if not all_of(run):
        raise UserError(f"{setting}={ckpt}: no checkpoint in that folder")
    return all_of(run)[::-1]


def read(ckpt: str | None, setting: str = "ckpt") -> tuple[Path, dict[str, Any], list[str]]:
    """The best checkpoint that `ckpt` means, what it holds, and a line for each damaged one before.

    Raises UserError if none can be read.
    """
    complaints: list[str] = []
    paths = candidates(ckpt, setting)
    for path in paths:
        try:
            return path, load(path, setting), complaints
        except UserError as error:
            if len(paths) == 1:
                raise
            complaints.append(f"{error}; using the one before")
    raise UserError(f"{setting}={ckpt}: none of its checkpoints can be read; {complaints[0]}")


def load(path: Path, setting: str = "ckpt") -> dict[str, Any]:
    """The dict that `save` wrote, on the CPU. Never runs code from the file.

    Raises UserError if it is not a checkpoint of ours, or not a whole one.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()  # torch.load itself checks no sums
        if damaged:
            raise UserError(f"{setting}={path}: the file is damaged (in {damaged})")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            state = torch.load(path, map_location="cpu", weights_only=True)
    except zipfile.BadZipFile:
        raise UserError(f"{setting}={path}: not a checkpoint, or cut short") from None
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError):
        raise UserError(f"{setting}={path}: not a checkpoint of began") from None
    except OSError as error:
        raise UserError(f"{setting}={path}: cannot be read ({error.strerror})") from None
    if not isinstance(state, dict) or "format" not in state:
        raise UserError(f"{setting}={path}: not a checkpoint of began")
    version = state["format"]
    if not isinstance(version, int) or not 1 <= version <= FORMAT:
        raise UserError(
            f"{setting}={path}: format {version}, and this began reads formats 1 to {FORMAT}; "
            "use the version of began that wrote it"
        )
    if version < FORMAT:
        state = upgrade(state)
    empty = {name for name in TABLES if not isinstance(state.get(name), dict)}
    if missing := sorted(WHOLE - state.keys() | empty):
        raise UserError(f"{setting}={path}: not a whole checkpoint: {', '.join(missing)} missing")
    return state


def upgrade(state: dict[str, Any]) -> dict[str, Any]:
    """What an older format holds, as FORMAT would hold it: settings that it did not know yet have
    the values that it worked with."""
    if isinstance(state.get("config"), dict):
        state = state | {"config": upgrade_config(state["config"])}
    return {"scaler": {}, "best": {}} | state | {"format": FORMAT}


def upgrade_config(saved: dict[str, Any]) -> dict[str, Any]:
    """The settings of a run of any earlier version, with those that it did not know yet."""
    new = {"devices": 1, "accumulate": 1, "compile": "off", "dry_run": False, "evaluate_every": 0}
    new["evaluation"] = {"n": 2000, "score": "fid", "extractor": "auto", "weights": None}
    new |= saved
    if isinstance(new.get("optimizer"), dict):
        new["optimizer"] = {"eps": 1e-8} | new["optimizer"]
    if isinstance(model := new.get("model"), dict):
        new["model"] = {"output": "linear" if model.get("name") == "began" else "tanh"} | model
    if isinstance(loss := new.get("loss"), dict) and loss.get("name") in SCORED:
        new["loss"] = {"pack": 1} | loss
    elif isinstance(loss, dict) and loss.get("name") == "ebgan_pt":
        new["loss"] = {"pt_global": True} | loss
    if isinstance(data := new.get("dataset"), dict) and data.get("name") != "ring":
        new["dataset"] = {"flip": False} | data
        if data.get("name") == "folder":
            new["dataset"] = {"cache": None} | new["dataset"]
    return new


MISFITS = (KeyError, TypeError, ValueError, AttributeError, RuntimeError, UserError)


@contextmanager
def fits(path: Path, setting: str = "ckpt") -> Iterator[None]:
    """Within its block what is in a checkpoint is put to use; what does not fit is a UserError."""
    try:
        yield
    except MISFITS as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"{setting}={path}: its contents do not fit together ({reason})") from None


def critic_of(
    state: dict[str, Any], device: torch.device
) -> tuple[nn.Module, losses.Loss, TrainConfig]:
    """The discriminator of a checkpoint, ready to look at images, its loss, and the settings."""
    trained = parse("train", state["config"])
    data = trained.dataset
    loss = losses.build(trained.loss, (data.channels, data.image_size, data.image_size))
    loss.load_state_dict(state["loss"])
    critic = networks.build_discriminator(trained, device)
    critic.load_state_dict(state["discriminator"])
    return critic.eval().requires_grad_(False), loss.to(device), trained


def generator_of(state: dict[str, Any], device: torch.device) -> tuple[nn.Module, TrainConfig]:
    """The averaged generator of a checkpoint, ready to sample, and the settings of its training."""
    trained = parse("train", state["config"])
    generator = networks.build_generator(trained, device)
    generator.load_state_dict(state["ema"])
    return generator.eval().requires_grad_(False), trained

"""Checkpoints: one file each, a dict of tensors and plain values, replaced atomically."""

import pickle
import re
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from began_cli.errors import UserError, reason
from began_cli.files import replacing

FORMAT = 2
TABLES = {"config", "data", "monitor"}  # must be dicts: they are read before the rest is used
WHOLE = TABLES | {
    *("format", "began", "step", "generator", "ema", "discriminator", "loss", "optimizer_g"),
    *("optimizer_d", "schedule", "batches", "latents", "rollbacks", "rng"),
    *("scaler", "best"),
}
NAME = re.compile(r"step-(\d{8,})\.pt")

# --- the files of a run ---------------------------------------------------------------------------


def path_for(run: Path, step: int) -> Path:
    """Return the path of the checkpoint of `step` in a run folder."""
    return run / "checkpoints" / f"step-{step:08d}.pt"


def best_path(run: Path, step: int) -> Path:
    """Return the path of the checkpoint with the best score, if that is the one of `step`."""
    return run / "checkpoints" / f"best-step-{step:08d}.pt"


def step_of(path: Path) -> int:
    """Return the step in a checkpoint's name."""
    return int(path.stem.rpartition("step-")[2])


def run_of(path: Path) -> Path:
    """Return the run folder of a checkpoint; of a file outside any run, the file's own folder."""
    return path.parent.parent if path.parent.name == "checkpoints" else path.parent


def find_all(run: Path) -> list[Path]:
    """Return the checkpoints of a run folder, oldest first."""
    paths = [path for path in (run / "checkpoints").glob("step-*.pt") if NAME.fullmatch(path.name)]
    return sorted(paths, key=step_of)


def find_best(run: Path) -> list[Path]:
    """Return the checkpoint with the best score of a run folder, if it has one.

    A process killed while replacing it leaves two; the newest comes first.
    """
    return sorted((run / "checkpoints").glob("best-step-*.pt"), key=step_of, reverse=True)


def find_runs(root: Path) -> list[Path]:
    """Return the run folders below `root` that hold a checkpoint, newest first."""
    paths = [path for path in root.rglob("step-*.pt") if NAME.fullmatch(path.name)]
    paths.sort(key=lambda path: (path.stat().st_mtime_ns, path.name), reverse=True)
    return list(dict.fromkeys(run_of(path) for path in paths))


def find_candidates(ckpt: str | None, setting: str = "ckpt") -> list[Path]:
    """Return the checkpoints that `ckpt` may stand for, in the order to try them.

    A file stands for itself; a run folder for its checkpoints, newest first; RUN/best for the one
    with the best score; None for the newest run under outputs/. Raise UserError if there is none.
    """
    if ckpt is None:
        newest = find_runs(Path("outputs"))
        if not newest:
            raise UserError(
                f"{setting}: no checkpoint under outputs/; train first, or give {setting}=…"
                " (ckpt=pretrained lists what comes with began)"
            )
        return find_all(newest[0])[::-1]
    path = Path(ckpt).expanduser()
    if path.is_file():
        return [path]
    if path.name == "best" and path.parent.is_dir():
        if not find_best(path.parent):
            raise UserError(
                f"{setting}={ckpt}: no best checkpoint there; evaluate_every=… keeps it"
            )
        return find_best(path.parent)
    if not path.exists():
        raise UserError(f"{setting}={ckpt}: no such file or folder")
    run = path.parent if path.name == "checkpoints" else path
    if not find_all(run):
        raise UserError(f"{setting}={ckpt}: no checkpoint in that folder")
    return find_all(run)[::-1]


# --- writing --------------------------------------------------------------------------------------


def save(path: Path, state: dict[str, Any]) -> None:
    """Write `state` to `path` atomically, and flush it to the disk. Raise OSError if that fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path, durable=True) as temporary, open(temporary, "wb") as file:
        try:
            torch.save({"format": FORMAT, **state}, file)
        except RuntimeError as error:  # torch raises its own in place of the system's error
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise


def save_best(run: Path, step: int, state: dict[str, Any]) -> None:
    """Write the checkpoint with the best score, then delete the one before it."""
    save(best_path(run, step), state)
    for path in find_best(run):
        if path != best_path(run, step):
            path.unlink()


def keep_newest(run: Path, n: int) -> None:
    """Delete all but the n newest checkpoints of a run folder.

    Also delete those set aside whose step the run has reached again.
    """
    kept = find_all(run)
    for path in kept[:-n]:
        path.unlink()
    for path in (run / "checkpoints").glob("*step-*.superseded"):
        if step_of(path) <= step_of(kept[-1]):
            path.unlink()


def remove_leftovers(run: Path) -> None:
    """Remove temporary files of a process killed while writing. The caller holds the run's lock."""
    for pattern in ("checkpoints/.*.tmp", "samples/.*.tmp", ".metrics.jsonl.*.tmp"):
        for path in run.glob(pattern):
            path.unlink(missing_ok=True)


def set_aside(run: Path, after: int) -> list[str]:
    """Rename the checkpoints of later steps than `after`, so that none is taken for the newest.

    Return a message for each. The caller holds the run's lock.
    """
    later = [path for path in [*find_all(run), *find_best(run)] if step_of(path) > after]
    for path in later:
        path.rename(path.with_suffix(".superseded"))
    return [f"{path} is of a later step, and set aside as .superseded" for path in later]


# --- reading --------------------------------------------------------------------------------------


def read(ckpt: str | None, setting: str = "ckpt") -> tuple[Path, dict[str, Any], list[str]]:
    """Load the first whole checkpoint that `ckpt` may stand for (see `find_candidates`).

    Return its path, its contents, and a message for each damaged one that was skipped. `setting`
    is the name of the setting in messages. Raise UserError if none can be read.
    """
    skipped: list[str] = []
    paths = find_candidates(ckpt, setting)
    for path in paths:
        try:
            return path, load(path, setting), [f"{why}; using the one before" for why in skipped]
        except UserError as error:
            if len(paths) == 1:
                raise
            skipped.append(str(error))
    raise UserError(f"{setting}={ckpt}: none of its checkpoints can be read; {skipped[0]}")


def load(path: Path, setting: str = "ckpt") -> dict[str, Any]:
    """Return the dict that `save` wrote, on the CPU. No code in the file is run.

    Raise UserError if the file is damaged, incomplete, or no checkpoint of began.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()  # torch.load doesn't check the sums
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
    if not isinstance(version, int) or version != FORMAT:
        raise UserError(
            f"{setting}={path}: format {version}, and this began reads format {FORMAT}; "
            "use the version of began that wrote it"
        )
    empty = {name for name in TABLES if not isinstance(state.get(name), dict)}
    if missing := sorted(WHOLE - state.keys() | empty):
        raise UserError(f"{setting}={path}: not a whole checkpoint: {', '.join(missing)} missing")
    with fits(path, setting):
        upgrade(state["config"])
        if isinstance(state["loss"], dict):
            state["loss"].pop("background", None)
        state.setdefault("computed", {"device": "cpu", "precision": "fp32"})
    return state


def upgrade(config: dict[str, Any]) -> None:
    """Bring the settings of a run of before `loss=began_paper` to today's names, in place.

    Raise UserError if it was trained with relative energy, which began no longer has.
    """
    config.setdefault("graph", "auto")
    loss, model, dataset = (config.get(name) for name in ("loss", "model", "dataset"))
    config.setdefault("show", False)
    if isinstance(model, dict):
        model.setdefault("code_norm", False)
    if isinstance(dataset, dict):
        dataset.setdefault("r1", 0.0)
        dataset.setdefault("margin", 10)
    if not isinstance(loss, dict):
        return
    if loss.get("energy") == "relative":
        raise UserError("trained with loss.energy=relative, which this began does not have")
    if loss.get("name") == "began" and "lambda_k" in loss:
        loss["name"] = "began_paper"
    if loss.get("name") in ("ebgan", "ebgan_pt") and loss.get("margin") != "following":
        loss["gamma"] = None
    if loss.get("name") in ("began", "ebgan", "ebgan_pt", "gan", "bgan"):
        loss.setdefault("r1", 0.0)
    for name in ("content_floor", "margin_steps"):
        loss.pop(name, None)


MISFITS = (KeyError, TypeError, ValueError, AttributeError, RuntimeError, UserError)


@contextmanager
def fits(path: Path, setting: str = "ckpt") -> Iterator[None]:
    """Turn errors from using a checkpoint's contents, within the block, into a UserError."""
    try:
        yield
    except MISFITS as error:
        raise UserError(
            f"{setting}={path}: its contents do not fit together ({reason(error)})"
        ) from None

"""Atomic writes, output folders, downloads with a time limit, and the cache folder."""

import lzma
import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from began_cli.errors import UserError, reason

DOWNLOAD_TIMEOUT = 10.0  # seconds without an answer


@contextmanager
def replacing(path: Path, suffix: str = "", durable: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside `path`, renamed to `path` if the block succeeds.

    A reader finds the old file or the new one, never a part. If the block fails, the temporary file
    is removed and `path` stays as it was.

    `suffix`: ending of the temporary name, for writers that choose a format by it.
    `durable`: flush the file to the disk before the rename and the folder after it, so that a crash
    of the machine loses neither file.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp{suffix}")
    try:
        yield temporary
        if durable:
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    if durable and os.name == "posix":
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def output_folder(out: str | Path) -> Path:
    """Return the folder `out`, made if need be. Raise UserError if nothing can be written there."""
    folder = Path(out).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".began-probe"
        probe.touch()
        probe.unlink()
    except OSError as error:
        why = "is a file" if folder.is_file() else f"cannot be written to ({error.strerror})"
        raise UserError(f"out={folder}: {why}; give another folder as out=…") from None
    return folder


def ending_of(out: str | None) -> str:
    """Return the ending of `out`, such as ".png" also for .PNG; "" if it names a folder.

    A folder is one that exists, or a name without an ending or with a slash at its end. What starts
    with a digit is no ending (gamma-0.5).
    """
    if out is None or out.endswith(("/", os.sep)) or Path(out).expanduser().is_dir():
        return ""
    ending = Path(out).suffix
    return ending.lower() if ending[1:2].isalpha() else ""


def output_file(out: str | None, folder: Path, name: str) -> Path:
    """Return the file to write: `out` if it names one, else `name` in the folder `out` or `folder`.

    Its folder is made if need be. Raise UserError if nothing can be written there.
    """
    if out is not None and ending_of(out):
        path = Path(out).expanduser()
        return output_folder(path.parent) / path.name
    return output_folder(out or folder) / name


@contextmanager
def writing(out: Path) -> Iterator[None]:
    """Turn an OSError of the block into a UserError about the setting `out`."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"out={out}: cannot write {error.filename or 'there'} ({error.strerror or error})"
        ) from None


@contextmanager
def shipped(path: Path) -> Iterator[Path]:
    """Yield the path of a file that comes with began. Turn errors in reading it into UserErrors."""
    try:
        yield path
    except (OSError, EOFError, ValueError, lzma.LZMAError, SafetensorError) as error:
        why = (isinstance(error, OSError) and error.strerror) or reason(error)
        raise UserError(
            f"{path}: comes with began, and cannot be read ({why}); install began again"
        ) from None


@contextmanager
def downloading(into: Path) -> Iterator[None]:
    """Give up on a server that doesn't answer, and leave no empty folder behind.

    Folders made within the block, `into` and its parents, are removed at its end if they are empty.
    """
    made = [path for path in (into, *into.absolute().parents) if not path.exists()]
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT)
    try:
        yield
    finally:
        socket.setdefaulttimeout(timeout)
        for path in made:  # deepest first; what was there before stays
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()


def cache_home() -> Path:
    """Return $XDG_CACHE_HOME/began, or ~/.cache/began."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "began"

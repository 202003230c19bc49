"""Files that are found whole or not at all, downloads that give up, and where caches are kept."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

DOWNLOAD_TIMEOUT = 10.0  # seconds without an answer


@contextmanager
def replacing(path: Path, suffix: str = "") -> Iterator[Path]:
    """A temporary file beside `path` that takes its place if the block ends well, and goes if not.

    Whoever reads `path` finds the old file or the new, never half of one. `suffix` is for writers
    that look at a file's name.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp{suffix}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def downloading(into: Path) -> Iterator[None]:
    """Within its block a server that does not answer is given up; folders that were made for the
    download, down to `into`, go again if they stay empty."""
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
    """$XDG_CACHE_HOME/began, or ~/.cache/began."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "began"

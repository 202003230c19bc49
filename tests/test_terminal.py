import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from contextlib import suppress
from pathlib import Path

import pytest
from conftest import TINY

from began_cli.terminal import plural, say

SIZE = (50, 200, 2000, 1000)  # rows, columns, pixels


def test_a_line_is_printed_as_it_is(capfd):
    line = "a[bold]b[/bold] " + "long " * 60 + "1.5"
    say(line)
    assert capfd.readouterr().out == line + "\n"


def test_a_missing_textual_image_names_the_extra(refusal, monkeypatch):
    monkeypatch.setitem(sys.modules, "textual_image.renderable", None)
    assert "pip install 'began[show]'" in refusal("train show=true")


def test_one_has_no_s():
    assert [plural(n, "step") for n in (0, 1, 2000)] == ["0 steps", "1 step", "2,000 steps"]


def train_on_a_terminal(digits: Path, answer: bytes, size: tuple[int, ...] = SIZE) -> bytes:
    """Return what a run of 2 steps with show=true writes to a terminal.

    When it is asked what it is, the terminal gives the `answer`.
    """
    line = ["train", "show=true", "steps=2", f"dataset.root={digits}", "out=run", *TINY]
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", *size))
    env = os.environ | {"TERM": "xterm-256color", "COLUMNS": "200", "LINES": "50"}
    env["PYTHONPATH"] = str(Path(__file__).parents[1])
    process = subprocess.Popen(
        [sys.executable, "-m", "began_cli", *line],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=env,
    )
    os.close(theirs)
    written = bytearray()
    with suppress(OSError):  # the program has closed its end
        while part := os.read(ours, 4096):
            written.extend(part)
            if b"\x1b[c" in part:
                os.write(ours, answer)
    os.close(ours)
    assert process.wait() == 0
    return bytes(written)


def test_a_run_on_a_terminal_shows_its_grids_and_where_to_look(digits):
    pytest.importorskip("textual_image")
    written = train_on_a_terminal(digits, b"\x1b[?62;4c")  # 4: sixel
    sixel = re.search(rb"\x1bP[\d;]*q\"1;1;(\d+);(\d+)", written)
    assert sixel is not None
    text = re.sub(rb"\x1b\[[\d;?]*[A-Za-z]", b"", written).decode(errors="replace")
    run = Path("run").absolute()
    assert f"tensorboard --logdir {run}" in text
    grid = run / "samples" / "step-00000002.png"
    assert f"file://{grid}\x1b\\{grid}\x1b]8;;" in text  # a link to click


def test_a_terminal_without_pictures_gets_blocks(digits):
    pytest.importorskip("textual_image")
    written = train_on_a_terminal(digits, b"\x1b[?62c")
    assert b"\x1bP" not in written
    assert "▀".encode() in written


def test_a_terminal_of_no_size_is_said_to_show_no_pictures(digits):
    pytest.importorskip("textual_image")
    written = train_on_a_terminal(digits, b"\x1b[?62c", (0, 0, 0, 0))
    assert b"show: this terminal shows no pictures; the run goes on without" in written

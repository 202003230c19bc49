"""Report a run: metrics.jsonl, TensorBoard, train.log and the live line on the terminal.

Between two logs nothing is read from the device: measures are summed there, and read all at once.
"""

import dataclasses
import json
import math
import os
import shlex
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.live import Live
from rich.panel import Panel
from rich.text import Text
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from began_cli.files import replacing
from began_cli.gan.measures import Measures
from began_cli.terminal import picture_class

STATES = ("k_t", "log_z")  # logged as they are now, not as means
PATIENCE = 5.0  # seconds without a line, if redirected, until the first that only tells the step
ON_TERMINAL = ("loss_d", "loss_g", "loss_real", "loss_fake", "k_t", "convergence", "diversity")


class _Console(Console):
    """A console that goes on in silence when nobody reads it any more (`began train | head`)."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    def print(self, *objects: Any, **options: Any) -> None:
        try:
            super().print(*objects, **options)
        except OSError:  # such as a full disk behind `>`
            self.on_broken_pipe()


class Monitor:
    """Means of the measures over the steps between two logs, and all that reports them.

    A context manager, which closes the files.
    """

    def __init__(
        self,
        run: Path,
        steps: int,
        settings: dict[str, Any],
        resumed_at: int,
        show: bool = False,
    ) -> None:
        """`resumed_at` is the step of the last log before a resumed run's checkpoint, else 0; with
        `show` a terminal shows the sample grids."""
        self.run, self.steps = run, steps
        self.logged_at = resumed_at
        self.console = _Console(highlight=False)
        self._names: list[str] = []
        self._sums: list[Tensor] = []
        self._count = 0
        self._last: Measures | None = None
        self._speed = math.nan
        self.step = self._first_step = 0
        self._values = ""  # the last log's, for the terminal
        self._patience = PATIENCE
        self._newest: Path | None = None
        self._picture = picture_class() if show and self.console.is_terminal else None
        self._log = (run / "train.log").open("a", encoding="utf-8")
        self._open()
        if not resumed_at:
            for summary in hparams(settings, {"train/loss_d": 0.0, "train/convergence": 0.0}):
                assert self.board.file_writer is not None
                self.board.file_writer.add_summary(summary)
        self._live = Live(self, console=self.console, refresh_per_second=4)

    def __enter__(self) -> "Monitor":
        return self

    def __exit__(self, *exception: object) -> None:
        self._live.stop()
        for stream in (self.board, self._metrics, self._log):
            with suppress(OSError):  # a full disk has been reported before
                stream.close()

    def _open(self) -> None:
        """Open metrics.jsonl and TensorBoard's file, without what was logged after `logged_at`."""
        cut_back(self.run / "metrics.jsonl", self.logged_at)
        self._metrics = (self.run / "metrics.jsonl").open("a", encoding="utf-8")
        purge = self.logged_at + 1 if self.logged_at else None
        self.board = SummaryWriter(str(self.run), purge_step=purge)

    def rewind(self, step: int, images: int) -> None:
        """Drop what was logged later, after `load_state_dict` in the middle of a run."""
        self.board.close()
        self._metrics.close()
        self._open()
        self.start(step, images)

    def point_to(self, grid: Path) -> None:
        """Name the newest sample grid on the terminal, and show it there if that is wanted."""
        self._newest = grid
        if self._picture is None:
            return
        try:
            self.console.print(self._picture(grid, "auto", "auto"))
        except Exception:  # what a terminal answers must not end a run
            self._picture = None
            self.warn("show: this terminal shows no pictures; the run goes on without")

    def say(self, text: str) -> None:
        """Write a line to the terminal and train.log."""
        self.console.print(text, markup=False, soft_wrap=True)
        self._note(text)

    def _note(self, text: str) -> None:
        with suppress(OSError):  # a full disk must not keep the run from reporting it
            print(time.strftime("%Y-%m-%d %H:%M:%S"), text, file=self._log, flush=True)

    def warn(self, text: str, title: str = "warning") -> None:
        """Write a warning to train.log and the terminal: a panel, or a line if it is redirected."""
        line = f"{title}: {' '.join(text.split())}"
        if self.console.is_terminal:
            self.console.print(Panel(Text(text), title=title, border_style="yellow", expand=False))
        else:
            self.console.print(line, markup=False, soft_wrap=True)
        self._note(line)

    def start(self, step: int, images: int) -> None:
        """Start the clock after `step` steps and `images` images."""
        self.step = self._first_step = step
        self._clock = self._first_clock = time.perf_counter()
        self._clock_images = images
        if self.console.is_terminal:
            self._live.start()

    def add(self, measures: Measures, step: int) -> None:
        """Add a step's measures to the sums, without waiting for the device."""
        values = list(measures.scalars.values())
        if self._sums:
            torch._foreach_add_(self._sums, values)
        else:
            self._names = list(measures.scalars)
            self._sums = [value.clone() for value in values]
        self._count += 1
        self._last, self.step = measures, step
        waited = time.perf_counter() - self._clock
        if waited > self._patience and not self.console.is_terminal:
            text = f"step {step:,}/{self.steps:,}  eta {self._eta(step)}"
            self.console.print(text, markup=False, soft_wrap=True)
            self._patience = 4 * waited  # the next lines ever later: a log comes in between

    def means(self, images: int, **more: float) -> dict[str, float]:
        """Return the means since the last log, `more`, and the images per second.

        `images` is the number of images since the beginning of the run.
        """
        assert self._last is not None
        scalars = torch.stack(self._sums).float() / self._count
        states = {name: self._last.scalars[name] for name in self._names if name in STATES}
        if states:
            scalars = torch.cat([scalars, torch.stack([*states.values()]).float()])
        numbers = scalars.tolist()  # the one wait for the device
        values = dict(zip([*self._names, *states], numbers, strict=True))
        clock = time.perf_counter()
        self._speed = (images - self._clock_images) / (clock - self._clock)
        self._clock, self._clock_images = clock, images
        return values | more | {"images_per_second": self._speed}

    def log(
        self, step: int, images: int, values: dict[str, float], alarm: str | None = None
    ) -> None:
        """Write `values` everywhere; in metrics.jsonl with the watchdog's fatal alarm, if any."""
        assert self._last is not None
        line: dict[str, Any] = {"step": step, "images": images}
        for name, value in values.items():
            line[f"train/{name}"] = value if math.isfinite(value) else None  # JSON has no NaN
        if alarm is not None:
            line["watchdog"] = alarm
        print(json.dumps(line), file=self._metrics, flush=True)
        for name, value in values.items():
            self.board.add_scalar(f"train/{name}", value, step)
        for name, each in (("loss_real", self._last.real), ("loss_fake", self._last.fake)):
            each = each.float().cpu()
            if (each.abs() < 1e20).all():  # the range of TensorBoard's bins
                self.board.add_histogram(name, each, step)
        shown = [name for name in ON_TERMINAL if name in values]
        self._values = "  ".join(f"{name} {values[name]:.4g}" for name in shown)
        text = f"step {step:,}/{self.steps:,}  {images:,} images  {self._speed:,.0f} images/s  "
        text += f"{self._values}  eta {self._eta(step)}"
        if not self.console.is_terminal:
            self.console.print(text, markup=False, soft_wrap=True)
        self._note(text)
        self._sums, self._count, self.logged_at = [], 0, step

    def log_score(self, scalars: dict[str, float], step: int) -> None:
        """Write a score and its floor, by their tags, to TensorBoard."""
        for tag, value in scalars.items():
            self.board.add_scalar(tag, value, step)

    def log_image(self, tag: str, image: Tensor, step: int) -> None:
        """Write a uint8 image (3, H, W) to TensorBoard."""
        self.board.add_image(tag, image, step)

    def _eta(self, step: int) -> str:
        """Return the time that the remaining steps will take, as [H:]MM:SS."""
        done, clock = step - self._first_step, time.perf_counter() - self._first_clock
        seconds = int(clock / done * (self.steps - step)) if done > 0 else 0
        hours, minutes = seconds // 3600, seconds // 60 % 60
        return (
            f"{hours}:{minutes:02}:{seconds % 60:02}" if hours else f"{minutes}:{seconds % 60:02}"
        )

    def __rich__(self) -> Text:
        speed = f"{self._speed:,.0f} images/s" if self._speed == self._speed else "… images/s"
        progress = f"step {self.step:,}/{self.steps:,}  {speed}  eta {self._eta(self.step)}"
        lines = Text(f"{progress}  {self._values}", no_wrap=True, overflow="ellipsis")
        lines.append(f"\ntensorboard --logdir {shlex.quote(str(self.run))}", style="dim")
        if self._newest:  # most terminals open a link by a click
            link = self._newest.absolute().as_uri()
            lines.append("  ").append(str(self._newest), style=f"dim link {link}")
        return lines

    def state_dict(self) -> dict[str, Any]:
        """Return the sums since the last log, so that a resumed run logs the same means."""
        sums = dict(zip(self._names, self._sums, strict=True)) if self._sums else {}
        state = {"sums": sums, "count": self._count, "logged_at": self.logged_at}
        if self._last is not None:
            state["last"] = dataclasses.asdict(self._last)
        return state

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        self._names = list(state["sums"])
        self._sums = [value.to(device) for value in state["sums"].values()]
        self._count, self.logged_at = state["count"], state["logged_at"]
        if last := state.get("last"):
            scalars = {name: value.to(device) for name, value in last["scalars"].items()}
            self._last = Measures(scalars, last["real"].to(device), last["fake"].to(device))


class NoMonitor:
    """The monitor of processes other than 0: its methods do nothing."""

    logged_at = 0

    def __enter__(self) -> "NoMonitor":
        return self

    def __exit__(self, *exception: object) -> None: ...

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return lambda *args, **options: None


def cut_back(metrics: Path, step: int) -> None:
    """Drop the lines after `step` from a metrics.jsonl, and any that was cut short."""
    if not metrics.exists():
        return
    kept = []
    for line in metrics.read_text(encoding="utf-8").splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
        except (ValueError, KeyError, TypeError):
            continue
    with replacing(metrics) as temporary:
        temporary.write_text("".join(kept), encoding="utf-8")

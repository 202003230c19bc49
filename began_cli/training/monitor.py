"""What a run tells: metrics.jsonl, TensorBoard, train.log and the line on the terminal.

Between two logs nothing is read from the device: measures are summed there, and read all at once.
"""

import dataclasses
import json
import math
import os
import sys
import time
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

STATES = ("k_t", "log_z")  # the value now is of interest, not a mean
SHOWN = ("loss_d", "loss_g", "loss_real", "loss_fake", "k_t", "convergence", "diversity")


class _Console(Console):
    """A terminal that nobody reads any more (`began train | head`) does not end the run."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    def print(self, *words: Any, **how: Any) -> None:
        try:
            super().print(*words, **how)
        except OSError:  # such as a full disk behind `>`
            self.on_broken_pipe()


class Monitor:
    """Means over the steps between two logs, told to every reader. Use as a context manager."""

    def __init__(self, run: Path, steps: int, settings: dict[str, Any], resumed_at: int) -> None:
        """`resumed_at`: the step of the last log that a resumed run had written, else 0."""
        self.run, self.steps = run, steps
        self.logged_at = resumed_at
        self.console = _Console(highlight=False)
        self._names: list[str] = []
        self._sums: list[Tensor] = []
        self._count = 0
        self._last: Measures | None = None
        self._speed = math.nan
        self.step = self._first_step = 0
        self._shown = ""
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
            with suppress(OSError):  # a full disk has been reported when it was met
                stream.close()

    def _open(self) -> None:
        """Opens metrics.jsonl and the board, both cut back to the last log that counts."""
        cut_back(self.run / "metrics.jsonl", self.logged_at)
        self._metrics = (self.run / "metrics.jsonl").open("a", encoding="utf-8")
        purge = self.logged_at + 1 if self.logged_at else None
        self.board = SummaryWriter(str(self.run), purge_step=purge)

    def rewind(self, step: int, images: int) -> None:
        """After `load_state_dict` in the middle of a run: what came later is cut off."""
        self.board.close()
        self._metrics.close()
        self._open()
        self.start(step, images)

    def say(self, text: str) -> None:
        """One line for the terminal and train.log."""
        self.console.print(text, markup=False, soft_wrap=True)
        self._note(text)

    def _note(self, text: str) -> None:
        with suppress(OSError):  # a full disk must not keep the run from saying so
            print(time.strftime("%Y-%m-%d %H:%M:%S"), text, file=self._log, flush=True)

    def warn(self, text: str, title: str = "warning") -> None:
        """A panel on the terminal; one line where there is none, and in train.log."""
        line = f"{title}: {' '.join(text.split())}"
        if self.console.is_terminal:
            self.console.print(Panel(Text(text), title=title, border_style="yellow", expand=False))
        else:
            self.console.print(line, markup=False, soft_wrap=True)
        self._note(line)

    def start(self, step: int, images: int) -> None:
        """The clock runs from here, where `step` steps and `images` images have been done."""
        self.step = self._first_step = step
        self._clock = self._first_clock = time.perf_counter()
        self._clock_images = images
        if self.console.is_terminal:
            self._live.start()  # once: it is not started again while it lives

    def add(self, measures: Measures, step: int) -> None:
        """Takes in a step's measures, without waiting for the device."""
        values = list(measures.scalars.values())
        if self._sums:
            torch._foreach_add_(self._sums, values)
        else:
            self._names = list(measures.scalars)
            self._sums = [value.clone() for value in values]
        self._count += 1
        self._last, self.step = measures, step

    def log(self, step: int, images: int, **more: float) -> dict[str, float]:
        """Reads the means since the last log, adds `more`, and tells all readers."""
        assert self._last is not None
        scalars = torch.stack(self._sums).float() / self._count
        now = {name: self._last.scalars[name] for name in self._names if name in STATES}
        read = torch.cat([scalars, torch.stack([*now.values()]).float()]) if now else scalars
        numbers = read.tolist()  # the one wait for the device
        values = dict(zip([*self._names, *now], numbers, strict=True)) | more
        clock = time.perf_counter()
        self._speed = (images - self._clock_images) / (clock - self._clock)
        values["images_per_second"] = self._speed
        self._clock, self._clock_images = clock, images

        line = {"step": step, "images": images}
        line |= {f"train/{name}": value for name, value in values.items()}
        finite = {key: value if math.isfinite(value) else None for key, value in line.items()}
        print(json.dumps(finite), file=self._metrics, flush=True)  # JSON has no NaN
        for name, value in values.items():
            self.board.add_scalar(f"train/{name}", value, step)
        for name, each in (("loss_real", self._last.real), ("loss_fake", self._last.fake)):
            each = each.float().cpu()
            if (each.abs() < 1e20).all():  # TensorBoard's bins end there
                self.board.add_histogram(name, each, step)
        shown = [name for name in SHOWN if name in values]
        self._shown = "  ".join(f"{name} {values[name]:.4g}" for name in shown)
        text = f"step {step:,}/{self.steps:,}  {images:,} images  {self._speed:,.0f} images/s  "
        text += f"{self._shown}  eta {self._eta(step)}"
        if not self.console.is_terminal:
            self.console.print(text, markup=False, soft_wrap=True)
        self._note(text)
        self._sums, self._count, self.logged_at = [], 0, step
        return values

    def scalar(self, name: str, value: float, floor: float, step: int) -> None:
        """A score for TensorBoard, under the same tag as `began evaluate` uses."""
        tag = f"evaluation/{name.replace('@', '-')}"
        self.board.add_scalar(tag, value, step)
        self.board.add_scalar(f"{tag}/floor", floor, step)

    def picture(self, tag: str, image: Tensor, step: int) -> None:
        """A uint8 picture (3, H, W) for TensorBoard."""
        self.board.add_image(tag, image, step)

    def _eta(self, step: int) -> str:
        done, clock = step - self._first_step, time.perf_counter() - self._first_clock
        seconds = int(clock / done * (self.steps - step)) if done > 0 else 0
        hours, minutes = seconds // 3600, seconds // 60 % 60
        return (
            f"{hours}:{minutes:02}:{seconds % 60:02}" if hours else f"{minutes}:{seconds % 60:02}"
        )

    def __rich__(self) -> Text:
        speed = f"{self._speed:,.0f} images/s" if self._speed == self._speed else "… images/s"
        text = (
            f"step {self.step:,}/{self.steps:,}  {speed}  eta {self._eta(self.step)}  {self._shown}"
        )
        return Text(text, no_wrap=True, overflow="ellipsis")

    def state_dict(self) -> dict[str, Any]:
        """The sums since the last log, so that a resumed run logs the same means."""
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


class Silent(Monitor):
    """The monitor of a process that is not the first: it tells nobody anything."""

    def __init__(self) -> None:
        self.logged_at = 0

    def __exit__(self, *exception: object) -> None: ...

    def rewind(self, step: int, images: int) -> None: ...

    def say(self, text: str) -> None: ...

    def warn(self, text: str, title: str = "warning") -> None: ...

    def start(self, step: int, images: int) -> None: ...

    def add(self, measures: Measures, step: int) -> None: ...

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None: ...


def cut_back(metrics: Path, step: int) -> None:
    """Drops the lines after `step` from a metrics.jsonl, and a last line that was cut short."""
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

"""Signals that ask a run to stop: it finishes its step, saves, and leaves."""

import signal
from types import FrameType, TracebackType
from typing import Any

from began_cli import ranks

RESUME_ME = 75  # exit code of a run that was stopped and can go on (EX_TEMPFAIL)

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2")


class StopRequest:
    """Within its block the first signal only sets `name`; a second Ctrl-C stops at once.

    What else was to happen at a signal happens after the block, when all is saved.
    """

    def __init__(self) -> None:
        self.name: str | None = None
        self._earlier: dict[signal.Signals, Any] = {}
        self._heard: list[signal.Signals] = []

    def __enter__(self) -> "StopRequest":
        for name in _NAMES:
            if hasattr(signal, name):
                number = getattr(signal, name)
                self._earlier[number] = signal.signal(number, self._note)
        return self

    def asked(self) -> str | None:
        """The name of a signal that has come, to this process or another of the run. To be asked
        once a step by all, who leave at the same step (the next one, where there are several)."""
        if not ranks.anyone(self.name is not None):
            return None
        return self.name or "a signal to another process"

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.name is not None:
            raise KeyboardInterrupt
        self.name = signal.Signals(number).name
        self._heard.append(signal.Signals(number))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        for number, handler in self._earlier.items():
            signal.signal(number, handler)
        if kind is not None:
            return
        for number in self._heard:  # such as a job scheduler's, which puts the job back in line
            earlier = self._earlier[number]
            if callable(earlier) and earlier is not signal.default_int_handler:
                earlier(number, None)

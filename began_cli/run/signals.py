"""Signals that ask a run to stop: it finishes its step, saves, and leaves."""

import signal
from types import FrameType, TracebackType
from typing import Any

RESUME_ME = 75  # exit code of a run that was stopped and can go on (EX_TEMPFAIL)

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2")


class StopRequest:
    """Within its block the first signal only sets `name`; a second Ctrl-C stops at once."""

    def __init__(self) -> None:
        self.name: str | None = None
        self._earlier: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "StopRequest":
        for name in _NAMES:
            if hasattr(signal, name):
                number = getattr(signal, name)
                self._earlier[number] = signal.signal(number, self._note)
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.name is not None:
            raise KeyboardInterrupt
        self.name = signal.Signals(number).name
        earlier = self._earlier.get(signal.Signals(number))
        if callable(earlier) and earlier is not signal.default_int_handler:
            earlier(number, frame)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        for number, handler in self._earlier.items():
            signal.signal(number, handler)

"""Signals that ask a run to stop: it finishes its step, saves, and ends."""

import signal
from types import FrameType, TracebackType
from typing import Any

from began_cli import ranks

CAN_RESUME = 75  # exit code of a run that was stopped and can be resumed (EX_TEMPFAIL)

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2")


class StopRequest:
    """Context manager that takes note of signals; a second Ctrl-C raises KeyboardInterrupt.

    The handlers that were set before are called after the block, when the run has been saved.
    """

    def __init__(self) -> None:
        self.name: str | None = None  # of the last signal
        self._any = ranks.AnyProcess()
        self._handlers: dict[signal.Signals, Any] = {}  # set before the block
        self._received: list[signal.Signals] = []

    def __enter__(self) -> "StopRequest":
        for name in _NAMES:
            if hasattr(signal, name):
                number = getattr(signal, name)
                self._handlers[number] = signal.signal(number, self._receive)
        return self

    def received(self) -> str | None:
        """Return the name of the signal that any process of the run has received, or None.

        All processes call this once a step, and get an answer in the same step: with several
        processes, that after the signal.
        """
        if not self._any(self.name is not None):
            return None
        return self.name or "a signal to another process"

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.name is not None:
            raise KeyboardInterrupt
        self.name = signal.Signals(number).name
        self._received.append(signal.Signals(number))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        if kind is not None:
            return
        for number in self._received:  # such as a job scheduler's, which queues the job again
            handler = self._handlers[number]
            if callable(handler) and handler is not signal.default_int_handler:
                handler(number, None)

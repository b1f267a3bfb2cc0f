"""Ctrl-C while a command only imports: the process ends with 130 at once.

An exception that a signal raises inside an import can be lost, or becomes a traceback.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType

_INTERRUPTED = 130  # ExitCode.INTERRUPTED; its import could be interrupted, too


class InterruptExit:
    """End the process at Ctrl-C while it is armed. Only the program `fal` arms it, never a caller of `main`."""

    def __init__(self) -> None:
        self._armed_before = False

    def arm(self) -> None:
        """Let Ctrl-C end the process, unless the process ignores Ctrl-C or handles it."""
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._exit)
            self._armed_before = True

    def disarm(self) -> None:
        """Let Ctrl-C raise KeyboardInterrupt, so that a command can clean up."""
        if self._armed_before and signal.getsignal(signal.SIGINT) == self._exit:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    @contextmanager
    def armed(self) -> Generator[None]:
        """Let Ctrl-C end the process within the block, if `fal` runs as a program."""
        if self._armed_before:
            self.arm()
        try:
            yield
        finally:
            self.disarm()

    @staticmethod
    def _exit(_number: int, _frame: FrameType | None) -> None:
        os._exit(_INTERRUPTED)


interrupt_exit = InterruptExit()

"""SIGINT, SIGTERM and SIGHUP. They end this process at once, or after a cleanup.

An exception raised by a signal can hit any line. Inside an import, a `finally` or gRPC it is lost, becomes a
traceback or leaves a lock held. So a signal ends the process immediately, unless a command has something to undo:

    with interrupts.deferred():
        try:
            with interrupts.interruptible():
                wait()  # a signal raises here only
        finally:
            undo()
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from types import FrameType, TracebackType
from typing import Generic, NoReturn, TypeVar

Result = TypeVar("Result")
# How long a cleanup may take; afterwards the terminal is restored and the process ends in any case.
CLEANUP_SECONDS = 10.0
# How long a cleanup waits for a thread's result.
_SETTLE_SECONDS = 5.0


ENDING: tuple[signal.Signals, ...] = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)
"""The signals that end a command; not every system has all of them."""


class Interrupts:
    """The current effect of a signal. Only the program `fal` arms it, never a caller of `main`."""

    def __init__(self) -> None:
        self._deferred = 0
        self._interruptible = False
        self._taken = 0
        self._left = CLEANUP_SECONDS
        self._last_words: list[Callable[[], object]] = []

    def arm(self, instead_of: Callable[[int, object], object] | None = None) -> None:
        """Let SIGINT, SIGTERM and SIGHUP end the process. Those that it ignores or handles are exceptions.

        Args:
            instead_of: the handler that this one replaces.
        """
        for number in ENDING:
            if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler, instead_of):
                signal.signal(number, self._handle)

    @contextmanager
    def deferred(self) -> Generator[None]:
        """Delay a signal until the block ends, by 10 seconds at most. An `interruptible` in it lets the signal in."""
        self._deferred += 1
        try:
            yield
        finally:
            self._deferred -= 1
            if self._taken and not self._deferred:
                self._exit()

    def interruptible(self) -> _Interruptible:
        """Let a signal raise within the block, if `fal` is a program. It raises KeyboardInterrupt or SystemExit."""
        return _Interruptible(self)

    @contextmanager
    def last_words(self, say: Callable[[], object]) -> Generator[None]:
        """Call a function before a signal ends the process within the block.

        The signal may hit any line, so the function must use `os.write`.
        """
        self._last_words.append(say)
        try:
            yield
        finally:
            self._last_words.remove(say)

    def set_interruptible(self, *, to: bool) -> None:
        """Change the effect of a signal; raise for a pending one."""
        self._interruptible = to
        if to and self._taken:
            self._raise()

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self._taken:
            return
        self._taken = number
        if not self._deferred:
            self._exit()
        if hasattr(signal, "setitimer"):
            signal.signal(signal.SIGALRM, self._look)
            signal.setitimer(signal.ITIMER_REAL, 1.0, 1.0)
        if self._interruptible:
            self._raise()

    def _look(self, _number: int, _frame: FrameType | None) -> None:
        """End a cleanup that takes too long. Raise again if the exception was lost, for example in a `__del__`."""
        self._left -= 1
        if self._left <= 0:
            self._exit()
        if self._interruptible:
            self._raise()

    def _raise(self) -> NoReturn:
        if self._taken == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + self._taken)

    def _exit(self) -> NoReturn:
        try:
            # The output may be closed, or the signal may have interrupted a write to it.
            with suppress(OSError, RuntimeError, ValueError):
                for say in self._last_words:
                    say()
                sys.stdout.flush()
        finally:
            os._exit(128 + self._taken)


class _Interruptible:
    """A class instead of a generator. A signal may arrive within its first and last lines."""

    def __init__(self, interrupts: Interrupts) -> None:
        self._interrupts = interrupts

    def __enter__(self) -> None:
        self._interrupts.set_interruptible(to=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._interrupts.set_interruptible(to=False)


class Started(Generic[Result]):
    """Runs a call in a thread. A signal cannot interrupt it halfway.

    Args:
        make: returns what must be undone, for example a remote command.
    """

    def __init__(self, make: Callable[[], Result]) -> None:
        self._make = make
        self._made: list[Result] = []
        self._error: BaseException | None = None
        self._over = threading.Event()
        threading.Thread(target=self._run, name="fal-started", daemon=True).start()

    def _run(self) -> None:
        try:
            self._made.append(self._make())
        except BaseException as error:  # noqa: BLE001 - `result` raises it in the main thread
            self._error = error
        finally:
            self._over.set()

    def result(self) -> Result:
        """Wait for the call, and return its result or raise its exception."""
        self._over.wait()
        if self._error is not None:
            raise self._error
        return self._made[0]

    def settled(self) -> Result | None:
        """Wait a little after a signal, and return the result. None if there is none."""
        self._over.wait(_SETTLE_SECONDS)
        return self._made[0] if self._made else None


interrupts = Interrupts()

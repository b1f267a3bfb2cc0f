"""A full screen on this process's terminal. Draws lines, reads keys, and restores the terminal."""

from __future__ import annotations

import os
import select
import signal
import sys
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from types import FrameType

from fal_cli.interrupts import interrupts
from fal_cli.terminal.terminal import raw_mode, terminal_size

# The alternate screen without a cursor, and back.
_ENTER = "\x1b[?1049h\x1b[?25l"
_LEAVE = "\x1b[?25h\x1b[?1049l"
_HOME = "\x1b[H"
_CLEAR_LINE = "\x1b[K"
_CLEAR_REST = "\x1b[J"
_KEYS = {
    b"\x1b[A": "up",
    b"\x1bOA": "up",
    b"\x1b[B": "down",
    b"\x1bOB": "down",
    b"\x1b[5~": "page-up",
    b"\x1b[6~": "page-down",
    b"\x1b[H": "home",
    b"\x1b[1~": "home",
    b"\x1b[F": "end",
    b"\x1b[4~": "end",
    b"\x1b": "escape",
    b"\r": "enter",
    b"\n": "enter",
    b"\x7f": "backspace",
    b"\x08": "backspace",
    b"\x03": "ctrl-c",
    b"\x04": "ctrl-d",
}


class Screen:
    """The terminal while a program fills it. Use it inside `interrupts.deferred()`."""

    def __init__(self) -> None:
        self._input = sys.stdin.fileno()
        self._held = ExitStack()
        self._wake_reader, self._waker = os.pipe()
        os.set_blocking(self._waker, False)

    @contextmanager
    def entered(self) -> Generator[None]:
        """Take over the terminal until the block ends."""
        with ExitStack() as stack:

            def resized(_number: int, _frame: FrameType | None) -> None:
                self.wake()

            stack.callback(signal.signal, signal.SIGWINCH, signal.signal(signal.SIGWINCH, resized))
            self._held = stack.enter_context(ExitStack())
            self._take()
            yield

    @contextmanager
    def left(self) -> Generator[None]:
        """Release the terminal to another program until the block ends."""
        self._held.close()
        try:
            yield
        finally:
            self._take()

    def _take(self) -> None:
        self._held.callback(_write, _LEAVE)
        _write(_ENTER)
        self._held.enter_context(raw_mode(self._input))

    def wake(self) -> None:
        """Make `keys` return; callable from any thread or signal handler."""
        with suppress(BlockingIOError):
            os.write(self._waker, b"w")

    def size(self) -> tuple[int, int]:
        """Return rows and columns."""
        return terminal_size(sys.stdout.fileno())

    def draw(self, lines: Sequence[str]) -> None:
        """Show these lines, from the top."""
        _write(_HOME + "\r\n".join(line + _CLEAR_LINE for line in lines) + _CLEAR_REST)

    def keys(self, timeout_seconds: float) -> list[str]:
        """Wait for keys, a wake-up or the timeout; return the keys. A lost terminal is Ctrl-D."""
        with interrupts.interruptible():
            ready, _, _ = select.select([self._input, self._wake_reader], [], [], timeout_seconds)
        if self._wake_reader in ready:
            os.read(self._wake_reader, 4096)
        if self._input not in ready:
            return []
        return list(_read_keys(os.read(self._input, 1024)))


def _read_keys(data: bytes) -> Iterator[str]:
    """Yield the names of known keys, and the characters of all others."""
    if not data:
        yield "ctrl-d"
    while data:
        known = next((code for code in sorted(_KEYS, key=len, reverse=True) if data.startswith(code)), None)
        if known == b"\x1b" and len(data) > 1:
            return  # an unknown sequence: its characters are not keys
        if known is not None:
            yield _KEYS[known]
            data = data[len(known) :]
            continue
        length = 1 if data[0] < 0x80 else 2 if data[0] < 0xE0 else 3 if data[0] < 0xF0 else 4
        with suppress(UnicodeDecodeError):
            yield data[:length].decode()
        data = data[length:]


def _write(text: str) -> None:
    data = memoryview(text.encode(errors="replace"))
    while data:
        data = data[os.write(sys.stdout.fileno(), data) :]

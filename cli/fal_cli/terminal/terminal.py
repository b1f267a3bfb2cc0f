"""This process's terminal for a remote command: raw mode, size and input.

Other systems than POSIX have no raw mode, and there a blocking thread reads the input.
"""

from __future__ import annotations

import os
import select
import selectors
import signal
import threading
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager, suppress
from types import FrameType

from fal_cli.interrupts import interrupts

CHUNK_BYTES = 128 * 1024
_RESIZED = b"r"
# How long to wait for the input thread, which may be sending to a runner that does not read.
_STOP_SECONDS = 5.0
# Elsewhere select only accepts sockets.
_SELECTS_FILES = hasattr(select, "poll")


def has_raw_mode() -> bool:
    """Return whether a terminal of this system can pass on every key."""
    try:
        import termios
    except ModuleNotFoundError:
        return False
    return hasattr(termios, "tcsetattr")


def terminal_size(descriptor: int) -> tuple[int, int]:
    """Return the terminal's rows and columns; 24 and 80 if unknown."""
    try:
        size = os.get_terminal_size(descriptor)
    except OSError:
        return 24, 80
    return size.lines or 24, size.columns or 80


@contextmanager
def raw_mode(descriptor: int) -> Generator[None]:
    """Pass on every key unchanged, including Ctrl-C; undone at the end. Use it inside `interrupts.deferred`."""
    import termios
    import tty

    before = termios.tcgetattr(descriptor)

    def restore() -> None:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)

    with ExitStack() as stack:
        stack.enter_context(interrupts.last_words(restore))
        stack.callback(restore)
        tty.setraw(descriptor, termios.TCSADRAIN)
        yield


class InputPump:
    """Sends the input, and the terminal's changed sizes, in a thread.

    Args:
        descriptor: the input; None counts as an input at its end.
        send: receives the data.
        end: called at the end of the input.
        resize: receives rows and columns; None if there is no terminal.
    """

    def __init__(
        self,
        descriptor: int | None,
        *,
        send: Callable[[bytes], None],
        end: Callable[[], None],
        resize: Callable[[int, int], None] | None,
    ) -> None:
        self._descriptor = descriptor
        self._send = send
        self._end = end
        self._resize = resize

    @contextmanager
    def running(self) -> Generator[None]:
        """Send until the block ends."""
        if not _SELECTS_FILES:
            # The thread waits for input that may never come, so nobody waits for the thread.
            threading.Thread(target=self._read_on, name="fal-input", daemon=True).start()
            yield
            return
        self._thread = threading.Thread(target=self._run, name="fal-input", daemon=True)
        with ExitStack() as stack:
            # The thread closes its own end of the pipe, so that Ctrl-C can never close it while the thread uses it;
            # closing the other end tells the thread to stop.
            self._wake, waker = os.pipe()
            stack.callback(self._join)
            stack.callback(os.close, waker)
            # The signal handler only wakes the thread: sending may block, which a handler must not do.
            os.set_blocking(waker, False)
            if self._resize is not None:

                def resized(_number: int, _frame: FrameType | None) -> None:
                    _write_quietly(waker, _RESIZED)

                stack.callback(signal.signal, signal.SIGWINCH, signal.signal(signal.SIGWINCH, resized))
            self._thread.start()
            yield

    def _join(self) -> None:
        if self._thread.is_alive():
            self._thread.join(_STOP_SECONDS)

    def _read_on(self) -> None:
        while self._descriptor is not None and self._pump(self._descriptor):
            pass
        self._end()

    def _run(self) -> None:
        with ExitStack() as stack:
            stack.callback(os.close, self._wake)
            # epoll rejects regular files, and poll rejects terminals on some systems.
            selector = stack.enter_context(selectors.SelectSelector())
            selector.register(self._wake, selectors.EVENT_READ)
            if self._descriptor is None:
                self._end()
            else:
                selector.register(self._descriptor, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
                    if key.fd == self._wake:
                        if not os.read(self._wake, 64):
                            return
                        self._send_size()
                    elif not self._pump(key.fd):
                        selector.unregister(key.fd)
                        self._end()

    def _pump(self, descriptor: int) -> bool:
        try:
            data = os.read(descriptor, CHUNK_BYTES)
        except OSError:
            # The terminal was hung up.
            data = b""
        if data:
            self._send(data)
        return bool(data)

    def _send_size(self) -> None:
        if self._resize is not None and self._descriptor is not None:
            self._resize(*terminal_size(self._descriptor))


def _write_quietly(descriptor: int, data: bytes) -> None:
    """Wake the pump; if the pipe is full, it wakes up anyway."""
    with suppress(BlockingIOError):
        os.write(descriptor, data)

"""One live line on a terminal for work that takes a while. Elsewhere there are plain lines."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import deque
from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Self

from fal_cli.interrupts import interrupts
from fal_cli.presentation.folding import cut
from fal_cli.presentation.output import print_note
from fal_cli.presentation.printable import log_text, one_line
from fal_cli.presentation.style import paint, wants_color

if TYPE_CHECKING:
    from fal.api import BuildResult

_FRAMES = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_FRAME_SECONDS = 0.1
_ERASE = "\r\x1b[K"
_QUIET_LEVELS = frozenset({"TRACE", "DEBUG"})
_KEPT_LINES = 25


class LiveLine:
    """Shows a task and its duration in a redrawn line. It is erased at the end or by a signal.

    Without a terminal it shows each new text as a line.

    Args:
        title: the task, for example "Building the environment".
    """

    def __init__(self, title: str) -> None:
        self._title = title
        self._step = ""
        self._live = sys.stderr.isatty()
        self._color = wants_color(sys.stderr)
        self._started = time.monotonic()
        self._ended = threading.Event()
        self._cut_off = False
        self._drawing = threading.Lock()
        self._last_words = ExitStack()
        self._drawer: threading.Thread | None = None

    @property
    def seconds(self) -> float:
        """The seconds that it has been shown."""
        return time.monotonic() - self._started

    def step(self, text: str) -> None:
        """Show the current step."""
        self._step = text
        if not self._live:
            print_note(text)

    def start(self) -> Self:
        """Start drawing and measuring the time."""
        self._started = time.monotonic()
        if self._live:
            self._last_words.enter_context(interrupts.last_words(self._erase_at_once))
            self._drawer = threading.Thread(target=self._draw, daemon=True)
            self._drawer.start()
        else:
            print_note(f"{self._title} ...")
        return self

    def end(self) -> None:
        """Erase the line."""
        self._ended.set()
        if self._drawer is not None:
            self._drawer.join()
            self._drawer = None
            sys.stderr.write(_ERASE)
            sys.stderr.flush()
        self._last_words.close()

    def _erase_at_once(self) -> None:
        """Erase the line before a signal ends the process. The drawing thread finishes its current frame."""
        self._cut_off = True
        self._drawing.acquire(timeout=2 * _FRAME_SECONDS)
        os.write(sys.stderr.fileno(), _ERASE.encode())

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def _draw(self) -> None:
        from shutil import get_terminal_size

        number = 0
        while not self._ended.wait(_FRAME_SECONDS):
            frame = paint(_FRAMES[number % len(_FRAMES)], "cyan", color=self._color)
            number += 1
            took = f"({self.seconds:.1f} s)"
            room = get_terminal_size().columns - len(took) - 4
            text = f"{self._title}: {self._step}" if self._step else self._title
            shown = cut(one_line(text), room)
            with self._drawing:
                if self._cut_off:
                    return
                sys.stderr.write(f"{_ERASE}{frame} {shown} {paint(took, 'dim', color=self._color)}")
                sys.stderr.flush()


class BuildProgress:
    """Shows a build. On a terminal it is a live line, with the log only if it fails; elsewhere it is each line."""

    def __init__(self) -> None:
        self._line: LiveLine | None = None
        self._live = sys.stderr.isatty()
        self._kept: deque[str] = deque(maxlen=_KEPT_LINES)

    def show(self, found: BuildResult) -> None:
        """Process a message of the build, skipping lines below INFO."""
        for log in found.logs:
            if log.level.value in _QUIET_LEVELS:
                continue
            color = wants_color(sys.stderr)
            if not self._live:
                sys.stderr.write(log.message + "\n")
                continue
            text = log_text(log.message, color=color)
            self._kept.append(text)
            if self._line is None:
                self._line = LiveLine("Building the environment").start()
            if text.strip():
                self._line.step(text.strip())
        sys.stderr.flush()
        if found.state == "SUCCESS" and (line := self._close()) is not None:
            print_note(f"Built the environment in {line.seconds:.1f} s")

    def _close(self) -> LiveLine | None:
        line, self._line = self._line, None
        if line is not None:
            line.end()
        return line

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._close() is not None and isinstance(error, Exception):
            color = wants_color(sys.stderr)
            sys.stderr.write("".join(paint(text, "dim", color=color) + "\n" for text in self._kept))
            sys.stderr.flush()

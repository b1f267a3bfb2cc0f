"""Interrupt each step of a WebSocket in turn, then use it. Arguments: its URL, the file of its authority.

It is a program of its own, because it takes the place of a tracer, which coverage is.
"""

from __future__ import annotations

import ssl
import sys
from contextlib import suppress
from itertools import count
from types import FrameType
from typing import TYPE_CHECKING

from websockets.asyncio.client import connect

from fal.websocket import WebSocket

if TYPE_CHECKING:
    from _typeshed import TraceFunction


class Interrupt(BaseException):
    """What a handler of a signal raises."""


class InterruptedAt:
    """Interrupts this thread before a line, which it counts."""

    def __init__(self, number: int) -> None:
        self.left = number

    def __enter__(self) -> None:
        sys.settrace(self._trace)

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)

    def _trace(self, frame: FrameType, event: str, argument: object) -> TraceFunction:
        if event == "line":
            self.left -= 1
            if self.left == 0:
                raise Interrupt
        return self._trace


def main(url: str, authority: str) -> None:
    """Print how many steps were interrupted."""
    context = ssl.create_default_context(cafile=authority)
    with WebSocket(connect(url, ssl=context)) as socket:
        for number in count(1):
            step = InterruptedAt(number)
            with suppress(Interrupt, TimeoutError), step:
                socket.send("some")
                socket.recv(timeout=0)
            if step.left > 0:
                break
        socket.send("last")
        while socket.recv(timeout=60) != "last":
            pass
    print(number)


if __name__ == "__main__":
    main(*sys.argv[1:])

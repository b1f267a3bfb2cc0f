"""Buffers input that a command does not read yet. Later messages of the same stream are then read."""

from __future__ import annotations

import asyncio
from collections import deque
from types import TracebackType
from typing import NamedTuple, Self

from fal_runner.exec.execution import Execution, Gap

MOST_WAITING_BYTES = 2 * 1024 * 1024
"""The most input to buffer. A reader acknowledges output on the stream of its input, and a command that waits to write
may not read. Without this buffer, an acknowledgement behind the input would never be read. Clients send at most 1 MiB
ahead.
"""


class _Input(NamedTuple):
    offset: int
    data: bytes
    eof: bool


class InputFeed:
    """The input of one stream; use it with `async with`.

    Args:
        execution: receives the input.
    """

    def __init__(self, execution: Execution) -> None:
        self._execution = execution
        self._pieces: deque[_Input] = deque()
        self._waiting = 0
        self._changed = asyncio.Event()
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._task.cancel()
        await asyncio.wait((self._task,))
        if not self._task.cancelled():
            self._task.exception()  # retrieved; `put` or `drain` has raised it

    async def put(self, offset: int, data: bytes, *, eof: bool) -> None:
        """Buffer one piece; wait while much is buffered.

        Raises:
            Gap: the piece does not continue the previous input.
        """
        end = self._pieces[-1].offset + len(self._pieces[-1].data) if self._pieces else 0
        end = max(end, self._execution.input_offset)
        if offset > end:
            raise Gap(offset, end)
        self._pieces.append(_Input(offset, data, eof))
        self._waiting += len(data)
        self._changed.set()
        while self._waiting > MOST_WAITING_BYTES:
            await self._moved()

    async def drain(self) -> None:
        """Wait until the command has been given all input."""
        while self._pieces:
            await self._moved()

    async def _moved(self) -> None:
        """Wait until the command has been given some input."""
        if self._task.done():
            self._task.result()
        self._changed.clear()
        changed = asyncio.ensure_future(self._changed.wait())
        try:
            await asyncio.wait((changed, self._task), return_when=asyncio.FIRST_COMPLETED)
        finally:
            changed.cancel()

    async def _run(self) -> None:
        while True:
            while not self._pieces:
                self._changed.clear()
                await self._changed.wait()
            piece = self._pieces[0]
            await self._execution.write(piece.offset, piece.data, eof=piece.eof)
            self._pieces.popleft()
            self._waiting -= len(piece.data)
            self._changed.set()

"""One build under way, shared by all who ask for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime

from fal_server.core.faults import Unavailable
from fal_server.core.logs import LogEntry, LogLevel, LogSource
from fal_server.ports import BuildLog, BuiltEnvironment

Work = Callable[[Callable[[str], None]], Coroutine[object, None, BuiltEnvironment]]


class SharedBuild:
    """Keeps the lines of a build, so that whoever comes later gets them from the start.

    Args:
        work: the build; it calls its argument with each line of output.
        ended: called when no more askers can join: it is done, or given up (then twice).
    """

    def __init__(self, work: Work, ended: Callable[[SharedBuild], None]) -> None:
        self._lines: list[LogEntry] = []
        self._changed = asyncio.Event()
        self._askers = 0
        self._ended = ended
        self._task = asyncio.create_task(self._run(work))
        self._task.add_done_callback(self._finish)

    async def follow(self, log: BuildLog) -> BuiltEnvironment:
        """Wait for the end. The last asker to be cancelled takes the build along.

        Args:
            log: gets every line; a slow one holds up nobody else.

        Raises:
            Unavailable: the build was cancelled by `cancel`.
            Fault: what the build itself raised.
        """
        self._askers += 1
        try:
            sent = 0
            while True:
                changed, done = self._changed, self._task.done()
                while sent < len(self._lines):
                    sent += 1
                    await log(self._lines[sent - 1])
                if done and self._task.cancelled():
                    raise Unavailable("the build was given up, since the controller is stopping: deploy again")
                if done:
                    return self._task.result()
                await changed.wait()
        finally:
            self._askers -= 1
            if not self._askers and not self._task.done():
                await self.cancel()

    async def cancel(self) -> None:
        """Give up; returns when nothing is left of it."""
        self._ended(self)
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _run(self, work: Work) -> BuiltEnvironment:
        try:
            return await work(self._add)
        finally:
            self._ended(self)  # before anybody can see that it is done, and ask anew

    def _add(self, text: str) -> None:
        entry = LogEntry(
            runner_id="",
            sequence=len(self._lines) + 1,
            timestamp=datetime.now(UTC),
            level=_level(text),
            source=LogSource.BUILD,
            message=text,
        )
        self._lines.append(entry)
        self._wake()

    def _finish(self, task: asyncio.Task[BuiltEnvironment]) -> None:
        if not task.cancelled():
            task.exception()  # seen, even where every asker has gone
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


def _level(text: str) -> LogLevel:
    if text.lstrip().startswith(("error:", "\N{MULTIPLICATION SIGN} ")):  # the latter where uv explains a conflict
        return LogLevel.ERROR
    return LogLevel.WARNING if text.startswith("warning:") else LogLevel.INFO

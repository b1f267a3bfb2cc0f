"""What REST reads of runners and logs: the same use cases, in the shapes that its handlers ask for."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from datetime import datetime

from fal_server.core.logs import LogEntry, LogPage, LogQuery
from fal_server.core.runners import Runner
from fal_server.services.logs import Logs
from fal_server.services.runners import Runners


class ReadRunners:
    """Runners as they are stored."""

    def __init__(self, runners: Runners) -> None:
        self._runners = runners

    async def get(self, runner_id: str) -> Runner:
        """One runner, also one that has ended.

        Raises:
            NotFound: there is none of that id.
        """
        return (await self._runners.get(runner_id)).runner


class ReadLogs:
    """Log lines in pages, and as they come."""

    def __init__(self, logs: Logs) -> None:
        self._logs = logs

    async def page(self, query: LogQuery) -> LogPage:
        """Some lines, in the query's order."""
        return await self._logs.page(query)

    async def follow(self, runner_id: str, since: datetime | None) -> AsyncIterator[Sequence[LogEntry]]:
        """A runner's lines from a moment on, in batches, until it has ended.

        Raises:
            NotFound: there is no such runner.
        """
        async with aclosing(self._logs.follow(LogQuery(runner_id=runner_id, since=since))) as batches:
            async for batch in batches:
                yield batch.entries

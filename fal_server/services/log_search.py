"""Searches log lines of several apps in one order, by their labels."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from fal_server.core.cursors import write_cursor
from fal_server.core.faults import InvalidArgument
from fal_server.core.identity import AppId, Scope
from fal_server.core.logs import LogEntry, LogLevel, LogQuery, LogSource
from fal_server.live.catalog import Catalog
from fal_server.services.logs import LogBatch, Logs

MOST_APPS = 50
_LEAST_READ = 20
_MOST_READ = 1000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TICK = timedelta(microseconds=1)
_LEVELS = tuple(LogLevel)


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelRule:
    """A condition on a line's label: one of these values, or none."""

    label: str
    values: frozenset[str]
    inverted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LogChoice:
    """Selects lines; None means no restriction.

    Attributes:
        apps: lines of these apps; empty means all apps of the account.
        runner_id: lines of this runner.
        least_level: lines of this level, or a more serious one.
        sources: lines from these; None means all, and an empty list means no line.
    """

    apps: tuple[AppId, ...] = ()
    runner_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    search: str | None = None
    least_level: LogLevel | None = None
    revision_id: str | None = None
    request_id: str | None = None
    sources: frozenset[LogSource] | None = None
    rules: tuple[LabelRule, ...] = ()

    def wants(self, entry: LogEntry) -> bool:
        """Return whether a line matches, as far as its own values tell."""
        if self.least_level is not None and _LEVELS.index(entry.level) < _LEVELS.index(self.least_level):
            return False
        if self.revision_id is not None and entry.revision_id != self.revision_id:
            return False
        if self.apps and all((entry.account, entry.app_name) != (app.account, str(app)) for app in self.apps):
            return False
        if self.sources is not None and entry.source not in self.sources:
            return False
        if self.until is not None and entry.timestamp >= self.until:
            return False
        labels = labels_of(entry) if self.rules else {}
        return all((labels.get(rule.label) in rule.values) is not rule.inverted for rule in self.rules)


def labels_of(entry: LogEntry) -> Mapping[str, str]:
    """Return a line's labels, by their published names."""
    labels = {"fal_job_id": entry.runner_id, "source": entry.source.value}
    return labels if entry.request_id is None else {**labels, "fal_request_id": entry.request_id}


class LogSearch:
    """The use cases of lines of several apps."""

    def __init__(self, logs: Logs, catalog: Catalog) -> None:
        self._logs = logs
        self._catalog = catalog

    async def page(
        self, scope: Scope, choice: LogChoice, *, after: str | None, limit: int
    ) -> tuple[Sequence[LogEntry], str | None]:
        """Return lines, newest first, and the next page's cursor. The cursor is None at the end.

        Raises:
            InvalidArgument: the cursor is malformed.
            NotFound: neither the app or runner nor any line of it exists.
        """
        found: list[LogEntry] = []
        async with aclosing(self._merged(scope, choice, after=after, limit=limit, newest_first=True)) as lines:
            async for entry in lines:
                if len(found) == limit:
                    return found, _cursor(found[-1])
                found.append(entry)
        return found, None

    async def past(self, scope: Scope, choice: LogChoice) -> AsyncGenerator[LogBatch]:
        """Yield all stored lines, oldest first. Raises the errors of `page`."""
        batch: list[LogEntry] = []
        merged = self._merged(scope, choice, after=None, limit=_MOST_READ, newest_first=False)
        async with aclosing(merged) as lines:
            async for entry in lines:
                batch.append(entry)
                if len(batch) == _MOST_READ:
                    yield _batch(batch)
                    batch = []
        yield _batch(batch)

    async def follow(self, scope: Scope, choice: LogChoice) -> AsyncGenerator[LogBatch]:
        """Yield lines as they are written, those of one app in order. Ends with the runner, if one is named.

        Raises:
            InvalidArgument: no app is named, and the account has too many to follow at once.
            NotFound: neither the app or runner nor any line of it exists.
            ResourceExhausted: too many streams are open.
        """
        queries = self._queries(scope, choice)
        if len(queries) > MOST_APPS:
            raise InvalidArgument("app_id", f"there are more than {MOST_APPS} apps: name those to follow as app_id")
        waiting: asyncio.Queue[LogBatch | BaseException | None] = asyncio.Queue(maxsize=1)

        async def pump(query: LogQuery) -> None:
            try:
                async with aclosing(self._logs.follow(scope, query)) as batches:
                    async for batch in batches:
                        await waiting.put(_batch(entry for entry in batch.entries if choice.wants(entry)))
                await waiting.put(None)
            except Exception as error:  # noqa: BLE001 - raised where the lines are read
                await waiting.put(error)

        pumps = [asyncio.create_task(pump(query)) for query in queries]
        try:
            running = len(pumps)
            while running:
                item = await waiting.get()
                if isinstance(item, BaseException):
                    raise item
                if item is None:
                    running -= 1
                else:
                    yield item
        finally:
            for task in pumps:
                task.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)

    async def _merged(
        self, scope: Scope, choice: LogChoice, *, after: str | None, limit: int, newest_first: bool
    ) -> AsyncGenerator[LogEntry]:
        queries = self._queries(scope, choice)
        at_once = max(_LEAST_READ, min(limit + 1, _MOST_READ) // max(1, len(queries)))
        runs = [
            _Run(self._logs, scope, choice, replace(query, after=after, limit=at_once, newest_first=newest_first))
            for query in queries
        ]
        pick = max if newest_first else min
        while True:
            heads = [run for run in runs if await run.fill()]
            if not heads:
                return
            yield pick(heads, key=lambda run: _place(run.lines[0])).lines.popleft()

    def _queries(self, scope: Scope, choice: LogChoice) -> list[LogQuery]:
        """Return a query for each app, or one for the runner."""
        query = LogQuery(
            since=choice.since, until=choice.until, search=choice.search or None, request_id=choice.request_id
        )
        if choice.runner_id is not None:
            return [replace(query, runner_id=choice.runner_id)]
        apps = choice.apps or [app.app_id for app in self._catalog.apps if app.account == scope.account]
        return [replace(query, app_name=str(app)) for app in apps]


class _Run:
    """The selected lines of one app, read in portions."""

    def __init__(self, logs: Logs, scope: Scope, choice: LogChoice, query: LogQuery) -> None:
        self._logs = logs
        self._scope = scope
        self._choice = choice
        self._query: LogQuery | None = query
        self.lines: deque[LogEntry] = deque()

    async def fill(self) -> bool:
        """Read until there is a line; return False at the end."""
        while not self.lines and self._query is not None:
            page = await self._logs.page(self._scope, self._query)
            self._query = replace(self._query, after=page.cursor) if page.more else None
            self.lines.extend(entry for entry in page.entries if self._choice.wants(entry))
        return bool(self.lines)


def _batch(entries: Iterable[LogEntry]) -> LogBatch:
    """Return a batch of several apps' lines, without a cursor."""
    return LogBatch(entries=tuple(entries), cursor="")


def _place(entry: LogEntry) -> tuple[datetime, str, int]:
    return entry.timestamp, entry.runner_id, entry.sequence


def _cursor(entry: LogEntry) -> str:
    """Return the position after a line, in the log store's form."""
    return write_cursor([(entry.timestamp - _EPOCH) // _TICK, entry.runner_id, entry.sequence])

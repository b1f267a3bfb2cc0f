"""Log ingestion, pagination and gap-free following."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import groupby
from operator import attrgetter
from typing import TypeAlias

from fal_server.core.faults import InvalidArgument, NotFound, ResourceExhausted
from fal_server.core.identity import EVERY_ACCOUNT, AccountId, Scope
from fal_server.core.logs import LogEntry, LogPage, LogQuery
from fal_server.core.names import identifier
from fal_server.core.runners import Runner
from fal_server.core.sketch import DurationSketch
from fal_server.ports import Clock, LogStore, Store
from fal_server.services.following import Follower, Position
from fal_server.services.intake import Intake
from fal_server.services.log_bounds import LogBounds

MOST_ON_A_PAGE = 10_000
MOST_FOLLOWERS = 1000
# A message is at most 4 MiB by default, and a character up to 4 bytes.
MOST_CHARACTERS = 512 * 1024
# A search reads this many lines at a time, in about a tenth of a second, and then checks whether its caller has left.
READS_AT_ONCE = 50_000
_BATCH = 1000
_MOST_KNOWN = 10_000
_SIGN_OF_LIFE_SECONDS = 20.0

# The event loop serves other calls between groups of followers, each of which takes some 20 us.
_WOKEN_AT_ONCE = 50
_TICK = timedelta(microseconds=1)
_RUNNER_OF = attrgetter("runner_id")
_Subject: TypeAlias = "tuple[str, AccountId, str]"  # ("runner", account, its id) or ("app", account, its name)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogBatch:
    """Lines of a stream; an empty batch is a heartbeat.

    Attributes:
        cursor: continues the stream after this batch.
        last: whether the runner has ended and all its lines were sent.
        runner: with `last`, the runner, if it is still known.
    """

    entries: tuple[LogEntry, ...]
    cursor: str
    last: bool = False
    runner: Runner | None = None


class Logs:
    """The use cases of logs.

    Args:
        sign_of_life_seconds: after how long without a line an empty batch is sent.
        bounds: drops the lines that exceed an account's quota; None drops none.
        stored: called with lines that are stored now, or may be.

    Attributes:
        lags: for each batch, the time from writing its first line to storing it.
    """

    def __init__(
        self,
        log_store: LogStore,
        store: Store,
        clock: Clock,
        *,
        sign_of_life_seconds: float = _SIGN_OF_LIFE_SECONDS,
        bounds: LogBounds | None = None,
        stored: Callable[[Sequence[LogEntry]], None] | None = None,
    ) -> None:
        self._log_store = log_store
        self._store = store
        self._clock = clock
        self._sign_of_life_seconds = sign_of_life_seconds
        self._bounds = bounds
        self._tell_stored = stored
        self._followers: dict[_Subject, set[Follower]] = {}
        self._open = 0
        self._intake = Intake(self._store_lines)
        self.lags = DurationSketch()
        self._stored: dict[str, int] = {}  # the last stored line of each writing runner
        # Held while lines are stored, so that a follower joins before or after a batch, never in its middle.
        self._storing = asyncio.Lock()

    async def ingest(self, entries: Sequence[LogEntry]) -> None:
        """Store lines durably and hand them to their followers.

        Lines that are already stored are ignored, because a runner sends a batch again if it does not know whether it
        arrived.
        Lines of several callers are stored together.
        """
        if self._bounds is not None:
            entries = self._bounds.admitted(entries)
        if entries:
            await self._intake.put(entries)

    async def _store_lines(self, entries: Sequence[LogEntry]) -> None:
        async with self._storing:
            followed = [
                (lines, followers) for lines in await self._new(entries) if (followers := self._whose(lines[0]))
            ]
            for lines, followers in followed:
                for follower in followers:
                    follower.announce(lines[0].runner_id, lines[0].sequence)
            try:
                await self._log_store.append(entries)
            except BaseException:
                self._tell(entries)
                # It is unknown whether they are stored.
                for runner_id in {entry.runner_id for entry in entries}:
                    self._stored.pop(runner_id, None)
                for follower in {follower for _, followers in followed for follower in followers}:
                    follower.fall_behind()
                raise
            self._tell(entries)
            self.lags.add((self._clock.now() - entries[0].timestamp).total_seconds())
            woken = 0
            for lines, followers in followed:
                for follower in followers:
                    follower.release(lines)
                    woken += 1
                    if woken % _WOKEN_AT_ONCE == 0:
                        await asyncio.sleep(0)

    def _tell(self, entries: Sequence[LogEntry]) -> None:
        if self._tell_stored is not None:
            self._tell_stored(entries)

    async def _new(self, entries: Sequence[LogEntry]) -> list[Sequence[LogEntry]]:
        """Return the lines that are not stored yet, grouped by runner. Each runner's lines are in order."""
        found: list[Sequence[LogEntry]] = []
        for runner_id, group in groupby(entries, _RUNNER_OF):
            lines = list(group)
            stored = self._stored.pop(runner_id, None)
            if stored is None:
                stored = await self._log_store.last_sequence(EVERY_ACCOUNT, runner_id)
            if lines[0].sequence <= stored:
                lines = [entry for entry in lines if entry.sequence > stored]
            self._stored[runner_id] = lines[-1].sequence if lines else stored
            if lines:
                found.append(lines)
        while len(self._stored) > _MOST_KNOWN:
            self._stored.pop(next(iter(self._stored)))
        return found

    def runner_ended(self, runner: Runner) -> None:
        """Let streams that follow a runner end. Its end and all its lines are stored."""
        self._stored.pop(runner.runner_id, None)
        if self._bounds is not None:
            self._bounds.runner_ended(runner.account, runner.runner_id)
        for follower in self._followers.get(("runner", runner.account, runner.runner_id), ()):
            follower.look = True
            follower.wake.set()

    async def page(self, scope: Scope, query: LogQuery) -> LogPage:
        """Return a page of lines, in the query's order.

        Without `reads` a search continues, some ten thousand lines at a time, until the page is full.

        Raises:
            InvalidArgument: neither a runner nor an app is named, or the limits or the cursor are not valid.
            NotFound: neither the runner or app nor any line of it exists.
        """
        if not 1 <= query.limit <= MOST_ON_A_PAGE:
            raise InvalidArgument(
                "page_size", f"page_size is {query.limit}: it must lie between 1 and {MOST_ON_A_PAGE}"
            )
        if query.since is not None and query.until is not None and query.until < query.since:
            raise InvalidArgument("until", "until lies before since: swap them")
        await self._check_subject(scope, query)
        if query.reads is not None:
            return await self._log_store.page(scope.account, query)
        found: list[LogEntry] = []
        while True:
            rest = replace(query, reads=READS_AT_ONCE, limit=query.limit - len(found))
            page = await self._log_store.page(scope.account, rest)
            found += page.entries
            if not page.more or len(found) == query.limit:
                return replace(page, entries=tuple(found))
            query = replace(query, after=page.cursor)

    async def follow(
        self, scope: Scope, query: LogQuery, cursor: str | None = None, *, from_now: bool = False
    ) -> AsyncGenerator[LogBatch]:
        """Yield lines as they are written, oldest first. It ends after the last line of an ended runner.

        Args:
            query: selects the lines; `since` None starts with the oldest. Its order, cursor and limit are ignored.
            cursor: continue after the batch with this cursor.
            from_now: without a cursor, yield only lines that are written from now on.

        Raises:
            InvalidArgument: neither a runner nor an app is named, or the cursor is not valid.
            NotFound: neither the runner or app nor any line of it exists.
            ResourceExhausted: too many streams are open.
        """
        position = Position.read(cursor) if cursor else Position(self._clock.now() if from_now else query.since)
        query = replace(query, newest_first=False, until=None, after=None, limit=_BATCH, since=position.since)
        await self._check_subject(scope, query)
        silent = True
        async with self._follower(scope.account, query) as follower:
            while True:
                follower.wake.clear()
                ended, runner = await self._has_ended(scope, query, follower)
                while follower.is_behind():
                    async with self._storing:
                        follower.begin()
                    async with aclosing(self._catch_up(scope, query, position, follower)) as batches:
                        async for batch in batches:
                            silent = False
                            yield batch
                while waiting := follower.take(_BATCH):
                    silent = False
                    for entries in _portions(follower.wants(waiting)):
                        position.advance(entries)
                        yield LogBatch(entries=entries, cursor=position.cursor())
                    position.advance(waiting)
                if follower.is_behind():
                    continue
                if ended:
                    yield LogBatch(entries=(), cursor=position.cursor(), last=True, runner=runner)
                    return
                if silent:
                    # Tell the caller that the stream is open, and give it a cursor from the start.
                    silent = False
                    yield LogBatch(entries=(), cursor=position.cursor())
                try:
                    async with asyncio.timeout(self._sign_of_life_seconds):
                        await follower.wake.wait()
                except TimeoutError:
                    # Another controller on the same database may have stored lines, or the end.
                    follower.look = True
                    follower.fall_behind()
                    yield LogBatch(entries=(), cursor=position.cursor())

    async def _catch_up(
        self, scope: Scope, query: LogQuery, position: Position, follower: Follower
    ) -> AsyncGenerator[LogBatch]:
        """Yield the stored lines after a position. It leaves out those that wait in memory."""
        newest = LogQuery(runner_id=query.runner_id, app_name=query.app_name, newest_first=True, limit=1)
        last = (await self._log_store.page(scope.account, newest)).entries
        if not last:
            return
        # Do not read lines that are stored from now on, because they wait in memory.
        query = replace(query, until=last[0].timestamp + _TICK, reads=READS_AT_ONCE)
        sent = position.sent()
        if query.runner_id is not None:
            query = replace(query, above=sent.get(query.runner_id, 0))
        elif sent and query.app_name is not None:
            oldest = await self._log_store.first_unsent(scope.account, query.app_name, sent, position.floor)
            if oldest is None:
                return
            starts = [at for at in (query.since, oldest) if at is not None]
            query = replace(query, since=max(starts, default=None))
        more = True
        while more:
            page = await self._log_store.page(scope.account, query)
            query, more = replace(query, after=page.cursor or None), page.more
            new = [entry for entry in page.entries if position.lacks(entry) and follower.earlier(entry)]
            for entries in _portions(new):
                position.advance(entries)
                yield LogBatch(entries=entries, cursor=position.cursor())

    async def _has_ended(self, scope: Scope, query: LogQuery, follower: Follower) -> tuple[bool, Runner | None]:
        """Return whether no more lines can come. Call it before reading: lines are stored before the end."""
        if query.runner_id is None or not follower.look:
            return False, None
        follower.look = False
        runner = await self._store.get_runner(scope.account, query.runner_id)
        return runner is None or runner.ended, runner

    async def _check_subject(self, scope: Scope, query: LogQuery) -> None:
        if query.runner_id is not None:
            identifier(query.runner_id, "runner_id")
            known = await self._store.get_runner(scope.account, query.runner_id) is not None
            if not known and await self._log_store.last_sequence(scope.account, query.runner_id) == 0:
                raise NotFound(f"runner {query.runner_id}", "`fal runners list` shows which exist")
        elif query.app_name is not None:
            if await self._store.get_app(scope.account, query.app_name) is not None:
                return
            lines = await self._log_store.page(scope.account, LogQuery(app_name=query.app_name, limit=1))
            if not lines.entries:
                raise NotFound(f"app {query.app_name!r}", "`fal apps list` shows which exist")
        else:
            raise InvalidArgument("selector", "selector names neither a runner nor an app: name one")

    def _whose(self, entry: LogEntry) -> set[Follower]:
        """Return the followers of a line's runner and app."""
        if not self._followers:
            return set()
        subjects = (("runner", entry.account, entry.runner_id), ("app", entry.account, entry.app_name))
        return {follower for subject in subjects for follower in self._followers.get(subject, ())}

    @asynccontextmanager
    async def _follower(self, account: AccountId, query: LogQuery) -> AsyncGenerator[Follower]:
        if self._open >= MOST_FOLLOWERS:
            raise ResourceExhausted(f"{MOST_FOLLOWERS} log streams are open already: end one, or try later")
        subject: _Subject = (
            ("runner", account, query.runner_id)
            if query.runner_id is not None
            else ("app", account, query.app_name or "")
        )
        follower = Follower(query)
        self._open += 1
        try:
            self._followers.setdefault(subject, set()).add(follower)
            yield follower
        finally:
            self._open -= 1
            followers = self._followers.get(subject, set())
            followers.discard(follower)
            if not followers:
                self._followers.pop(subject, None)


def _portions(entries: Sequence[LogEntry]) -> Iterator[tuple[LogEntry, ...]]:
    """Split lines into batches within the default limit of a message."""
    portion: list[LogEntry] = []
    size = 0
    for entry in entries:
        if portion and size + len(entry.message) > MOST_CHARACTERS:
            yield tuple(portion)
            portion, size = [], 0
        portion.append(entry)
        size += len(entry.message)
    if portion:
        yield tuple(portion)

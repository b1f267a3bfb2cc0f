"""Log lines: taken in, read page by page, and followed as they are written, without gap or repetition."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from typing import TypeAlias

from fal_server.core.faults import Exhausted, Invalid, NotFound
from fal_server.core.logs import LogEntry, LogPage, LogQuery
from fal_server.core.names import identifier
from fal_server.core.runners import Runner
from fal_server.ports import Clock, LogStore, Store
from fal_server.services.following import Follower, Position

MOST_ON_A_PAGE = 10_000
MOST_FOLLOWERS = 1000
# A message may have 4 MiB by default, and a character up to 4 bytes.
MOST_CHARACTERS = 512 * 1024
_BATCH = 500
_SIGN_OF_LIFE_SECONDS = 20.0

_Subject: TypeAlias = "tuple[str, str]"  # ("runner", its id) or ("app", its name)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogBatch:
    """Some lines of a stream; none is a sign of life.

    Attributes:
        cursor: what to go on from after this batch.
        last: the runner has ended, and all that it wrote was sent.
        runner: with `last`: the runner, where it is still known.
    """

    entries: tuple[LogEntry, ...]
    cursor: str
    last: bool = False
    runner: Runner | None = None


class Logs:
    """The use cases of logs.

    Args:
        log_store: where the lines are.
        store: what knows the runners and apps.
        clock: the time.
        sign_of_life_seconds: an empty batch is sent after so long without a line.
    """

    def __init__(
        self,
        log_store: LogStore,
        store: Store,
        clock: Clock,
        *,
        sign_of_life_seconds: float = _SIGN_OF_LIFE_SECONDS,
    ) -> None:
        self._log_store = log_store
        self._store = store
        self._clock = clock
        self._sign_of_life_seconds = sign_of_life_seconds
        self._followers: dict[_Subject, set[Follower]] = {}
        self._open = 0
        # Held while lines are stored: a follower joins before or after a batch, never in its middle.
        self._storing = asyncio.Lock()

    async def ingest(self, entries: Sequence[LogEntry]) -> None:
        """Keep these lines, and hand them to who follows them. Durable when it returns.

        Lines that are known already do no harm: a runner that does not know whether a batch arrived sends it again.
        """
        if not entries:
            return
        async with self._storing:
            followers = self._followers_of(entries)
            new = await self._new(entries) if followers else ()
            for follower, subject in followers.items():
                follower.announce(entry for entry in new if _has_subject(entry, subject))
            try:
                await self._log_store.append(entries)
            except BaseException:
                for follower in followers:
                    follower.doubt(new)
                raise
            for follower in followers:
                follower.release(new)

    def runner_ended(self, runner_id: str) -> None:
        """The end of a runner is stored and all its lines were taken in: streams that follow it may end."""
        for follower in self._followers.get(("runner", runner_id), ()):
            follower.look = True
            follower.wake.set()

    async def page(self, query: LogQuery) -> LogPage:
        """Some lines, in the query's order.

        Raises:
            Invalid: neither a runner nor an app is named, or the limits or the cursor make no sense.
            NotFound: there is no such runner or app, and no line of it.
        """
        if not 1 <= query.limit <= MOST_ON_A_PAGE:
            raise Invalid("page_size", f"page_size is {query.limit}: it must lie between 1 and {MOST_ON_A_PAGE}")
        if query.since is not None and query.until is not None and query.until < query.since:
            raise Invalid("until", "until lies before since: swap them")
        await self._check_subject(query)
        return await self._log_store.page(query)

    async def follow(
        self, query: LogQuery, cursor: str | None = None, *, from_now: bool = False
    ) -> AsyncGenerator[LogBatch]:
        """Lines as they are written, oldest first. For a runner it ends after the last line of an ended one.

        Args:
            query: whose lines; `since` says where to begin, None with the first line kept. Its order, cursor and
                limit do not count.
            cursor: go on after the batch that had it.
            from_now: without a cursor: only lines that are written from now on.

        Raises:
            Invalid: neither a runner nor an app is named, or the cursor makes no sense.
            NotFound: there is no such runner or app, and no line of it.
            Exhausted: too many streams are open.
        """
        position = Position.read(cursor) if cursor else Position(self._clock.now() if from_now else query.since)
        query = replace(query, newest_first=False, until=None, after=None, limit=_BATCH, since=position.floor)
        await self._check_subject(query)
        silent = True
        async with self._follower(query) as follower:
            while True:
                follower.wake.clear()
                ended, runner = await self._has_ended(query, follower)
                while follower.must_read():
                    async with aclosing(self._catch_up(query, position, follower)) as batches:
                        async for batch in batches:
                            silent = False
                            yield batch
                while waiting := follower.take(_BATCH):
                    silent = False
                    for entries in _portions(waiting):
                        position.advance(entries)
                        yield LogBatch(entries=entries, cursor=position.cursor())
                if ended:
                    yield LogBatch(entries=(), cursor=position.cursor(), last=True, runner=runner)
                    return
                if silent:
                    # Who follows learns that the stream is open, and has a cursor from the start.
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

    async def _catch_up(self, query: LogQuery, position: Position, follower: Follower) -> AsyncGenerator[LogBatch]:
        """The stored lines after a position."""
        known = position.sent()
        query = replace(query, since=position.resume())
        more = True
        while more:
            page = await self._log_store.page(query)
            query, more = replace(query, after=page.cursor or None), page.more
            follower.was_read(page.entries)
            new = tuple(entry for entry in page.entries if entry.sequence > known.get(entry.runner_id, 0))
            for entries in _portions(follower.overtaken(new) + new):
                position.advance(entries)
                yield LogBatch(entries=entries, cursor=position.cursor())

    async def _has_ended(self, query: LogQuery, follower: Follower) -> tuple[bool, Runner | None]:
        """Whether nothing more can come. Asked before the lines are read: lines are stored before the end is."""
        if query.runner_id is None or not follower.look:
            return False, None
        follower.look = False
        runner = await self._store.get_runner(query.runner_id)
        return runner is None or runner.ended, runner

    async def _check_subject(self, query: LogQuery) -> None:
        if query.runner_id is not None:
            identifier(query.runner_id, "runner_id")
            known = await self._store.get_runner(query.runner_id) is not None
            if not known and await self._log_store.last_sequence(query.runner_id) == 0:
                raise NotFound(f"there is no runner {query.runner_id}: `fal runners list` shows those that there are")
        elif query.app_name is not None:
            if await self._store.get_app(query.app_name) is not None:
                return
            lines = await self._log_store.page(LogQuery(app_name=query.app_name, limit=1))
            if not lines.entries:
                raise NotFound(f"there is no app {query.app_name!r}: `fal apps list` shows those that there are")
        else:
            raise Invalid("selector", "selector names neither a runner nor an app: name one")

    async def _new(self, entries: Sequence[LogEntry]) -> tuple[LogEntry, ...]:
        """Those that are not stored yet; a runner's lines come in order."""
        stored = {runner: await self._log_store.last_sequence(runner) for runner in {e.runner_id for e in entries}}
        return tuple(entry for entry in entries if entry.sequence > stored[entry.runner_id])

    def _followers_of(self, entries: Sequence[LogEntry]) -> dict[Follower, _Subject]:
        if not self._followers:
            return {}
        subjects: set[_Subject] = {("runner", entry.runner_id) for entry in entries}
        subjects |= {("app", entry.app_name) for entry in entries}
        return {follower: subject for subject in subjects for follower in self._followers.get(subject, ())}

    @asynccontextmanager
    async def _follower(self, query: LogQuery) -> AsyncGenerator[Follower]:
        if self._open >= MOST_FOLLOWERS:
            raise Exhausted(f"{MOST_FOLLOWERS} log streams are open already: end one, or try later")
        subject: _Subject = (
            ("runner", query.runner_id) if query.runner_id is not None else ("app", query.app_name or "")
        )
        follower = Follower(query)
        self._open += 1
        try:
            async with self._storing:
                self._followers.setdefault(subject, set()).add(follower)
            yield follower
        finally:
            self._open -= 1
            followers = self._followers.get(subject, set())
            followers.discard(follower)
            if not followers:
                self._followers.pop(subject, None)


def _portions(entries: Sequence[LogEntry]) -> Iterator[tuple[LogEntry, ...]]:
    """Lines in batches that clients' usual limits on a message let through."""
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


def _has_subject(entry: LogEntry, subject: _Subject) -> bool:
    return subject in (("runner", entry.runner_id), ("app", entry.app_name))

"""Reads log lines for `client.runners.logs` and `client.apps.logs` for asyncio."""

# The source of fal/api/log_reading.py: run `make gen` after a change.

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, TypeAlias

from fal.api.logs import HttpHistory, LogReconnectPolicy, TailFollowJoin, http_runner_id
from fal_grpc.errors import ArgumentError, UnavailableError, UnimplementedError

if TYPE_CHECKING:
    from datetime import datetime

    from fal.api.opener import AsyncOpener
    from fal_grpc.adapter.log import LogEntry, LogQuery


_Batches: TypeAlias = "AsyncGenerator[Sequence[LogEntry], None]"


class AsyncLogLines(AsyncGenerator["LogEntry", None]):
    """Log lines, one by one or in the batches that arrive.

    Args:
        batches: the lines.
    """

    def __init__(self, batches: _Batches) -> None:
        self._batches = batches
        self._lines = _one_by_one(batches)

    def batches(self) -> _Batches:
        """Return the lines in batches. Iterate over either the batches or the single lines."""
        return self._batches

    def __aiter__(self) -> AsyncGenerator[LogEntry, None]:  # noqa: PYI058 - what the base class says
        # A plain generator is faster than this object's methods.
        return self._lines

    async def asend(self, value: None) -> LogEntry:
        return await self._lines.asend(value)

    async def athrow(self, *error: Any) -> LogEntry:  # noqa: ANN401 - generators take it in three forms
        return await self._lines.athrow(*error)

    async def aclose(self) -> None:
        await self._lines.aclose()
        await self._batches.aclose()


def read(
    client: AsyncOpener, query: LogQuery, *, follow: bool, on_progress: Callable[[datetime], None] | None = None
) -> AsyncLogLines:
    """Return the lines, oldest first.

    Args:
        on_progress: called repeatedly with the time that reading stored lines has reached.
    """
    if on_progress is not None and not callable(on_progress):
        raise ArgumentError("on_progress", "must be callable")
    if not follow:
        return AsyncLogLines(_stored(client, query, on_progress))
    return AsyncLogLines(_followed(client, query) if query.lines is None else _tail_and_follow(client, query))


async def _one_by_one(batches: _Batches) -> AsyncGenerator[LogEntry, None]:
    async with aclosing(batches):
        async for entries in batches:
            for entry in entries:
                yield entry


async def _tail_and_follow(client: AsyncOpener, query: LogQuery) -> _Batches:
    newest = [entry async for entry in _one_by_one(_stored(client, query))]
    yield newest
    join = TailFollowJoin(query, newest)
    async with aclosing(_followed(client, join.rest, resumable=True)) as batches:
        async for entries in batches:
            yield [entry for entry in entries if join.is_new(entry)]


async def _stored(
    client: AsyncOpener, query: LogQuery, on_progress: Callable[[datetime], None] | None = None
) -> _Batches:
    controller = await client.controller()
    newest_first: list[LogEntry] = []
    token: str | None = None
    while True:
        try:
            page = await controller.list_logs(query, page_token=token)
        except UnimplementedError as error:
            yield await _http_history(client, query, error)
            return
        if query.oldest_first:
            yield page.entries
        else:
            newest_first.extend(page.entries)
        token = page.next_page_token
        if page.reached is not None and on_progress is not None:
            on_progress(page.reached)
        if token is None:
            yield newest_first[::-1]
            return


async def _followed(client: AsyncOpener, query: LogQuery, *, resumable: bool = False) -> _Batches:
    controller, policy = await client.controller(), LogReconnectPolicy()
    cursor: str | None = None
    while True:
        failure: UnavailableError | None = None
        try:
            async with aclosing(controller.follow_logs(query, cursor=cursor)) as batches:
                async for batch in batches:
                    policy.succeeded()
                    yield batch.entries
                    cursor = batch.cursor or cursor
                    if batch.runner_ended is not None:
                        return
        except UnimplementedError as error:
            async with aclosing(_http_stream(client, query, error)) as lines:
                async for line in lines:
                    yield (line,)
            return
        except UnavailableError as error:
            failure = error
        await asyncio.sleep(policy.pause(failure, resumable=resumable or cursor is not None))


async def _http_history(client: AsyncOpener, query: LogQuery, error: UnimplementedError) -> list[LogEntry]:
    runner_id, rest = http_runner_id(query, error), await client.rest()
    history = HttpHistory(query, *await rest.runner_times(runner_id))
    while history.take(await rest.log_page(runner_id, since=history.since, until=history.until, search=history.search)):
        pass
    return history.lines()


async def _http_stream(
    client: AsyncOpener, query: LogQuery, error: UnimplementedError
) -> AsyncGenerator[LogEntry, None]:
    runner_id, rest = http_runner_id(query, error), await client.rest()
    text = (query.search or "").lower()
    async with aclosing(rest.log_stream(runner_id, since=query.since, search=query.search)) as lines:
        async for line in lines:
            if text in line.message.lower():  # controllers do not search in this stream
                yield line

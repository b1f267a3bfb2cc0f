"""`log_reading` for asyncio."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING

from fal.api.logs import Joint, LogQuestion, Reconnects, history, over_http, stream, threaded
from fal_grpc.errors import UnavailableError, UnimplementedError

if TYPE_CHECKING:
    from fal.api.aio.client import AsyncServerlessClient
    from fal_grpc.adapter.log import LogEntry


def read(client: AsyncServerlessClient, asked: LogQuestion, *, follow: bool) -> AsyncGenerator[LogEntry, None]:
    """The lines, the oldest first."""
    if not follow:
        return _stored(client, asked)
    return _followed(client, asked) if asked.lines is None else _newest_and_on(client, asked)


async def _newest_and_on(client: AsyncServerlessClient, asked: LogQuestion) -> AsyncGenerator[LogEntry, None]:
    newest = [entry async for entry in _stored(client, asked)]
    for entry in newest:
        yield entry
    joint = Joint(asked, newest)
    async with aclosing(_followed(client, joint.rest, begun=True)) as followed:
        async for entry in followed:
            if joint.is_new(entry):
                yield entry


async def _stored(client: AsyncServerlessClient, asked: LogQuestion) -> AsyncGenerator[LogEntry, None]:
    controller = await client.controller()
    newest = asked.lines is not None and not asked.oldest
    kept: list[LogEntry] = []
    token: str | None = None
    while True:
        try:
            page = await controller.list_logs(
                runner_id=asked.runner_id,
                app=asked.app,
                environment_name=asked.environment_name,
                sources=asked.sources,
                search=asked.search,
                request_id=asked.request_id,
                since=asked.since,
                until=asked.until,
                lines=asked.lines,
                oldest_first=not newest,
                page_token=token,
            )
        except UnimplementedError as error:
            over_http(asked, error)
            for entry in await asyncio.to_thread(history, client.rest(), asked):
                yield entry
            return
        if newest:
            kept.extend(page.entries)
        else:
            for entry in page.entries:
                yield entry
        token = page.next_page_token
        if token is None:
            for entry in reversed(kept):
                yield entry
            return


async def _followed(
    client: AsyncServerlessClient, asked: LogQuestion, *, begun: bool = False
) -> AsyncGenerator[LogEntry, None]:
    """Lines as they come; `begun`: the caller has shown lines already, so that a broken link is no failed first try."""
    controller, reconnects = await client.controller(), Reconnects()
    cursor: str | None = None
    while True:
        failure: UnavailableError | None = None
        batches = controller.follow_logs(
            runner_id=asked.runner_id,
            app=asked.app,
            environment_name=asked.environment_name,
            sources=asked.sources,
            search=asked.search,
            request_id=asked.request_id,
            cursor=cursor,
            since=asked.since if cursor is None else None,
        )
        try:
            async with aclosing(batches):
                async for batch in batches:
                    reconnects.succeeded()
                    for entry in batch.entries:
                        yield entry
                    cursor = batch.cursor or cursor
                    if batch.runner_ended is not None:
                        return
        except UnimplementedError as error:
            over_http(asked, error)
            async for entry in _followed_over_http(client, asked):
                yield entry
            return
        except UnavailableError as error:
            failure = error
        await asyncio.sleep(reconnects.pause(failure, resumable=begun or cursor is not None))


async def _followed_over_http(client: AsyncServerlessClient, asked: LogQuestion) -> AsyncGenerator[LogEntry, None]:
    """Read in a thread of its own, which ends with the stream; one that waits for a line holds up no exit."""
    loop = asyncio.get_running_loop()
    received: asyncio.Queue[LogEntry | BaseException | None] = asyncio.Queue()

    def put(item: LogEntry | BaseException | None) -> None:
        loop.call_soon_threadsafe(received.put_nowait, item)

    entries = stream(client.rest(), asked)
    threading.Thread(target=threaded, args=(entries, put), name="fal-log-stream", daemon=True).start()
    while (item := await received.get()) is not None:
        if isinstance(item, BaseException):
            raise item
        yield item

"""Streams log lines as server-sent events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable

from fal_server.core.faults import Fault
from fal_server.core.logs import LogEntry
from fal_server.http.routes.event_stream import COMMENT, COMMENT_SECONDS, event
from fal_server.services.logs import LogBatch


async def line_events(
    batches: AsyncGenerator[LogBatch],
    line: Callable[[LogEntry], bytes],
    draining: asyncio.Event,
    comment_seconds: float = COMMENT_SECONDS,
    seconds: float | None = None,
) -> AsyncGenerator[bytes]:
    """Yield lines' events until the runner ends or the controller drains.

    Args:
        line: returns the event of a line.
        comment_seconds: a stream without lines sends a comment at this interval, because proxies close silent
            connections.
        seconds: end after this time; None means never.
    """
    pending: asyncio.Task[LogBatch | None] | None = None
    end = asyncio.create_task(_end(draining, seconds))
    try:
        while not end.done():
            pending = pending or asyncio.create_task(_next(batches))
            first = asyncio.FIRST_COMPLETED
            done, _ = await asyncio.wait((pending, end), timeout=comment_seconds, return_when=first)
            if not done:
                yield COMMENT
            if pending not in done:
                continue
            batch, pending = pending.result(), None
            if batch is None:
                return
            yield b"".join(line(entry) for entry in batch.entries)
    except Fault as fault:
        # The status is already sent, so the error is an event.
        yield event(fault.message, "error")
    finally:
        end.cancel()
        if pending is not None:
            pending.cancel()
            await asyncio.gather(pending, return_exceptions=True)
        await batches.aclose()


async def _end(draining: asyncio.Event, seconds: float | None) -> None:
    try:
        async with asyncio.timeout(seconds):
            await draining.wait()
    except TimeoutError:
        return


async def _next(batches: AsyncIterator[LogBatch]) -> LogBatch | None:
    return await anext(batches, None)

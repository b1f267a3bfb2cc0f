"""POST /logs/history and /logs/stream: log lines newest first in pages, and as they come."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from fal_server.core.faults import Fault, InvalidArgument
from fal_server.core.logs import LogEntry, LogPage, LogQuery
from fal_server.services.logs import LogBatch, Logs

_MAX_PAGE = 10_000
_COMMENT_SECONDS = 15.0
_TICK = timedelta(microseconds=1)


class LogRoutes:
    """The two endpoints.

    Args:
        comment_seconds: a silent stream says that it lives so often, because proxies close silent connections.
    """

    def __init__(self, logs: Logs, *, comment_seconds: float = _COMMENT_SECONDS) -> None:
        self._logs = logs
        self._comment_seconds = comment_seconds

    async def history(self, request: Request) -> Response:
        """A page, newest first; `next_until` is the `until` of the next one, or null.

        Raises:
            Invalid: a parameter is missing or wrong.
        """
        query = LogQuery(
            runner_id=_job_id(request),
            since=_moment(request, "since"),
            until=_moment(request, "until"),
            search=request.query_params.get("search") or None,
            newest_first=True,
            limit=_page_size(request),
        )
        entries, next_until = await self._whole_moments(query)
        return JSONResponse(
            {
                "items": [log_item(entry) for entry in entries],
                "next_until": None if next_until is None else next_until.isoformat(),
            }
        )

    async def _whole_moments(self, query: LogQuery) -> tuple[Sequence[LogEntry], datetime | None]:
        """A page that does not end between two lines of one moment, since the next page begins at a moment.

        Lines of the last moment that are not all here are left to the next page; a moment that fills the page alone is
        read to its end.
        """
        page: LogPage = await self._logs.page(query)
        entries = page.entries
        if not page.more or not entries:
            return entries, None
        last = entries[-1].timestamp
        if entries[0].timestamp != last:
            return [entry for entry in entries if entry.timestamp != last], last + _TICK
        found = list(entries)
        more = True
        while more:
            page = await self._logs.page(replace(query, after=page.cursor, limit=_MAX_PAGE))
            same = [entry for entry in page.entries if entry.timestamp == last]
            found += same
            if len(same) < len(page.entries):
                return found, last
            more = page.more
        return found, None

    async def stream(self, request: Request) -> Response:
        """Lines as server-sent events, from `since` on; ends when the runner has ended, or the controller.

        Raises:
            Invalid: a parameter is missing or wrong.
        """
        draining: asyncio.Event = request.scope["state"]["draining"]
        runner_id = _job_id(request)
        since = _moment(request, "since")
        events = self._events(runner_id, since, draining)
        return StreamingResponse(events, media_type="text/event-stream", headers={"cache-control": "no-store"})

    async def _events(self, runner_id: str, since: datetime | None, draining: asyncio.Event) -> AsyncIterator[bytes]:
        """The stream's bytes; a fault is an event, since the status is long sent."""
        lines = self._logs.follow(LogQuery(runner_id=runner_id, since=since))
        pending: asyncio.Task[LogBatch | None] | None = None
        end = asyncio.create_task(draining.wait())
        try:
            while not end.done():
                pending = pending or asyncio.create_task(_next(lines))
                first = asyncio.FIRST_COMPLETED
                done, _ = await asyncio.wait((pending, end), timeout=self._comment_seconds, return_when=first)
                if not done:
                    yield b": still here\n\n"
                if pending not in done:
                    continue
                batch, pending = pending, None
                got = batch.result()
                if got is None:
                    return
                yield b"".join(b"data: %b\n\n" % json.dumps(log_item(entry)).encode() for entry in got.entries)
        except Fault as fault:
            yield b"event: error\ndata: " + " ".join(fault.message.splitlines()).encode() + b"\n\n"
        finally:
            end.cancel()
            if pending is not None:
                pending.cancel()
                await asyncio.gather(pending, return_exceptions=True)
            await lines.aclose()


async def _next(batches: AsyncIterator[LogBatch]) -> LogBatch | None:
    return await anext(batches, None)


def log_item(entry: LogEntry) -> dict[str, str | int | None]:
    """A line in JSON."""
    return {
        "timestamp": entry.timestamp.isoformat(),
        "level": entry.level.value,
        "message": entry.message,
        "source": entry.source.value,
        "sequence": entry.sequence,
        "runner_id": entry.runner_id,
        "app": entry.app_name,
        "revision": entry.revision_id,
        "request_id": entry.request_id,
    }


def _job_id(request: Request) -> str:
    value = request.query_params.get("job_id", "")
    if not value:
        raise InvalidArgument("job_id", "job_id is missing: give a runner's id, as `fal runners list` shows it")
    return value


def _page_size(request: Request) -> int:
    value = request.query_params.get("page_size", "1000")
    if not (value.isascii() and value.isdigit() and 1 <= int(value[:9]) <= _MAX_PAGE):
        raise InvalidArgument("page_size", f"page_size is {value[:80]!r}: give a number from 1 to {_MAX_PAGE}")
    return int(value)


def _moment(request: Request, field: str) -> datetime | None:
    value = request.query_params.get(field)
    if not value:
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError as error:
        message = f"{field} is {value[:80]!r}: give a moment in ISO 8601, such as 2026-01-31T12:00:00+00:00"
        raise InvalidArgument(field, message) from error
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment

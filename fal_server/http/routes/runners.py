"""A runner and its log over REST, in the published client's form."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from fal_server.core.faults import InvalidArgument
from fal_server.core.identity import Principal, Scope
from fal_server.core.logs import LogEntry, LogPage, LogQuery
from fal_server.core.runners import Runner
from fal_server.http.routes.event_stream import COMMENT_SECONDS, event, event_stream
from fal_server.http.routes.guard import Guard
from fal_server.http.routes.line_events import line_events
from fal_server.http.routes.parameters import given_time, number
from fal_server.services.logs import Logs
from fal_server.services.runners import Runners

_MAX_PAGE = 10_000
_TICK = timedelta(microseconds=1)


class RunnerRoutes:
    """The routes of runners.

    Args:
        comment_seconds: a stream without lines sends a comment at this interval, because proxies close silent
        connections.
    """

    def __init__(self, runners: Runners, logs: Logs, guard: Guard, *, comment_seconds: float = COMMENT_SECONDS) -> None:
        self._runners = runners
        self._logs = logs
        self._comment_seconds = comment_seconds
        self.routes = [
            guard.route("GET", "/runners/{runner_id}", self._get),
            guard.route("POST", "/logs/history", self._history),
            guard.route("POST", "/logs/stream", self._stream),
        ]

    async def _get(self, request: Request, caller: Principal) -> Response:
        view = await self._runners.get(caller.scope, request.path_params["runner_id"])
        return JSONResponse(_runner_item(view.runner))

    async def _history(self, request: Request, caller: Principal) -> Response:
        """Answer with a page, newest first. `next_until` is the `until` of the next page, or null."""
        query = LogQuery(
            runner_id=_job_id(request),
            since=given_time(request, "since"),
            until=given_time(request, "until"),
            search=request.query_params.get("search") or None,
            newest_first=True,
            limit=number(request, "page_size", usual=1000, most=_MAX_PAGE),
        )
        entries, next_until = await self._page_of_whole_times(caller.scope, query)
        return JSONResponse(
            {
                "items": [log_item(entry) for entry in entries],
                "next_until": None if next_until is None else next_until.isoformat(),
            }
        )

    async def _page_of_whole_times(self, scope: Scope, query: LogQuery) -> tuple[Sequence[LogEntry], datetime | None]:
        """Return a page that does not split lines of the same time. The next page starts at a time.

        If some lines of the last time are missing, they are left to the next page; a time that fills the page alone is
        read to its end.
        """
        page: LogPage = await self._logs.page(scope, query)
        entries = page.entries
        if not page.more or not entries:
            return entries, None
        last = entries[-1].timestamp
        if entries[0].timestamp != last:
            return [entry for entry in entries if entry.timestamp != last], last + _TICK
        found = list(entries)
        more = True
        while more:
            page = await self._logs.page(scope, replace(query, after=page.cursor, limit=_MAX_PAGE))
            same = [entry for entry in page.entries if entry.timestamp == last]
            found += same
            if len(same) < len(page.entries):
                return found, last
            more = page.more
        return found, None

    async def _stream(self, request: Request, caller: Principal) -> Response:
        """Answer with lines as server-sent events. They end when the runner has ended or the controller drains."""
        draining: asyncio.Event = request.scope["state"]["draining"]
        batches = self._logs.follow(
            caller.scope, LogQuery(runner_id=_job_id(request), since=given_time(request, "since"))
        )
        return event_stream(line_events(batches, _line, draining, self._comment_seconds))


def log_item(entry: LogEntry) -> dict[str, str | int | None]:
    """Return a line as JSON values. It has the published keys in their form, plus our own."""
    return {
        "timestamp": entry.timestamp.isoformat().replace("+00:00", "Z"),
        "level": entry.level.value,
        "message": entry.message,
        "job_id": entry.runner_id,
        "source": entry.source.value,
        "sequence": entry.sequence,
        "runner_id": entry.runner_id,
        "app": entry.app_name,
        "revision": entry.revision_id,
        "request_id": entry.request_id,
    }


def _runner_item(runner: Runner) -> dict[str, str | None]:
    return {
        "id": runner.runner_id,
        "app": runner.app_name,
        "environment": runner.environment,
        "revision": runner.revision_id,
        "machine_type": runner.machine_type,
        "state": runner.state.value,
        "created_at": runner.created_at.isoformat(),
        # The client reads the lines from started_at on and before ended_at. A waiting runner has lines, too, and the
        # last line of an ended one may have exactly the time of its end.
        "started_at": (runner.started_at or runner.created_at).isoformat(),
        "ended_at": None if runner.ended_at is None else (runner.ended_at + _TICK).isoformat(),
    }


def _line(entry: LogEntry) -> bytes:
    return event(json.dumps(log_item(entry)))


def _job_id(request: Request) -> str:
    value = request.query_params.get("job_id", "")
    if not value:
        raise InvalidArgument("job_id", "job_id is missing: give a runner's id, as `fal runners list` shows it")
    return value

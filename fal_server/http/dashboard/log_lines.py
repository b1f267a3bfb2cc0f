"""Log lines on pages: the latest of a runner, an app or a request, searched, and followed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response

from fal_server.core.identity import Principal, Scope
from fal_server.core.logs import LogEntry, LogQuery
from fal_server.http.dashboard.pages import Pages, app_of, headers_of
from fal_server.http.routes.event_stream import event, event_stream
from fal_server.http.routes.guard import Guard
from fal_server.http.routes.line_events import line_events
from fal_server.http.routes.parameters import given_time
from fal_server.services.logs import LogBatch, Logs

_MOST_LINES = 500
_READS = 200_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownLines:
    """Lines of a page, oldest first.

    Attributes:
        search: the search text; empty for all lines.
        more: whether there are older ones.
        follow: the address of the stream of new lines; empty if none can come.
    """

    entries: Sequence[LogEntry]
    search: str
    more: bool
    follow: str


class LogLines:
    """Searches and follows lines, and shows those of an app."""

    def __init__(self, pages: Pages, guard: Guard, logs: Logs) -> None:
        self._pages = pages
        self._logs = logs
        self.routes = [
            guard.route("GET", "/ui/apps/{app}/logs", self._show),
            guard.route("GET", "/ui/apps/{app}/follow", self._follow_app),
            guard.route("GET", "/ui/runners/{runner_id}/follow", self._follow_runner),
        ]

    async def of_runner(self, scope: Scope, runner_id: str, search: str | None) -> ShownLines:
        """Return the latest lines of a runner."""
        return await self._find(scope, LogQuery(runner_id=runner_id), search, f"/ui/runners/{runner_id}/follow")

    async def of_request(self, scope: Scope, runner_id: str, request_id: str, since: datetime | None) -> ShownLines:
        """Return the lines that a runner wrote for a request."""
        query = LogQuery(runner_id=runner_id, request_id=request_id, since=since)
        return await self._find(scope, query, None, "")

    async def _find(self, scope: Scope, query: LogQuery, search: str | None, follow: str) -> ShownLines:
        query = replace(query, search=search or None, newest_first=True, limit=_MOST_LINES, reads=_READS)
        page = await self._logs.page(scope, query)
        since = f"?since={quote(page.entries[0].timestamp.isoformat())}" if page.entries else ""
        return ShownLines(
            entries=page.entries[::-1],
            search=search or "",
            more=page.more,
            follow=follow + since if follow and not search else "",
        )

    async def _show(self, request: Request, caller: Principal) -> Response:
        app = str(app_of(request, caller))
        search = request.query_params.get("search")
        lines = await self._find(caller.scope, LogQuery(app_name=app), search, f"/ui/apps/{app}/follow")
        return self._pages.show(request, "app_logs.html", app=app, lines=lines)

    async def _follow_app(self, request: Request, caller: Principal) -> Response:
        return self._follow(
            request, caller, LogQuery(app_name=str(app_of(request, caller)), since=given_time(request, "since"))
        )

    async def _follow_runner(self, request: Request, caller: Principal) -> Response:
        runner_id = request.path_params["runner_id"]
        return self._follow(request, caller, LogQuery(runner_id=runner_id, since=given_time(request, "since")))

    def _follow(self, request: Request, caller: Principal, query: LogQuery) -> Response:
        draining: asyncio.Event = request.scope["state"]["draining"]
        return event_stream(self._events(self._logs.follow(caller.scope, query), draining), headers_of(request))

    async def _events(self, batches: AsyncGenerator[LogBatch], draining: asyncio.Event) -> AsyncGenerator[bytes]:
        async for lines in line_events(batches, self._line, draining):
            yield lines
        yield event("over", "end")  # otherwise the browser would reconnect

    def _line(self, entry: LogEntry) -> bytes:
        return event(self._pages.text("line.html", entry=entry))

"""Log lines on pages, searched and followed. They are the latest of a runner, an app or a request."""

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
from fal_server.http.dashboard.pages import app_of, headers_of
from fal_server.http.dashboard.ui import Routes, Ui
from fal_server.http.routes.event_stream import event, event_stream
from fal_server.http.routes.line_events import line_events
from fal_server.http.routes.parameters import given_time

_MOST_LINES = 500
_READS = 200_000
routes = Routes()


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


async def lines_of_runner(ui: Ui, scope: Scope, runner_id: str, search: str | None) -> ShownLines:
    """Return the latest lines of a runner."""
    return await _find(ui, scope, LogQuery(runner_id=runner_id), search, f"/ui/runners/{runner_id}/follow")


async def lines_of_request(ui: Ui, scope: Scope, runner_id: str, request_id: str, since: datetime | None) -> ShownLines:
    """Return the lines that a runner wrote for a request."""
    return await _find(ui, scope, LogQuery(runner_id=runner_id, request_id=request_id, since=since), None, "")


async def _find(ui: Ui, scope: Scope, query: LogQuery, search: str | None, follow: str) -> ShownLines:
    query = replace(query, search=search or None, newest_first=True, limit=_MOST_LINES, reads=_READS)
    page = await ui.logs.page(scope, query)
    since = f"?since={quote(page.entries[0].timestamp.isoformat())}" if page.entries else ""
    return ShownLines(
        entries=page.entries[::-1],
        search=search or "",
        more=page.more,
        follow=follow + since if follow and not search else "",
    )


@routes.page("/ui/apps/{app}/logs")
async def _show(ui: Ui, request: Request, caller: Principal) -> Response:
    app = str(app_of(request, caller))
    search = request.query_params.get("search")
    lines = await _find(ui, caller.scope, LogQuery(app_name=app), search, f"/ui/apps/{app}/follow")
    return ui.pages.show(request, "app_logs.html", app=app, lines=lines)


@routes.page("/ui/apps/{app}/follow", "/ui/runners/{runner_id}/follow")
async def _follow(ui: Ui, request: Request, caller: Principal) -> Response:
    runner_id = request.path_params.get("runner_id")
    app = None if runner_id else str(app_of(request, caller))
    query = LogQuery(app_name=app, runner_id=runner_id, since=given_time(request, "since"))
    return event_stream(_events(ui, request, caller, query), headers_of(request))


async def _events(ui: Ui, request: Request, caller: Principal, query: LogQuery) -> AsyncGenerator[bytes]:
    over = asyncio.Event()
    waits = [
        asyncio.create_task(_pass_on(sign, over))
        for sign in (request.scope["state"]["draining"], getattr(request.state, "session_ended", None))
        if sign is not None
    ]
    try:
        batches = ui.logs.follow(caller.scope, query)
        async for lines in line_events(batches, lambda entry: event(ui.pages.text("line.html", entry=entry)), over):
            yield lines
        yield event("over", "end")  # otherwise the browser would reconnect
    finally:
        for wait in waits:
            wait.cancel()


async def _pass_on(ended: asyncio.Event, over: asyncio.Event) -> None:
    await ended.wait()
    over.set()

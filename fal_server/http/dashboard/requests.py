"""The pages of requests: ended ones with charts, and one with its times, log and response."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response

from fal_server.access.permissions import CALL_APPS, allows, require_app
from fal_server.core.faults import NotFound
from fal_server.core.identity import AppId, Principal
from fal_server.core.queue import Answer, QueuedRequest
from fal_server.core.requests import RequestQuery, RequestRecord, RequestStats, RequestStatus
from fal_server.http.dashboard.app import back
from fal_server.http.dashboard.log_lines import LogLines
from fal_server.http.dashboard.media import ShownAnswer, media_of
from fal_server.http.dashboard.pages import Pages, app_of, may
from fal_server.http.routes.guard import Guard
from fal_server.http.routes.parameters import one_of
from fal_server.services.queue import Queue
from fal_server.services.request_payloads import RequestPayloads
from fal_server.services.requests import Requests

_SPANS = {"1h": (timedelta(hours=1), 1), "6h": (timedelta(hours=6), 5), "1d": (timedelta(days=1), 20)}
_MOST_LISTED = 100
_JSON = (("content-type", "application/json"),)
_QUANTILES = (0.5, 0.95, 0.99)


class RequestPages:
    """The requests of the account or of one app, and one request."""

    def __init__(
        self, pages: Pages, guard: Guard, requests: Requests, payloads: RequestPayloads, queue: Queue, lines: LogLines
    ) -> None:
        self._pages = pages
        self._requests = requests
        self._payloads = payloads
        self._queue = queue
        self._lines = lines
        one = "/ui/apps/{app}/requests/{request_id}"
        self.routes = [
            guard.route("GET", "/ui/requests", self._list),
            guard.route("GET", "/ui/apps/{app}/requests", self._list),
            guard.route("GET", one, self._show),
            guard.route("POST", one + "/cancel", self._cancel),
        ]

    async def _list(self, request: Request, caller: Principal) -> Response:
        app = str(app_of(request, caller)) if "app" in request.path_params else None
        asked = request.query_params
        status = RequestStatus(word) if (word := one_of(request, "status", tuple(RequestStatus))) else None
        chosen = asked.get("span", "") if asked.get("span") in _SPANS else "1h"
        span, minutes = _SPANS[chosen]
        query = RequestQuery(app_name=app, status=status, after=asked.get("after") or None, limit=_MOST_LISTED)
        page = await self._requests.page(caller.scope, query)
        step = timedelta(minutes=minutes)
        return self._pages.show(
            request, "requests.html", app=app, page=page, chosen=status, span=chosen, spans=list(_SPANS),
            statuses=list(RequestStatus), chart=await self._chart(caller, app, span, step),
        )  # fmt: skip

    async def _chart(self, caller: Principal, app: str | None, span: timedelta, step: timedelta) -> str:
        """Return the statistics of each step as columns: time, good, bad, and the quantiles of the duration."""
        now = self._pages.now()
        first = (now - span).replace(second=0, microsecond=0)
        sums: dict[datetime, RequestStats] = {}
        for row in await self._requests.stats(caller.scope, app, since=first, until=now, step=step):
            sums.setdefault(row.since, RequestStats()).merge(row.stats)
        columns: list[list[float | None]] = [[] for _ in range(3 + len(_QUANTILES))]
        for at in (first + number * step for number in range(-(-(now - first) // step))):
            numbers = sums.get(at, RequestStats())
            failed = numbers.count_of(RequestStatus.ERROR)
            quantiles = [numbers.total.quantile(share) for share in _QUANTILES]
            for column, value in zip(
                columns, [at.timestamp(), numbers.count - failed, failed, *quantiles], strict=True
            ):
                column.append(value)
        return json.dumps(columns)

    async def _show(self, request: Request, caller: Principal) -> Response:
        app_id, request_id = app_of(request, caller), request.path_params["request_id"]
        record = await self._record(caller, app_id, request_id)
        queued = await self._queued(app_id, request_id)
        if record is None and queued is None:
            raise NotFound(f"request {request_id[:80]!r}", "it has expired or never existed")
        sent = answer = None
        if allows(caller, CALL_APPS):
            require_app(caller, app_id)
            sent, answer = await self._bodies(app_id, request_id, record)
        runner = record.runner_id if record else queued.runner_id if queued else None
        lines = None
        if runner and may(caller, "GET", "/ui/apps/{app}/logs"):
            since = record.received_at if record else None
            lines = await self._lines.of_request(caller.scope, runner, request_id, since)
        return self._pages.show(
            request, "request.html", external=bool(sent or answer), app=str(app_id), request_id=request_id,
            record=record, queued=queued, sent=sent, answer=answer, lines=lines, runner_id=runner,
        )  # fmt: skip

    async def _bodies(
        self, app_id: AppId, request_id: str, record: RequestRecord | None
    ) -> tuple[ShownAnswer | None, ShownAnswer | None]:
        """Return what a request sent and got, as far as the queue or the history keep it."""
        body, answer = await self._queue.payloads(app_id, request_id)
        kept = await self._payloads.get(app_id.account, request_id) if record and not record.queued else None
        if record and kept:
            body = kept.input
            answer = None if kept.output is None else Answer(status=record.code or 0, headers=_JSON, body=kept.output)
        sent = Answer(status=0, headers=_JSON, body=body) if body else None
        return None if sent is None else media_of(sent), None if answer is None else media_of(answer)

    async def _record(self, caller: Principal, app_id: AppId, request_id: str) -> RequestRecord | None:
        try:
            found = await self._requests.get(caller.scope, request_id)
        except NotFound:
            return None
        return found if found.app_name == str(app_id) else None

    async def _queued(self, app_id: AppId, request_id: str) -> QueuedRequest | None:
        try:
            return (await self._queue.status(app_id, request_id)).request
        except NotFound:
            return None

    async def _cancel(self, request: Request, caller: Principal) -> Response:
        app_id, request_id = app_of(request, caller), request.path_params["request_id"]
        await self._queue.cancel(app_id, request_id)
        return back(f"/ui/apps/{quote(str(app_id))}/requests/{request_id}", "The request is cancelled.")

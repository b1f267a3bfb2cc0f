"""The pages of requests. Ended ones have charts, and a single one has its times, log and response."""

from __future__ import annotations

import json
from datetime import datetime, timedelta

from starlette.requests import Request
from starlette.responses import Response

from fal_server.access.permissions import CALL_APPS, allows, require_app
from fal_server.core.faults import NotFound
from fal_server.core.identity import AppId, Principal
from fal_server.core.queue import Answer, QueuedRequest
from fal_server.core.requests import RequestQuery, RequestRecord, RequestStats, RequestStatus
from fal_server.http.dashboard.log_lines import lines_of_request
from fal_server.http.dashboard.media import ShownAnswer, media_of
from fal_server.http.dashboard.pages import app_of, may
from fal_server.http.dashboard.ui import Routes, Ui
from fal_server.http.routes.parameters import one_of

_SPANS = {"1h": (timedelta(hours=1), 1), "6h": (timedelta(hours=6), 5), "1d": (timedelta(days=1), 20)}
_MOST_LISTED = 100
_JSON = (("content-type", "application/json"),)
_QUANTILES = (0.5, 0.95, 0.99)
_ONE = "/ui/apps/{app}/requests/{request_id}"
routes = Routes()


@routes.page("/ui/requests", "/ui/apps/{app}/requests")
async def _list(ui: Ui, request: Request, caller: Principal) -> Response:
    app = str(app_of(request, caller)) if "app" in request.path_params else None
    asked = request.query_params
    status = RequestStatus(word) if (word := one_of(request, "status", tuple(RequestStatus))) else None
    chosen = asked.get("span", "") if asked.get("span") in _SPANS else "1h"
    span, minutes = _SPANS[chosen]
    query = RequestQuery(app_name=app, status=status, after=asked.get("after") or None, limit=_MOST_LISTED)
    page = await ui.requests.page(caller.scope, query)
    chart = await _chart(ui, caller, app, span, timedelta(minutes=minutes))
    return ui.pages.show(
        request, "requests.html", app=app, page=page, chosen=status, span=chosen, spans=list(_SPANS),
        statuses=list(RequestStatus), chart=chart,
    )  # fmt: skip


async def _chart(ui: Ui, caller: Principal, app: str | None, span: timedelta, step: timedelta) -> str:
    """Return each step's statistics as columns. They are time, good, bad, and the quantiles of the duration."""
    now = ui.pages.now()
    first = (now - span).replace(second=0, microsecond=0)
    sums: dict[datetime, RequestStats] = {}
    for row in await ui.requests.stats(caller.scope, app, since=first, until=now, step=step):
        sums.setdefault(row.since, RequestStats()).merge(row.stats)
    rows: list[list[float | None]] = []
    for at in (first + number * step for number in range(-(-(now - first) // step))):
        numbers = sums.get(at, RequestStats())
        failed = numbers.count_of(RequestStatus.ERROR)
        quantiles = [numbers.total.quantile(share) for share in _QUANTILES]
        rows.append([at.timestamp(), numbers.count - failed, failed, *quantiles])
    return json.dumps(list(zip(*rows, strict=True)))


@routes.page(_ONE)
async def _show(ui: Ui, request: Request, caller: Principal) -> Response:
    app_id, request_id = app_of(request, caller), request.path_params["request_id"]
    record = await _record(ui, caller, app_id, request_id)
    queued = await _queued(ui, app_id, request_id)
    if record is None and queued is None:
        raise NotFound(f"request {request_id[:80]!r}", "it has expired or never existed")
    sent = answer = None
    if allows(caller, CALL_APPS):
        require_app(caller, app_id)
        sent, answer = await _bodies(ui, app_id, request_id, record)
    runner = record.runner_id if record else queued.runner_id if queued else None
    lines = None
    if runner and may(caller, "GET", "/ui/apps/{app}/logs"):
        since = record.received_at if record else None
        lines = await lines_of_request(ui, caller.scope, runner, request_id, since)
    return ui.pages.show(
        request, "request.html", external=bool(sent or answer), app=str(app_id), request_id=request_id,
        record=record, queued=queued, sent=sent, answer=answer, lines=lines, runner_id=runner,
    )  # fmt: skip


async def _bodies(
    ui: Ui, app_id: AppId, request_id: str, record: RequestRecord | None
) -> tuple[ShownAnswer | None, ShownAnswer | None]:
    """Return a request's input and output, as far as they are kept. The queue or the history keep them."""
    body, answer = await ui.queue.payloads(app_id, request_id)
    kept = await ui.payloads.get(app_id.account, request_id) if record and not record.queued else None
    if record and kept:
        body = kept.input
        answer = None if kept.output is None else Answer(status=record.code or 0, headers=_JSON, body=kept.output)
    sent = Answer(status=0, headers=_JSON, body=body) if body else None
    return None if sent is None else media_of(sent), None if answer is None else media_of(answer)


async def _record(ui: Ui, caller: Principal, app_id: AppId, request_id: str) -> RequestRecord | None:
    try:
        found = await ui.requests.get(caller.scope, request_id)
    except NotFound:
        return None
    return found if found.app_name == str(app_id) else None


async def _queued(ui: Ui, app_id: AppId, request_id: str) -> QueuedRequest | None:
    try:
        return (await ui.queue.status(app_id, request_id)).request
    except NotFound:
        return None


@routes.action(f"{_ONE}/cancel", _ONE)
async def _cancel(ui: Ui, request: Request, caller: Principal) -> str:
    await ui.queue.cancel(app_of(request, caller), request.path_params["request_id"])
    return "The request is cancelled."

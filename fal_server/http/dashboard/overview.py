"""The overview and the page of nodes. They show running apps, waiting requests, failures, and their machines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from starlette.requests import Request
from starlette.responses import Response

from fal_server.core.identity import LOCAL, Principal
from fal_server.core.requests import RequestQuery, RequestStatus
from fal_server.http.dashboard.pages import may
from fal_server.http.dashboard.ui import Routes, Ui
from fal_server.live.runner_view import RunnerView
from fal_server.services.views import AppView

_LOOK_BACK = timedelta(hours=1)
_MOST_FAILURES = 20
routes = Routes()


@dataclass(frozen=True, slots=True)
class Incident:
    """A recent failure, and the page that explains it."""

    at: datetime | None
    what: str
    reason: str
    place: str


@routes.page("/ui/")
async def _overview(ui: Ui, request: Request, caller: Principal) -> Response:
    apps = await ui.apps.list(caller.scope, None)
    since = ui.pages.now() - _LOOK_BACK
    views: Sequence[RunnerView] = ()
    if may(caller, "GET", "/ui/runners"):
        views = await ui.runners.list(caller.scope, since=since, include_pending=True)
    living = [view for view in views if not view.runner.ended]
    failures = [*_failing_apps(apps), *_failed_runners(views), *await _failed_requests(ui, caller, since)]
    failures.sort(key=lambda failure: failure.at or since, reverse=True)
    return ui.pages.show(
        request,
        "overview.html",
        apps=sorted(apps, key=_interest, reverse=True)[:12],
        app_count=len(apps),
        states=Counter(view.state.value for view in living),
        in_flight=sum(view.in_flight for view in living),
        queued=sum(app.load.queued for app in apps if app.load),
        failures=failures[:_MOST_FAILURES],
        failure_count=len(failures),
    )


@routes.page("/ui/nodes")
async def _nodes(ui: Ui, request: Request, caller: Principal) -> Response:
    health = ui.health() if caller.scope.account == LOCAL else {}
    return ui.pages.show(request, "nodes.html", nodes=await ui.nodes.list(caller.scope), health=health)


async def _failed_requests(ui: Ui, caller: Principal, since: datetime) -> list[Incident]:
    if not may(caller, "GET", "/ui/requests"):
        return []
    query = RequestQuery(status=RequestStatus.ERROR, since=since, limit=_MOST_FAILURES)
    return [
        Incident(
            record.ended_at,
            f"A request of {record.app_name} failed",
            f"{record.code} {record.error_type or ''} at {record.endpoint}",
            f"/ui/apps/{record.app_name}/requests/{record.request_id}",
        )
        for record in (await ui.requests.page(caller.scope, query)).records
    ]


def _interest(view: AppView) -> tuple[bool, int, int, datetime]:
    busy = (view.load.in_flight + view.load.queued) if view.load else 0
    return view.failures.count > 0, busy, view.active_runners, view.app.updated_at


def _failing_apps(apps: Sequence[AppView]) -> list[Incident]:
    return [
        Incident(view.failures.at, f"{view.app.name} does not start", view.failures.reason, f"/ui/apps/{view.app.name}")
        for view in apps
        if view.failures.count
    ]


def _failed_runners(views: Sequence[RunnerView]) -> list[Incident]:
    return [
        Incident(
            view.runner.ended_at,
            f"A runner of {view.runner.app_name} ended",
            view.runner.reason or view.runner.own_end,
            f"/ui/runners/{view.runner.runner_id}",
        )
        for view in views
        if view.runner.ended and (view.runner.own_end or view.runner.stop_cause or view.runner.failed_starts)
    ]

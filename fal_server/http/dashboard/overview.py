"""The overview: running apps, waiting requests, and failures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from starlette.requests import Request
from starlette.responses import Response

from fal_server.core.identity import Principal
from fal_server.core.requests import RequestQuery, RequestStatus
from fal_server.http.dashboard.pages import Pages, may
from fal_server.http.routes.guard import Guard
from fal_server.live.runner_view import RunnerView
from fal_server.services.apps import Apps
from fal_server.services.requests import Requests
from fal_server.services.runners import Runners
from fal_server.services.views import AppView

_LOOK_BACK = timedelta(hours=1)
_MOST_FAILURES = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Incident:
    """A recent failure, and the page that explains it."""

    at: datetime | None
    what: str
    reason: str
    place: str


class OverviewPage:
    """The first page."""

    def __init__(self, pages: Pages, guard: Guard, apps: Apps, runners: Runners, requests: Requests) -> None:
        self._requests = requests
        self._pages = pages
        self._apps = apps
        self._runners = runners
        self.routes = [guard.route("GET", "/ui/", self._show)]

    async def _show(self, request: Request, caller: Principal) -> Response:
        apps = await self._apps.list(caller.scope, None)
        since = self._pages.now() - _LOOK_BACK
        views: Sequence[RunnerView] = ()
        if may(caller, "GET", "/ui/runners"):
            views = await self._runners.list(caller.scope, since=since, include_pending=True)
        living = [view for view in views if not view.runner.ended]
        failures = [*_failing_apps(apps), *_failed_runners(views), *await self._failed_requests(caller, since)]
        failures.sort(key=lambda failure: failure.at or since, reverse=True)
        return self._pages.show(
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

    async def _failed_requests(self, caller: Principal, since: datetime) -> list[Incident]:
        if not may(caller, "GET", "/ui/requests"):
            return []
        query = RequestQuery(status=RequestStatus.ERROR, since=since, limit=_MOST_FAILURES)
        return [
            Incident(
                at=record.ended_at,
                what=f"A request of {record.app_name} failed",
                reason=f"{record.code} {record.error_type or ''} at {record.endpoint}",
                place=f"/ui/apps/{record.app_name}/requests/{record.request_id}",
            )
            for record in (await self._requests.page(caller.scope, query)).records
        ]


def _interest(view: AppView) -> tuple[bool, int, int, datetime]:
    load = view.load
    busy = (load.in_flight + load.queued) if load else 0
    return view.failures.count > 0, busy, view.active_runners, view.app.updated_at


def _failing_apps(apps: Sequence[AppView]) -> list[Incident]:
    return [
        Incident(
            at=view.failures.at,
            what=f"{view.app.name} does not start",
            reason=view.failures.reason,
            place=f"/ui/apps/{view.app.name}",
        )
        for view in apps
        if view.failures.count
    ]


def _failed_runners(views: Sequence[RunnerView]) -> list[Incident]:
    return [
        Incident(
            at=view.runner.ended_at,
            what=f"A runner of {view.runner.app_name} ended",
            reason=view.runner.reason or view.runner.own_end,
            place=f"/ui/runners/{view.runner.runner_id}",
        )
        for view in views
        if view.runner.ended and has_failed(view)
    ]


def has_failed(view: RunnerView) -> bool:
    """Return whether a runner ended unexpectedly."""
    return bool(view.runner.own_end or view.runner.stop_cause or view.runner.failed_starts)

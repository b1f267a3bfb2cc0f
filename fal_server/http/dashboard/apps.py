"""The pages of apps: the list, and one app with all its details."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict

from starlette.requests import Request
from starlette.responses import Response

from fal_server.access.permissions import allows
from fal_server.core.apps import Strategy
from fal_server.core.faults import InvalidArgument
from fal_server.core.identity import AppId, Principal
from fal_server.core.scaling import BOUNDS
from fal_server.http.dashboard.app import back
from fal_server.http.dashboard.forms import form_of, whole_number
from fal_server.http.dashboard.pages import Pages, app_of, may
from fal_server.http.routes.guard import Guard
from fal_server.ports.queue import RequestFilter
from fal_server.services.apps import Apps
from fal_server.services.explain import Explainer
from fal_server.services.queue import Queue
from fal_server.services.revisions import Revisions
from fal_server.services.runners import MOST_ON_A_PAGE, Runners
from fal_server.services.views import Urls

_MOST_DEAD = 20
_MOST_REVISIONS = 10
# The settings in the form, in its order, with their units.
SETTINGS: Mapping[str, str] = {
    "min_concurrency": "runners", "max_concurrency": "runners", "concurrency_buffer": "runners",
    "concurrency_buffer_perc": "%", "scaling_delay": "seconds", "keep_alive": "seconds",
    "max_multiplexing": "requests at once", "request_timeout": "seconds", "startup_timeout": "seconds",
}  # fmt: skip


class AppPages:
    """The list of apps, and one app.

    Args:
        urls: returns the addresses of an app.
    """

    def __init__(
        self,
        pages: Pages,
        guard: Guard,
        apps: Apps,
        runners: Runners,
        revisions: Revisions,
        explainer: Explainer,
        queue: Queue,
        urls: Callable[[AppId], Urls],
    ) -> None:
        self._pages = pages
        self._apps = apps
        self._runners = runners
        self._revisions = revisions
        self._explainer = explainer
        self._queue = queue
        self._urls = urls
        one = "/ui/apps/{app}"
        self.routes = [
            guard.route("GET", "/ui/apps", self._list),
            guard.route("GET", one, self._show),
            guard.route("POST", one + "/scale", self._scale),
            guard.route("POST", one + "/revision", self._move),
            guard.route("POST", one + "/rollout", self._roll_out),
            guard.route("POST", one + "/flush", self._flush),
            guard.route("POST", one + "/redrive", self._redrive),
        ]

    async def _list(self, request: Request, caller: Principal) -> Response:
        return self._pages.show(request, "apps.html", apps=await self._apps.list(caller.scope, None))

    async def _show(self, request: Request, caller: Principal) -> Response:
        app_id = app_of(request, caller)
        why = await self._explainer.explain(caller.scope, app_id.name, app_id.environment)
        runners = revisions = dead = None
        if may(caller, "GET", "/ui/runners"):
            page = await self._runners.page(
                caller.scope, app_id.name, app_id.environment,
                since=self._pages.now(), include_pending=True, size=MOST_ON_A_PAGE, token="",
            )  # fmt: skip
            runners = page.views
        if allows(caller, "serverless:revisions:read"):
            revisions = await self._revisions.list(caller.scope, app_id.name, app_id.environment)
        if allows(caller, "serverless:queue:read"):
            dead = await self._queue.find(
                app_id.account, RequestFilter(app_name=str(app_id), dead=True, limit=_MOST_DEAD)
            )
        return self._pages.show(
            request,
            "app.html",
            view=why.app,
            app=why.app.app,
            why=why,
            urls=self._urls(app_id),
            runners=runners,
            revisions=(revisions or [])[:_MOST_REVISIONS],
            revision_count=len(revisions or []),
            waiting=self._queue.size(app_id) if dead is not None else None,
            dead=dead or [],
            scaling=asdict(why.app.app.scaling),
            settings=SETTINGS,
            bounds=BOUNDS,
        )

    async def _scale(self, request: Request, caller: Principal) -> Response:
        app_id, form = app_of(request, caller), await form_of(request)
        changes = {name: value for name in SETTINGS if (value := whole_number(form, name)) is not None}
        await self._apps.update(caller.scope, app_id.name, app_id.environment, changes)
        return back(_page_of(app_id), "The settings are saved.")

    async def _move(self, request: Request, caller: Principal) -> Response:
        app_id, form = app_of(request, caller), await form_of(request)
        revision = form.get("revision", "")
        if not revision:
            raise InvalidArgument("revision", "revision is missing: choose one on the app's page")
        await self._apps.set_revision(
            caller.scope, app_id.name, app_id.environment, revision, auth_mode=None, strategy=Strategy.ROLLING
        )
        return back(_page_of(app_id), f"The app moves to revision {revision[:8]} as soon as a runner of it is ready.")

    async def _roll_out(self, request: Request, caller: Principal) -> Response:
        app_id = app_of(request, caller)
        await self._apps.rollout(caller.scope, app_id.name, app_id.environment, force=False)
        return back(_page_of(app_id), "Its runners are replaced, one ready replacement at a time.")

    async def _flush(self, request: Request, caller: Principal) -> Response:
        app_id = app_of(request, caller)
        count = await self._queue.flush(app_id)
        return back(_page_of(app_id), f"{count} waiting requests are cancelled.")

    async def _redrive(self, request: Request, caller: Principal) -> Response:
        app_id, form = app_of(request, caller), await form_of(request)
        await self._queue.redrive(app_id, form.get("request", ""))
        return back(_page_of(app_id), "The request is queued again.")


def _page_of(app_id: AppId) -> str:
    return f"/ui/apps/{app_id}"

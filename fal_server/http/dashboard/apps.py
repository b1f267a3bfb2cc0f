"""The pages of apps. They are the list, one app with all its details, and a revision compared with the current one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

from starlette.requests import Request
from starlette.responses import Response

from fal_server.access.permissions import allows
from fal_server.core.apps import Strategy
from fal_server.core.faults import InvalidArgument
from fal_server.core.identity import Principal
from fal_server.core.scaling import BOUNDS
from fal_server.http.dashboard.forms import form_of, whole_number
from fal_server.http.dashboard.pages import app_of, may
from fal_server.http.dashboard.ui import Routes, Ui
from fal_server.ports.queue import RequestFilter
from fal_server.services.runners import MOST_ON_A_PAGE

_MOST_DEAD = 20
_MOST_REVISIONS = 10
_MOST_LINES = 2000
_ONE = "/ui/apps/{app}"
# The settings in the form, in its order, with their units.
SETTINGS: Mapping[str, str] = {
    "min_concurrency": "runners", "max_concurrency": "runners", "concurrency_buffer": "runners",
    "concurrency_buffer_perc": "%", "scaling_delay": "seconds", "keep_alive": "seconds",
    "max_multiplexing": "requests at once", "request_timeout": "seconds", "startup_timeout": "seconds",
}  # fmt: skip
routes = Routes()


@routes.page("/ui/apps")
async def _list(ui: Ui, request: Request, caller: Principal) -> Response:
    return ui.pages.show(request, "apps.html", apps=await ui.apps.list(caller.scope, None))


@routes.page(_ONE)
async def _show(ui: Ui, request: Request, caller: Principal) -> Response:
    app_id = app_of(request, caller)
    why = await ui.explainer.explain(caller.scope, app_id.name, app_id.environment)
    runners = revisions = dead = None
    if may(caller, "GET", "/ui/runners"):
        page = await ui.runners.page(
            caller.scope, app_id.name, app_id.environment,
            since=ui.pages.now(), include_pending=True, size=MOST_ON_A_PAGE, token="",
        )  # fmt: skip
        runners = page.views
    if allows(caller, "serverless:revisions:read"):
        revisions = await ui.revisions.list(caller.scope, app_id.name, app_id.environment)
    if allows(caller, "serverless:queue:read"):
        dead = await ui.queue.find(app_id.account, RequestFilter(app_name=str(app_id), dead=True, limit=_MOST_DEAD))
    return ui.pages.show(
        request,
        "app.html",
        view=why.app,
        app=why.app.app,
        why=why,
        urls=ui.urls(app_id),
        runners=runners,
        revisions=(revisions or [])[:_MOST_REVISIONS],
        revision_count=len(revisions or []),
        waiting=ui.queue.size(app_id) if dead is not None else None,
        dead=dead or [],
        scaling=asdict(why.app.app.scaling),
        settings=SETTINGS,
        bounds=BOUNDS,
    )


@routes.action(f"{_ONE}/scale", _ONE, again=_show)
async def _scale(ui: Ui, request: Request, caller: Principal) -> str:
    app_id, form = app_of(request, caller), await form_of(request)
    changes = {name: value for name in SETTINGS if (value := whole_number(form, name)) is not None}
    await ui.apps.update(caller.scope, app_id.name, app_id.environment, changes)
    return "The settings are saved."


@routes.action(f"{_ONE}/revision", _ONE)
async def _move(ui: Ui, request: Request, caller: Principal) -> str:
    app_id, form = app_of(request, caller), await form_of(request)
    revision = form.get("revision", "")
    if not revision:
        raise InvalidArgument("revision", "revision is missing: choose one on the app's page")
    await ui.apps.set_revision(
        caller.scope, app_id.name, app_id.environment, revision, auth_mode=None, strategy=Strategy.ROLLING
    )
    return f"The app moves to revision {revision[:8]} as soon as a runner of it is ready."


@routes.action(f"{_ONE}/rollout", _ONE)
async def _roll_out(ui: Ui, request: Request, caller: Principal) -> str:
    app_id = app_of(request, caller)
    await ui.apps.rollout(caller.scope, app_id.name, app_id.environment, force=False)
    return "Its runners are replaced, one ready replacement at a time."


@routes.action(f"{_ONE}/flush", _ONE)
async def _flush(ui: Ui, request: Request, caller: Principal) -> str:
    return f"{await ui.queue.flush(app_of(request, caller))} waiting requests are cancelled."


@routes.action(f"{_ONE}/redrive", _ONE)
async def _redrive(ui: Ui, request: Request, caller: Principal) -> str:
    await ui.queue.redrive(app_of(request, caller), (await form_of(request)).get("request", ""))
    return "The request is queued again."


@routes.page(f"{_ONE}/revisions/{{revision_id}}")
async def _revision(ui: Ui, request: Request, caller: Principal) -> Response:
    app = str(app_of(request, caller))
    found = await ui.revisions.compare(caller.scope, app, request.path_params["revision_id"])
    message = found.revision.metadata.get("message")
    return ui.pages.show(
        request,
        "revision.html",
        app=app,
        found=found,
        message=message if isinstance(message, str) else "",
        lines=found.source[2 : 2 + _MOST_LINES],  # the first two name the revisions
        cut=len(found.source) > 2 + _MOST_LINES,
    )

"""The page that tries other settings of an app under load. It does not change the app."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import TypeAlias

from starlette.requests import Request
from starlette.responses import Response

from fal_server.core.faults import InvalidArgument
from fal_server.core.identity import AppId, Principal
from fal_server.core.requests import RequestQuery, RequestRecord
from fal_server.core.scaling import BOUNDS, Scaling
from fal_server.core.simulation import MOST_ARRIVALS, Arrival, SimulationResult
from fal_server.http.dashboard.apps import SETTINGS
from fal_server.http.dashboard.forms import decimal, form_of, whole_number
from fal_server.http.dashboard.pages import app_of, may
from fal_server.http.dashboard.ui import Routes, Ui
from fal_server.services.requests import MOST_ON_A_PAGE

# The fields of the load, with their units and first values.
LOAD: Mapping[str, tuple[str, str]] = {
    "rate": ("requests a second", "2"), "duration": ("seconds each", "1"), "span": ("seconds in all", "300"),
    "start_seconds": ("seconds until a runner is ready", "5"),
}  # fmt: skip
_LOOK_BACK = timedelta(hours=1)
_Result: TypeAlias = "tuple[str, Scaling, SimulationResult]"
_PLACE = "/ui/apps/{app}/simulate"
routes = Routes()


@routes.page(_PLACE)
async def _show(
    ui: Ui, request: Request, caller: Principal, results: tuple[_Result, ...] = (), count: str = ""
) -> Response:
    app_id = app_of(request, caller)
    now = (await ui.explainer.explain(caller.scope, app_id.name, app_id.environment)).app.app.scaling
    shown = results[1][1] if results else now
    return ui.pages.show(
        request,
        "simulate.html",
        app=str(app_id),
        settings=SETTINGS,
        bounds=BOUNDS,
        values={name: getattr(shown, name) for name in SETTINGS},
        now={name: getattr(now, name) for name in SETTINGS},
        load=LOAD,
        form=await form_of(request),
        results=results,
        count=count,
        chart=json.dumps(_columns(results[1][2])) if results else "",
    )


@routes.action(_PLACE, again=_show)
async def _simulate(ui: Ui, request: Request, caller: Principal) -> Response:
    app_id, form = app_of(request, caller), await form_of(request)
    tried = {name: value for name in SETTINGS if (value := whole_number(form, name)) is not None}
    given = {name: decimal(form, name, float(usual)) for name, (_, usual) in LOAD.items()}
    if form.get("load") == "history" and may(caller, "GET", "/ui/apps/{app}/requests"):
        arrivals = await _of_last_hour(ui, caller, app_id)
    else:
        count = int(given["rate"] * given["span"])
        if not 1 <= count <= MOST_ARRIVALS:
            raise InvalidArgument("rate", f"the load has {count} requests: simulate 1 to {MOST_ARRIVALS}")
        arrivals = [Arrival(at=number / given["rate"], duration=given["duration"]) for number in range(count)]
    results: tuple[_Result, ...] = ()
    for title, settings in (("Now", {}), ("Tried", tried)):
        used, result = await ui.explainer.simulate(
            caller.scope, app_id.name, app_id.environment, settings, arrivals, given["start_seconds"]
        )
        results += ((title, used, result),)
    return await _show(ui, request, caller, results, f"{len(arrivals):,}")


async def _of_last_hour(ui: Ui, caller: Principal, app_id: AppId) -> list[Arrival]:
    """Return the requests of the last hour as a load."""
    records: list[RequestRecord] = []
    query = RequestQuery(app_name=str(app_id), since=ui.pages.now() - _LOOK_BACK, limit=MOST_ON_A_PAGE)
    while len(records) < MOST_ARRIVALS:
        page = await ui.requests.page(caller.scope, query)
        records += page.records
        if not page.more:
            break
        query = replace(query, after=page.cursor)
    ran = [(record.received_at, record.run_seconds) for record in records if record.run_seconds is not None]
    if not ran:
        raise InvalidArgument("load", "no request has ended in the last hour: describe a load instead")
    first = min(at for at, _ in ran)
    return [Arrival(at=(at - first).total_seconds(), duration=max(seconds, 0.001)) for at, seconds in ran]


def _columns(result: SimulationResult) -> list[list[float]]:
    return [
        list(column) for column in zip(*((p.at, p.runners, p.in_flight, p.queued) for p in result.points), strict=True)
    ]

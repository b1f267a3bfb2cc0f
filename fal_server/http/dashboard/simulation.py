"""The page that tries other settings of an app under a load, without changing it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import timedelta

from starlette.requests import Request
from starlette.responses import Response

from fal_server.core.faults import InvalidArgument
from fal_server.core.identity import AppId, Principal
from fal_server.core.requests import RequestQuery, RequestRecord
from fal_server.core.scaling import BOUNDS, Scaling
from fal_server.core.simulation import MOST_ARRIVALS, Arrival, SimulationResult
from fal_server.http.dashboard.apps import SETTINGS
from fal_server.http.dashboard.forms import decimal, form_of, whole_number
from fal_server.http.dashboard.pages import Pages, app_of, may
from fal_server.http.routes.guard import Guard
from fal_server.services.explain import Explainer
from fal_server.services.requests import MOST_ON_A_PAGE, Requests

# The fields of the load, with their units and first values.
LOAD: Mapping[str, tuple[str, str]] = {
    "rate": ("requests a second", "2"), "duration": ("seconds each", "1"), "span": ("seconds in all", "300"),
    "start_seconds": ("seconds until a runner is ready", "5"),
}  # fmt: skip
_LOOK_BACK = timedelta(hours=1)


class SimulationPage:
    """The simulation of an app's runners."""

    def __init__(self, pages: Pages, guard: Guard, explainer: Explainer, requests: Requests) -> None:
        self._pages = pages
        self._explainer = explainer
        self._requests = requests
        place = "/ui/apps/{app}/simulate"
        self.routes = [guard.route("GET", place, self._form), guard.route("POST", place, self._simulate)]

    async def _form(self, request: Request, caller: Principal) -> Response:
        return await self._show(request, caller, {}, [], "")

    async def _simulate(self, request: Request, caller: Principal) -> Response:
        app_id, form = app_of(request, caller), await form_of(request)
        tried = {name: value for name in SETTINGS if (value := whole_number(form, name)) is not None}
        given = {name: decimal(form, name, float(usual)) for name, (_, usual) in LOAD.items()}
        if form.get("load") == "history" and may(caller, "GET", "/ui/apps/{app}/requests"):
            arrivals = await self._of_last_hour(caller, app_id)
        else:
            count = int(given["rate"] * given["span"])
            if not 1 <= count <= MOST_ARRIVALS:
                raise InvalidArgument("rate", f"the load has {count} requests: simulate 1 to {MOST_ARRIVALS}")
            arrivals = [Arrival(at=number / given["rate"], duration=given["duration"]) for number in range(count)]
        results: list[tuple[str, Scaling, SimulationResult]] = []
        for title, settings in (("Now", {}), ("Tried", tried)):
            used, result = await self._explainer.simulate(
                caller.scope, app_id.name, app_id.environment, settings, arrivals, given["start_seconds"]
            )
            results.append((title, used, result))
        return await self._show(request, caller, form, results, f"{len(arrivals):,}")

    async def _show(
        self,
        request: Request,
        caller: Principal,
        form: Mapping[str, str],
        results: Sequence[tuple[str, Scaling, SimulationResult]],
        count: str,
    ) -> Response:
        app_id = app_of(request, caller)
        now = (await self._explainer.explain(caller.scope, app_id.name, app_id.environment)).app.app.scaling
        shown = results[1][1] if results else now
        return self._pages.show(
            request,
            "simulate.html",
            app=str(app_id),
            settings=SETTINGS,
            bounds=BOUNDS,
            values={name: getattr(shown, name) for name in SETTINGS},
            now={name: getattr(now, name) for name in SETTINGS},
            load=LOAD,
            form=form,
            results=results,
            count=count,
            chart=json.dumps(_columns(results[1][2])) if results else "",
        )

    async def _of_last_hour(self, caller: Principal, app_id: AppId) -> list[Arrival]:
        """Return the requests of the last hour as a load."""
        records: list[RequestRecord] = []
        after: str | None = None
        while len(records) < MOST_ARRIVALS:
            query = RequestQuery(
                app_name=str(app_id), since=self._pages.now() - _LOOK_BACK, after=after, limit=MOST_ON_A_PAGE
            )
            page = await self._requests.page(caller.scope, query)
            records += page.records
            if not page.more:
                break
            after = page.cursor
        ran = [(record.received_at, record.run_seconds) for record in records if record.run_seconds is not None]
        if not ran:
            raise InvalidArgument("load", "no request has ended in the last hour: describe a load instead")
        first = min(at for at, _ in ran)
        return [Arrival(at=(at - first).total_seconds(), duration=max(seconds, 0.001)) for at, seconds in ran]


def _columns(result: SimulationResult) -> list[list[float]]:
    points = result.points
    return [
        [point.at for point in points],
        [point.runners for point in points],
        [point.in_flight for point in points],
        [point.queued for point in points],
    ]

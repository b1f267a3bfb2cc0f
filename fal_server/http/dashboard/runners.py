"""The pages of runners: the list, and one runner with its start, its requests, its history and its log."""

from __future__ import annotations

from datetime import timedelta

from starlette.requests import Request
from starlette.responses import Response

from fal_server.core.history import StartPhases
from fal_server.core.identity import Principal
from fal_server.http.dashboard.app import back
from fal_server.http.dashboard.log_lines import LogLines
from fal_server.http.dashboard.pages import Pages, may
from fal_server.http.routes.guard import Guard
from fal_server.services.runners import Runners

_LOOK_BACK = timedelta(hours=24)
_MOST_ENDED = 50


class RunnerPages:
    """The list of runners, and one runner."""

    def __init__(self, pages: Pages, guard: Guard, runners: Runners, lines: LogLines) -> None:
        self._pages = pages
        self._runners = runners
        self._lines = lines
        one = "/ui/runners/{runner_id}"
        self.routes = [
            guard.route("GET", "/ui/runners", self._list),
            guard.route("GET", one, self._show),
            guard.route("POST", one + "/stop", self._stop),
            guard.route("POST", one + "/kill", self._kill),
        ]

    async def _list(self, request: Request, caller: Principal) -> Response:
        since = self._pages.now() - _LOOK_BACK
        views = await self._runners.list(caller.scope, since=since, include_pending=True)
        ended = [view for view in views if view.runner.ended]
        return self._pages.show(
            request,
            "runners.html",
            living=[view for view in views if not view.runner.ended],
            ended=ended[: -_MOST_ENDED - 1 : -1],
            ended_count=len(ended),
        )

    async def _show(self, request: Request, caller: Principal) -> Response:
        view = await self._runners.get(caller.scope, request.path_params["runner_id"])
        lines = None
        if may(caller, "GET", "/ui/runners/{runner_id}/follow"):
            lines = await self._lines.of_runner(caller.scope, view.runner.runner_id, request.query_params.get("search"))
        return self._pages.show(
            request, "runner.html", view=view, runner=view.runner, phases=_shares(view.phases), lines=lines
        )

    async def _stop(self, request: Request, caller: Principal) -> Response:
        runner_id = request.path_params["runner_id"]
        await self._runners.stop(caller.scope, runner_id, replace_first=False)
        return back(
            f"/ui/runners/{runner_id}", "It gets no more requests, and stops when it has finished those it has."
        )

    async def _kill(self, request: Request, caller: Principal) -> Response:
        runner_id = request.path_params["runner_id"]
        await self._runners.kill(caller.scope, runner_id)
        return back(f"/ui/runners/{runner_id}", "The runner is being killed.")


def _shares(phases: StartPhases | None) -> list[tuple[str, float, int]]:
    """Return the parts of a start: name, seconds, and the share of the whole in percent."""
    if phases is None:
        return []
    known = [
        (name, seconds)
        for name, seconds in (
            ("waited", phases.waiting), ("environment", phases.environment), ("setup", phases.setup),
        )
        if seconds is not None
    ]  # fmt: skip
    whole = sum(seconds for _, seconds in known) or 1.0
    return [(name, seconds, round(100 * seconds / whole)) for name, seconds in known]

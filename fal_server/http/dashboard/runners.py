"""The pages of runners. They are the list, and one runner with its start, requests, history and log."""

from __future__ import annotations

from datetime import timedelta

from starlette.requests import Request
from starlette.responses import Response

from fal_server.core.history import StartPhases
from fal_server.core.identity import Principal
from fal_server.http.dashboard.log_lines import lines_of_runner
from fal_server.http.dashboard.pages import may
from fal_server.http.dashboard.ui import Routes, Ui

_LOOK_BACK = timedelta(hours=24)
_MOST_ENDED = 50
_ONE = "/ui/runners/{runner_id}"
routes = Routes()


@routes.page("/ui/runners")
async def _list(ui: Ui, request: Request, caller: Principal) -> Response:
    since = ui.pages.now() - _LOOK_BACK
    views = await ui.runners.list(caller.scope, since=since, include_pending=True)
    ended = [view for view in views if view.runner.ended]
    return ui.pages.show(
        request,
        "runners.html",
        living=[view for view in views if not view.runner.ended],
        ended=ended[: -_MOST_ENDED - 1 : -1],
        ended_count=len(ended),
    )


@routes.page(_ONE)
async def _show(ui: Ui, request: Request, caller: Principal) -> Response:
    view = await ui.runners.get(caller.scope, request.path_params["runner_id"])
    lines = None
    if may(caller, "GET", f"{_ONE}/follow"):
        lines = await lines_of_runner(ui, caller.scope, view.runner.runner_id, request.query_params.get("search"))
    return ui.pages.show(
        request, "runner.html", view=view, runner=view.runner, phases=_shares(view.phases), lines=lines
    )


@routes.action(f"{_ONE}/stop", _ONE)
async def _stop(ui: Ui, request: Request, caller: Principal) -> str:
    await ui.runners.stop(caller.scope, request.path_params["runner_id"], replace_first=False)
    return "It gets no more requests, and stops when it has finished those it has."


@routes.action(f"{_ONE}/kill", _ONE)
async def _kill(ui: Ui, request: Request, caller: Principal) -> str:
    await ui.runners.kill(caller.scope, request.path_params["runner_id"])
    return "The runner is being killed."


def _shares(phases: StartPhases | None) -> list[tuple[str, float, int]]:
    """Return the parts of a start. Each has its name, seconds, and share of the whole in percent."""
    if phases is None:
        return []
    parts = {"waited": phases.waiting, "environment": phases.environment, "setup": phases.setup}
    known = {name: seconds for name, seconds in parts.items() if seconds is not None}
    whole = sum(known.values()) or 1.0
    return [(name, seconds, round(100 * seconds / whole)) for name, seconds in known.items()]

"""The dashboard: its pages, and the use cases that they show."""

from __future__ import annotations

from importlib.metadata import version

from starlette.applications import Starlette

from fal_server.composition.addresses import Addresses
from fal_server.composition.files import FileServices
from fal_server.composition.live import LiveState
from fal_server.composition.use_cases import UseCases
from fal_server.http.dashboard.app import dashboard_app
from fal_server.http.dashboard.apps import AppPages
from fal_server.http.dashboard.log_lines import LogLines
from fal_server.http.dashboard.overview import OverviewPage
from fal_server.http.dashboard.pages import Pages
from fal_server.http.dashboard.runners import RunnerPages
from fal_server.http.dashboard.sessions import PageGuard, Sessions
from fal_server.ports import Clock


def build_dashboard(
    *, addresses: Addresses, live: LiveState, files: FileServices, use_cases: UseCases, clock: Clock
) -> Starlette:
    """Return the application that answers below /ui."""
    access = use_cases.access
    guard = PageGuard(access, files.tokens, use_cases.teams, use_cases.recorder, Sessions(access, clock))
    pages = Pages(addresses.accounts, clock, version("fal-grpc"))
    apps = AppPages(
        pages,
        guard,
        apps=use_cases.apps,
        runners=use_cases.runners,
        revisions=use_cases.revisions,
        explainer=use_cases.explainer,
        queue=use_cases.queue,
        urls=addresses.of_app,
    )
    overview = OverviewPage(pages, guard, use_cases.apps, use_cases.runners)
    lines = LogLines(pages, guard, use_cases.logs)
    runners = RunnerPages(pages, guard, use_cases.runners, lines)
    return dashboard_app(pages, guard, [*overview.routes, *apps.routes, *lines.routes, *runners.routes])

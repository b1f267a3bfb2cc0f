"""The dashboard: its pages, and their use cases."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from importlib.metadata import version

from starlette.applications import Starlette

from fal_server.composition.addresses import Addresses
from fal_server.composition.files import FileServices
from fal_server.composition.live import LiveState
from fal_server.composition.use_cases import UseCases
from fal_server.http.dashboard.account import AccountPages
from fal_server.http.dashboard.app import dashboard_app
from fal_server.http.dashboard.apps import AppPages
from fal_server.http.dashboard.log_lines import LogLines
from fal_server.http.dashboard.nodes import NodePages
from fal_server.http.dashboard.overview import OverviewPage
from fal_server.http.dashboard.pages import Pages
from fal_server.http.dashboard.playground import PlaygroundPage
from fal_server.http.dashboard.requests import RequestPages
from fal_server.http.dashboard.revisions import RevisionPage
from fal_server.http.dashboard.runners import RunnerPages
from fal_server.http.dashboard.sessions import PageGuard, Sessions
from fal_server.http.dashboard.setup import SetupPages
from fal_server.http.dashboard.shell import ShellPage
from fal_server.http.dashboard.simulation import SimulationPage
from fal_server.http.dashboard.wording import day_time
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
    lines = LogLines(pages, guard, use_cases.logs)
    account = AccountPages(
        pages,
        guard,
        keys=use_cases.keys,
        secrets=use_cases.secrets,
        environments=use_cases.environments,
        audit=use_cases.audit,
    )
    setup = SetupPages(
        pages,
        guard,
        environments=use_cases.environments,
        drains=use_cases.drains,
        notices=use_cases.notices,
        accounts=use_cases.accounts,
        quotas=use_cases.quotas,
    )
    parts = (
        OverviewPage(pages, guard, use_cases.apps, use_cases.runners, use_cases.requests),
        apps,
        lines,
        RevisionPage(pages, guard, use_cases.revisions),
        SimulationPage(pages, guard, use_cases.explainer, use_cases.requests),
        PlaygroundPage(pages, guard, use_cases.revisions, use_cases.queue, files.tokens, addresses.of_app),
        RequestPages(pages, guard, use_cases.requests, use_cases.payloads, use_cases.queue, lines),
        RunnerPages(pages, guard, use_cases.runners, lines),
        ShellPage(pages, guard, use_cases.runners),
        NodePages(pages, guard, use_cases.nodes, partial(_health, live, use_cases)),
        account,
        setup,
    )
    return dashboard_app(pages, guard, [route for part in parts for route in part.routes])


def _health(live: LiveState, use_cases: UseCases) -> Mapping[str, str]:
    lost = live.ended.dropped + use_cases.recording.lost
    return {
        "Version": version("fal-grpc"),
        "Runs since": day_time(live.decisions.since),
        "Apps": f"{sum(1 for _ in live.catalog.apps):,}",
        "Runners": f"{len(live.fleet.runners):,}",
        "Requests ended": f"{live.ended.added:,}, of which {lost:,} left out of the history",
    }

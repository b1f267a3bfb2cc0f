"""The dashboard: its pages, and their use cases."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from starlette.applications import Starlette

from fal_grpc import VERSION
from fal_server.composition.addresses import Addresses
from fal_server.composition.files import FileServices
from fal_server.composition.live import LiveState
from fal_server.composition.use_cases import UseCases
from fal_server.http.dashboard.app import dashboard_app
from fal_server.http.dashboard.pages import Pages
from fal_server.http.dashboard.sessions import PageGuard, Sessions
from fal_server.http.dashboard.ui import Ui
from fal_server.http.dashboard.wording import day_time
from fal_server.ports import Clock


def build_dashboard(
    *, addresses: Addresses, live: LiveState, files: FileServices, use_cases: UseCases, clock: Clock
) -> Starlette:
    """Return the application that answers below /ui."""
    access = use_cases.access
    guard = PageGuard(access, files.tokens, use_cases.teams, use_cases.recorder, Sessions(access, clock))
    ui = Ui(
        pages=Pages(addresses.accounts, clock, VERSION),
        accounts=use_cases.accounts,
        apps=use_cases.apps,
        audit=use_cases.audit,
        drains=use_cases.drains,
        environments=use_cases.environments,
        explainer=use_cases.explainer,
        health=partial(_health, live, use_cases),
        keys=use_cases.keys,
        logs=use_cases.logs,
        nodes=use_cases.nodes,
        notices=use_cases.notices,
        payloads=use_cases.payloads,
        queue=use_cases.queue,
        quotas=use_cases.quotas,
        requests=use_cases.requests,
        revisions=use_cases.revisions,
        runners=use_cases.runners,
        secrets=use_cases.secrets,
        tokens=files.tokens,
        urls=addresses.of_app,
    )
    return dashboard_app(ui, guard)


def _health(live: LiveState, use_cases: UseCases) -> Mapping[str, str]:
    lost = live.ended.dropped + use_cases.recording.lost
    return {
        "Version": VERSION,
        "Runs since": day_time(live.decisions.since),
        "Apps": f"{sum(1 for _ in live.catalog.apps):,}",
        "Runners": f"{len(live.fleet.runners):,}",
        "Requests ended": f"{live.ended.added:,}, of which {lost:,} left out of the history",
    }

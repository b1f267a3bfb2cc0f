"""An Explainer for tests of the wire. It explains one app, and really simulates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from fal_server.core.autoscale import Load, decide
from fal_server.core.faults import NotFound
from fal_server.core.identity import Scope
from fal_server.core.names import app_name, environment_name
from fal_server.core.runners import RunnerState
from fal_server.core.scaling import Scaling
from fal_server.core.simulation import Arrival, SimulationResult, simulate
from fal_server.live.decisions import Decided
from fal_server.services.explain import Explanation, changed
from fal_server.services.views import AppView
from tests.fakes.domain import make_app

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
LOAD = Load(in_flight=3, queued=2, eligible=1)


class FakeExplainer:
    """Knows the app `hello`."""

    def _require(self, name: str, environment: str) -> None:
        full = app_name(name, environment_name(environment), "application_name")
        if full != "hello":
            raise NotFound(f"app {full!r}")

    async def explain(self, scope: Scope, name: str, environment: str) -> Explanation:
        self._require(name, environment)
        app = make_app("hello", next_revision_id="r2", max_concurrency=9)
        return Explanation(
            app=AppView(app=app, active_runners=3, is_rolling=True),
            load=LOAD,
            decision=decide(app.scaling, LOAD),
            runners={RunnerState.RUNNING: 2, RunnerState.PENDING: 1},
            decisions=[Decided(at=NOON, action="start", subject="r1", reason="4 requests", load=LOAD)],
            known_since=NOON,
            failed_starts=1,
            last_failure="setup() raised",
            lack="no machine is in a region that the app allows (us-west); they are in: none, us-east",
        )

    async def simulate(
        self,
        scope: Scope,
        name: str,
        environment: str,
        settings: Mapping[str, int],
        arrivals: Sequence[Arrival],
        start_seconds: float,
    ) -> tuple[Scaling, SimulationResult]:
        if name:
            self._require(name, environment)
        scaling = changed(Scaling(), settings)
        result = simulate(scaling, arrivals, start_seconds)
        try:
            while True:
                next(result)
        except StopIteration as done:
            return scaling, done.value

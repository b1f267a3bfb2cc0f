"""Explains an app's number of runners, and simulates other loads and settings."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime

from fal_server.core.autoscale import Decision, Load, decide
from fal_server.core.deploy_changes import lack_everywhere
from fal_server.core.faults import InvalidArgument, ResourceExhausted
from fal_server.core.identity import Scope
from fal_server.core.machines import Node
from fal_server.core.runners import RunnerState
from fal_server.core.scaling import Scaling
from fal_server.core.simulation import Arrival, SimulationResult, simulate
from fal_server.live.catalog import Catalog
from fal_server.live.decisions import Decided, Decisions
from fal_server.live.dispatch import Dispatcher
from fal_server.live.fleet import Fleet
from fal_server.services.apps import Apps
from fal_server.services.views import AppView

MOST_SIMULATIONS = 2
_SETTINGS = frozenset(field.name for field in fields(Scaling)) - {"machine_types", "regions"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Why an app has its current number of runners.

    Attributes:
        runners: the number in each displayed state.
        decisions: the latest ones, oldest first; those before `known_since` are unknown.
        lack: why no machine could run it; empty if one could.
    """

    app: AppView
    load: Load
    decision: Decision
    runners: Mapping[RunnerState, int]
    decisions: Sequence[Decided]
    known_since: datetime
    failed_starts: int
    last_failure: str
    lack: str


class Explainer:
    """The use cases of explaining scaling."""

    def __init__(
        self,
        catalog: Catalog,
        fleet: Fleet,
        dispatcher: Dispatcher,
        apps: Apps,
        decisions: Decisions,
        nodes: Callable[[], Sequence[Node]],
    ) -> None:
        self._catalog = catalog
        self._fleet = fleet
        self._dispatcher = dispatcher
        self._apps = apps
        self._decisions = decisions
        self._nodes = nodes
        self._simulations = 0

    async def explain(self, scope: Scope, name: str, environment: str) -> Explanation:
        """Return an app's load, the arithmetic, and the latest decisions.

        Raises:
            NotFound: there is no such app.
        """
        app = await self._catalog.require_in(scope.account, name, environment)
        load = self._dispatcher.load(app)
        failures = self._fleet.failures(app.app_id, app.revision_id)
        revision = await self._catalog.find_revision(scope.account, app.revision_id)
        num_gpus = None if revision is None else revision.num_gpus
        return Explanation(
            app=self._apps.view(app),
            load=load,
            decision=decide(app.scaling, load),
            runners=Counter(self._fleet.view(runner, None).state for runner in self._fleet.of_app(app.app_id)),
            decisions=self._decisions.of(app.app_id),
            known_since=self._decisions.since,
            failed_starts=failures.count,
            last_failure=failures.reason,
            lack=lack_everywhere(app.scaling.machine_types, num_gpus, app.scaling.regions, self._nodes()),
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
        """Simulate requests under the rules of scaling.

        Args:
            name: the app whose settings are used; empty uses those of a new app.
            settings: settings to try instead, by the field names of core.scaling.Scaling.
            start_seconds: from the order for a runner until it takes requests.

        Returns:
            The settings that were used, and the result.

        Raises:
            NotFound: there is no such app.
            InvalidArgument: a setting is unknown or out of range, or the trace cannot be simulated.
            ResourceExhausted: too many simulations are in progress.
        """
        base = Scaling()
        if name:
            base = (await self._catalog.require_in(scope.account, name, environment)).scaling
        scaling = changed(base, settings)
        if self._simulations >= MOST_SIMULATIONS:
            raise ResourceExhausted(f"{self._simulations} simulations are in progress: try again when they are done")
        self._simulations += 1
        try:
            simulation = simulate(scaling, arrivals, start_seconds)
            while True:
                next(simulation)
                await asyncio.sleep(0)  # requests to apps have priority
        except StopIteration as done:
            return scaling, done.value
        finally:
            self._simulations -= 1


def changed(base: Scaling, settings: Mapping[str, int]) -> Scaling:
    """Return the settings with some of them changed.

    Raises:
        InvalidArgument: one is unknown or out of range.
    """
    unknown = sorted(set(settings) - _SETTINGS)
    if unknown:
        known = ", ".join(sorted(_SETTINGS))
        raise InvalidArgument("settings", f"{unknown[0]} is not a setting that can be tried: use one of {known}")
    values: dict[str, int | None] = dict(settings)
    if values.get("request_start_timeout") == 0:
        values["request_start_timeout"] = None
    least = values.get("min_concurrency")
    if least is not None and "max_concurrency" not in values:
        values["max_concurrency"] = max(least, base.max_concurrency)
    return replace(base, **values)  # type: ignore[arg-type]  # __post_init__ checks the values

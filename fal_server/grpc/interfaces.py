"""What the handlers call: the services behind them, as Protocols, and the set of them that a server is made with."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from fal_server.core.apps import App, AuthMode, Strategy
from fal_server.core.identity import Principal
from fal_server.core.logs import LogEntry
from fal_server.core.scaling import Scaling
from fal_server.core.simulation import Arrival, SimulationResult
from fal_server.live.runner_view import RunnerView
from fal_server.ports import ExecRequest, ExecSession
from fal_server.services.environments import Environments
from fal_server.services.execs import Execs
from fal_server.services.explain import Explanation
from fal_server.services.keys import Keys
from fal_server.services.logs import Logs
from fal_server.services.secrets import Secrets
from fal_server.services.views import (
    AppView,
    Built,
    CodeRequest,
    Deployed,
    DeployRequest,
    RevisionView,
    RunEnded,
    RunStarted,
)


class Authenticator(Protocol):
    """Who is calling."""

    async def authenticate(self, key_id: str, secret: str) -> Principal:
        """Who holds this key.

        Raises:
            Unauthenticated: nobody does.
        """
        ...


class Apps(Protocol):
    """The use cases of apps."""

    async def list(self, environment: str | None) -> Sequence[AppView]:
        """The apps of an environment, by name."""
        ...

    async def set_revision(
        self, name: str, environment: str, revision_id: str, *, auth_mode: AuthMode | None, strategy: Strategy | None
    ) -> AppView:
        """Move an app to a revision."""
        ...

    async def update(self, name: str, environment: str, changes: Mapping[str, int | tuple[str, ...]]) -> AppView:
        """Change scaling settings, by the field names of core.scaling.Scaling."""
        ...

    async def rollout(self, name: str, environment: str, *, force: bool) -> None:
        """Replace an app's runners."""
        ...

    async def delete(self, name: str, environment: str) -> App:
        """Delete an app; what it was."""
        ...


class Explainer(Protocol):
    """The use cases of looking into scaling."""

    async def explain(self, name: str, environment: str) -> Explanation:
        """Why an app has the runners that it has."""
        ...

    async def simulate(
        self,
        name: str,
        environment: str,
        settings: Mapping[str, int],
        arrivals: Sequence[Arrival],
        start_seconds: float,
    ) -> tuple[Scaling, SimulationResult]:
        """Play requests through the rules; the settings that held, and what would have been."""
        ...


class Revisions(Protocol):
    """The use cases of revisions."""

    async def list(self, app_name: str | None, environment: str | None) -> Sequence[RevisionView]:
        """Revisions, newest first."""
        ...

    async def delete(self, revision_id: str) -> None:
        """Delete a revision."""
        ...


class Deploys(Protocol):
    """Building environments and deploying."""

    def build(self, code: CodeRequest) -> AsyncIterator[LogEntry | Built]:
        """Build; its log, and at last what was built."""
        ...

    def deploy(self, request: DeployRequest) -> AsyncIterator[LogEntry | Deployed]:
        """Deploy; its log, and at last what is there now."""
        ...


class Runs(Protocol):
    """Ephemeral runs."""

    def run(self, code: CodeRequest) -> AsyncIterator[LogEntry | RunStarted | RunEnded]:
        """Run; closing the iterator ends the run."""
        ...


class Runners(Protocol):
    """The use cases of runners."""

    async def list(self, *, since: datetime | None, include_pending: bool) -> Sequence[RunnerView]:
        """All runners."""
        ...

    async def list_for_app(
        self, name: str, environment: str, *, since: datetime | None, include_pending: bool
    ) -> Sequence[RunnerView]:
        """The runners of one app."""
        ...

    async def get(self, runner_id: str) -> RunnerView:
        """One runner."""
        ...

    async def stop(self, runner_id: str, *, replace_first: bool, grace_seconds: int | None = None) -> None:
        """Stop a runner in order."""
        ...

    async def kill(self, runner_id: str) -> None:
        """Kill a runner at once."""
        ...

    async def exec(self, runner_id: str, request: ExecRequest) -> ExecSession:
        """Run a command beside a runner's worker."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """All that the handlers call."""

    access: Authenticator
    apps: Apps
    insight: Explainer
    revisions: Revisions
    deploys: Deploys
    runs: Runs
    runners: Runners
    execs: Execs
    keys: Keys
    secrets: Secrets
    environments: Environments
    logs: Logs

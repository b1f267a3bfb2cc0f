"""What services take and give: the values that the gRPC and HTTP faces convert to and from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from fal_server.core.apps import App, AuthMode, Strategy
from fal_server.core.history import StartPhases, StateChange
from fal_server.core.revisions import AppFile, EnvironmentSpec, HealthCheck, Json, Revision
from fal_server.core.runners import Runner, RunnerState
from fal_server.ports import RunResult


@dataclass(frozen=True, slots=True, kw_only=True)
class AppView:
    """An app with what is true of it now."""

    app: App
    active_runners: int
    is_rolling: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RevisionView:
    """A revision, the settings in force for it, and how many runners run it."""

    revision: Revision
    active_runners: int


class Leased(Protocol):
    """A request on a runner; by its identity it is known again."""

    @property
    def request_id(self) -> str:
        """Shown beside the runner."""
        ...

    @property
    def caller(self) -> str | None:
        """The key that called; None for a public call."""
        ...

    @property
    def sent_at(self) -> datetime:
        """When the place was given."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestLease:
    """A request that a runner is working on."""

    request_id: str
    caller: str | None
    started_at: datetime

    @classmethod
    def of(cls, leased: Leased) -> RequestLease:
        """What is shown of a request on a runner."""
        return cls(request_id=leased.request_id, caller=leased.caller, started_at=leased.sent_at)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerView:
    """A runner with what is true of it now.

    Attributes:
        state: as shown: IDLE with requests in flight is RUNNING.
        expires_in_seconds: until its keep_alive is over; None while it works or is held by a floor.
        uptime_seconds: since its start, up to its end.
        history: what it went through, in order; empty in lists.
        phases: how long each part of its start took; None in lists.
    """

    runner: Runner
    state: RunnerState
    in_flight: int
    expires_in_seconds: int | None
    uptime_seconds: float
    leases: tuple[RequestLease, ...] = ()
    history: tuple[StateChange, ...] = ()
    phases: StartPhases | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeRequest:
    """What to run and what it needs: the part that a deploy, a build and an ephemeral run share.

    Attributes:
        function: (method, pickled bytes); exactly one of `function` and `entrypoint` is set, or neither for a build.
        scaling: only the settings that the request set, by the field names of core.scaling.Scaling.
    """

    environments: tuple[EnvironmentSpec, ...]
    force_build: bool = False
    function: tuple[str, bytes] | None = field(default=None, repr=False)
    entrypoint: str | None = None
    setup: tuple[str, bytes] | None = field(default=None, repr=False)
    run_on_main_thread: bool = False
    application_name: str = ""
    environment_name: str = ""
    auth_mode: AuthMode | None = None
    scaling: Mapping[str, int | tuple[str, ...]] = field(default_factory=dict[str, "int | tuple[str, ...]"])
    exposed_port: int | None = None
    metrics_port: int | None = None
    num_gpus: int | None = None
    files: tuple[AppFile, ...] = ()
    secret_names: tuple[str, ...] | None = None
    health_check: HealthCheck | None = None
    termination_grace_seconds: int | None = None
    private_logs: bool = False
    build_environment: bool = True
    env_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeployRequest:
    """A deploy: code, and how the app moves to it."""

    code: CodeRequest
    strategy: Strategy = Strategy.ROLLING
    reset_scale: bool = False
    metadata: Mapping[str, Json] = field(default_factory=dict[str, Json])
    source_code: str | None = field(default=None, repr=False)
    retry_config: str | None = None
    skip_retry_conditions: tuple[str, ...] = ()
    attach: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Urls:
    """Where an app answers; the caller appends a route's path to playground, run and queue."""

    playground: str
    run: str
    queue: str
    ws: str
    log: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """The end of a build."""

    env_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployed:
    """The end of a deploy."""

    app: App
    revision_id: str
    urls: Urls
    env_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStarted:
    """An ephemeral app has its runner; it ends when the caller hangs up."""

    run_id: str
    urls: Urls
    env_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEnded:
    """The end of an ephemeral run: its result, or None with the reason why there is none."""

    run_id: str
    result: RunResult | None
    reason: str = ""

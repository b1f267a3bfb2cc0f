"""The services' parameters and results, which the gRPC and HTTP interfaces convert."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fal_server.core.apps import App, AuthMode, Strategy
from fal_server.core.autoscale import Load
from fal_server.core.failures import NO_FAILURES, Failures
from fal_server.core.revisions import AppFile, EnvironmentSpec, HealthCheck, Json, Revision, check_limits
from fal_server.ports import RunResult


@dataclass(frozen=True, slots=True, kw_only=True)
class AppView:
    """An app with its current state.

    Attributes:
        load: its current load; None if it is unknown here.
        failures: the number of consecutive failed starts of its revision.
    """

    app: App
    active_runners: int
    is_rolling: bool
    load: Load | None = None
    failures: Failures = NO_FAILURES


@dataclass(frozen=True, slots=True, kw_only=True)
class RevisionView:
    """A revision, its runner count, and whether its app is on it."""

    revision: Revision
    active_runners: int
    current: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeRequest:
    """The code to run and its requirements for deploys, builds and runs.

    Attributes:
        function: (method, pickled bytes); exactly one of `function` and `entrypoint` is set, or neither for a build.
        scaling: only the settings that the request set, by the field names of core.scaling.Scaling.

    Raises:
        InvalidArgument: a number is out of range, so that nothing is built that cannot be deployed.
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

    def __post_init__(self) -> None:
        check_limits(
            exposed_port=self.exposed_port,
            metrics_port=self.metrics_port,
            num_gpus=self.num_gpus,
            termination_grace_seconds=self.termination_grace_seconds,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class DeployRequest:
    """A deploy: code, and how the app moves to it.

    Attributes:
        revision_id: chosen by the client, so that it can repeat the deploy; None lets the controller choose.
    """

    code: CodeRequest
    strategy: Strategy = Strategy.ROLLING
    reset_scale: bool = False
    metadata: Mapping[str, Json] = field(default_factory=dict[str, Json])
    source_code: str | None = field(default=None, repr=False)
    retry_config: str | None = None
    skip_retry_conditions: tuple[str, ...] = ()
    attach: bool | None = None
    revision_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Urls:
    """The URLs of an app. The caller appends a route's path to playground, run and queue."""

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
class Registered:
    """The revision is stored and its app moves to it. The caller may or may not wait.

    Attributes:
        previous_id: the app's previous revision; None for a new app.
    """

    app_name: str
    revision_id: str
    previous_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployed:
    """The end of a deploy."""

    app: App
    revision_id: str
    urls: Urls
    env_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStarted:
    """An ephemeral app has its runner; both end when the caller disconnects."""

    run_id: str
    urls: Urls
    env_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEnded:
    """The end of an ephemeral run: its result, or the reason."""

    run_id: str
    result: RunResult | None
    reason: str = ""

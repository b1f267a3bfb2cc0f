"""Revisions: the messages of deploys, and builds of environments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING

from fal_grpc.adapter.app import AuthMode, DeploymentStrategy, app_name
from fal_grpc.adapter.log import Log, logs
from fal_grpc.adapter.run import (
    EnvironmentSpec,
    FileRef,
    HealthCheckConfig,
    HealthCheckMethod,
    MachineRequirements,
    RunState,
    SerializedCallable,
    ServiceURLs,
    check_callable,
    environment_definition,
    file,
    health_check,
    machine_requirements,
    run_state,
    serialized,
    service_urls,
)
from fal_grpc.adapter.values import environment, text, to_datetime, to_struct
from fal_grpc.errors import ArgumentError

if TYPE_CHECKING:
    from fal_grpc.v1 import revision_pb2

__all__ = [
    "ApplicationInfo",
    "AuthMode",
    "BuildRequest",
    "BuildResult",
    "DeploymentStrategy",
    "EnvironmentSpec",
    "FileRef",
    "HealthCheckConfig",
    "HealthCheckMethod",
    "MachineRequirements",
    "RegisterRequest",
    "RegisterResult",
    "RetryCondition",
    "SerializedCallable",
    "application_infos",
    "build_request",
    "build_result",
    "delete_request",
    "list_request",
    "register_request",
    "register_result",
]


class RetryCondition(StrEnum):
    """A kind of failure after which a queued request is retried."""

    TIMEOUT = "timeout"
    CLIENT_ERROR = "client_error"
    SERVER_ERROR = "server_error"
    CONNECTION_ERROR = "connection_error"


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildRequest:
    """An environment to build. Only types, image, scheduler and regions of `machine` are sent.

    Attributes:
        secrets: names of secrets that the build gets; None means none.
    """

    environments: tuple[EnvironmentSpec, ...]
    machine: MachineRequirements | None = None
    files: tuple[FileRef, ...] = ()
    environment_name: str | None = None
    application_name: str | None = None
    secrets: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildResult:
    """A message of a build. It has new log lines; the last one has the outcome (`state` is None before).

    Attributes:
        callable_methods: how the controller's runners load callables, besides pickles; only in the last message.
    """

    env_id: str
    state: RunState | None
    logs: tuple[Log, ...]
    callable_methods: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisterRequest:
    """A deploy. At most one of `function` and `entrypoint` is given; a bare image has neither.

    Attributes:
        entrypoint: an import path of the form "module:attribute".
        setup_func: called first; its result becomes the callable's first argument.
        application_name: the app to move to the new revision; None only registers the revision.
        auth_mode: who may call the app; None leaves it unchanged.
        metadata: JSON-like: `openapi`, `message`, `annotations` and more.
        scale: apply the scaling settings of `machine` even if the app has its own.
        source_code: shown to people.
        secrets: names of the secrets that it gets; None means those exposed by default.
        build_environment: False means that the environment is already built; None means True.
        env_id: an environment's id from a build.
        retry_config: how often and after which failures queued requests are retried, as JSON.
        attach_to_deployment: whether the call lasts until the app has moved to the revision.
        revision_id: a UUID for the new revision, which makes the deploy repeatable; None lets the controller choose.
    """

    environments: tuple[EnvironmentSpec, ...]
    machine: MachineRequirements
    function: SerializedCallable | None = None
    entrypoint: str | None = None
    setup_func: SerializedCallable | None = None
    application_name: str | None = None
    auth_mode: AuthMode | None = None
    metadata: Mapping[str, object] = field(default_factory=dict)
    deployment_strategy: DeploymentStrategy = DeploymentStrategy.ROLLING
    scale: bool = False
    private_logs: bool | None = None
    files: tuple[FileRef, ...] = ()
    source_code: str | None = field(default=None, repr=False)
    environment_name: str | None = None
    health_check: HealthCheckConfig | None = None
    skip_retry_conditions: tuple[RetryCondition, ...] = ()
    termination_grace_period_seconds: int | None = None
    data_mounts: tuple[str, ...] = ()
    secrets: tuple[str, ...] | None = None
    run_on_main_thread: bool | None = None
    build_environment: bool | None = None
    env_id: str | None = None
    retry_config: str | None = None
    attach_to_deployment: bool | None = None
    revision_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedChange:
    """One change that a deploy would make, as texts for people.

    Attributes:
        name: the option; "code" and "files" for these.
        current, planned: the value before and after; empty if it is not set.
    """

    name: str
    current: str
    planned: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeployPlan:
    """The effects of a deploy.

    Attributes:
        app_name: the app, with its environment's suffix.
        current_id: the app's current revision; None for a new app.
        changes: the differences; for a new app, all settings.
        env_id: the environment that the code would run in.
        environment_built: whether that environment is already built.
        steps: the controller's steps after the deploy, in order.
        problems: why the deploy, or its runners, would fail.
        kept: which settings of the app stay though the code names others, and what takes those; empty if there are
            none.
    """

    app_name: str
    current_id: str | None
    changes: tuple[PlannedChange, ...]
    env_id: str
    environment_built: bool
    steps: tuple[str, ...]
    problems: tuple[str, ...]
    kept: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisteredRevision:
    """A stored revision: its deploy continues even if this client disconnects.

    Attributes:
        application_id: the revision.
        app_name: the app, with its environment's suffix.
        previous_id: the app's previous revision; None for a new app.
    """

    application_id: str
    app_name: str
    previous_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisterResult:
    """A message of a deploy. It has new log lines; the last one has the revision and the app's addresses.

    Attributes:
        registered: in one message, once the revision is stored; None from controllers that do not say.
    """

    logs: tuple[Log, ...]
    application_id: str | None
    service_urls: ServiceURLs | None
    env_id: str | None
    registered: RegisteredRevision | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplicationInfo:
    """A revision. Durations are in seconds; a published field that the controller omits is 0 or empty.

    Attributes:
        app_name: the app, with its environment's suffix. This and the following fields are None or empty if the
            controller does not send them.
        current: whether the app is on this revision now.
        message: the note that it was deployed with.
        annotations: the named notes that it was deployed with.
    """

    application_id: str
    keep_alive: int
    max_concurrency: int
    max_multiplexing: int
    active_runners: int
    min_concurrency: int
    concurrency_buffer: int
    concurrency_buffer_perc: int
    scaling_delay: int
    machine_types: list[str]
    request_timeout: int
    startup_timeout: int
    valid_regions: list[str]
    created_at: datetime
    environment_name: str | None
    request_start_timeout: int | None = None
    app_name: str | None = None
    current: bool | None = None
    message: str | None = None
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)


def build_request(request: BuildRequest) -> revision_pb2.BuildEnvironmentRequest:
    """Return a build as a message.

    Raises:
        ArgumentError: there is no environment, or a configuration cannot be JSON.
    """
    from fal_grpc.v1 import revision_pb2, run_pb2

    if not request.environments:
        raise ArgumentError("environments", "must have at least one entry")
    machine = request.machine
    return revision_pb2.BuildEnvironmentRequest(
        environments=[environment_definition(spec) for spec in request.environments],
        machine_requirements=None if machine is None else machine_requirements(machine, build_only=True),
        files=[file(ref) for ref in request.files],
        environment_name=environment(request.environment_name),
        application_name=request.application_name,
        secrets=None if request.secrets is None else run_pb2.SecretsConfig(names=request.secrets),
    )


def build_result(message: revision_pb2.BuildEnvironmentResult) -> BuildResult:
    return BuildResult(
        env_id=message.env_id,
        state=run_state(message.status) if message.HasField("status") else None,
        logs=logs(message.logs),
        callable_methods=tuple(message.callable_methods),
    )


def register_request(request: RegisterRequest) -> revision_pb2.RegisterApplicationRequest:
    """Return a deploy as a message. Like the published client, it always sets the strategy and `scale`.

    Raises:
        ArgumentError: both a function and an entrypoint are given, or a structure cannot be JSON.
    """
    from fal_grpc.v1 import revision_pb2, run_pb2

    check_callable(request.function, request.entrypoint)
    message = revision_pb2.RegisterApplicationRequest(
        environments=[environment_definition(spec) for spec in request.environments],
        machine_requirements=machine_requirements(request.machine),
        function=serialized(request.function),
        setup_func=serialized(request.setup_func),
        application_name=request.application_name,
        auth_mode=None if request.auth_mode is None else request.auth_mode.number,
        metadata=to_struct(request.metadata, argument="metadata") if request.metadata else None,
        deployment_strategy=request.deployment_strategy.number,
        scale=request.scale,
        private_logs=request.private_logs,
        files=[file(ref) for ref in request.files],
        source_code=request.source_code,
        environment_name=environment(request.environment_name),
        health_check_config=None if request.health_check is None else health_check(request.health_check),
        skip_retry_conditions=[
            revision_pb2.RetryCondition.Value(condition.name) for condition in request.skip_retry_conditions
        ],
        termination_grace_period_seconds=request.termination_grace_period_seconds,
        data_mounts=request.data_mounts,
        secrets=None if request.secrets is None else run_pb2.SecretsConfig(names=request.secrets),
        run_on_main_thread=request.run_on_main_thread,
        build_environment=request.build_environment,
        env_id=request.env_id,
        retry_config=request.retry_config,
        attach_to_deployment=request.attach_to_deployment,
        revision_id=request.revision_id,
    )
    if request.entrypoint is not None:
        message.entrypoint = request.entrypoint
    return message


def register_result(message: revision_pb2.RegisterApplicationResult) -> RegisterResult:
    return RegisterResult(
        logs=logs(message.logs),
        application_id=message.result.application_id if message.HasField("result") else None,
        service_urls=service_urls(message.service_urls) if message.HasField("service_urls") else None,
        env_id=message.env_id if message.HasField("env_id") else None,
        registered=_registered(message.registered) if message.HasField("registered") else None,
    )


def plan_request(request: RegisterRequest) -> revision_pb2.PlanApplicationRequest:
    """Return a request for the effects of a deploy.

    Raises:
        ArgumentError: see `register_request`.
    """
    from fal_grpc.v1 import revision_pb2

    return revision_pb2.PlanApplicationRequest(application=register_request(request))


def deploy_plan(message: revision_pb2.PlanApplicationResponse) -> DeployPlan:
    return DeployPlan(
        app_name=message.application_name,
        current_id=message.current_id if message.HasField("current_id") else None,
        changes=tuple(
            PlannedChange(name=change.name, current=change.current, planned=change.planned)
            for change in message.changes
        ),
        env_id=message.env_id,
        environment_built=message.environment_built,
        steps=tuple(message.steps),
        problems=tuple(message.problems),
        kept=message.kept_settings,
    )


def _registered(message: revision_pb2.RegisteredRevision) -> RegisteredRevision:
    return RegisteredRevision(
        application_id=message.application_id,
        app_name=message.application_name,
        previous_id=message.previous_id if message.HasField("previous_id") else None,
    )


def list_request(
    *, application_name: str | None = None, environment_name: str | None = None
) -> revision_pb2.ListApplicationsRequest:
    from fal_grpc.v1 import revision_pb2

    return revision_pb2.ListApplicationsRequest(
        application_name=None if application_name is None else app_name(application_name, environment_name),
        environment_name=environment(environment_name),
    )


def application_infos(message: revision_pb2.ListApplicationsResult) -> list[ApplicationInfo]:
    return [application_info(item) for item in message.applications]


def application_info(message: revision_pb2.ApplicationInfo) -> ApplicationInfo:
    return ApplicationInfo(
        application_id=message.application_id,
        keep_alive=message.keep_alive,
        max_concurrency=message.max_concurrency,
        max_multiplexing=message.max_multiplexing,
        active_runners=message.active_runners,
        min_concurrency=message.min_concurrency,
        concurrency_buffer=message.concurrency_buffer,
        concurrency_buffer_perc=message.concurrency_buffer_perc,
        scaling_delay=message.scaling_delay_seconds,
        machine_types=list(message.machine_types),
        request_timeout=message.request_timeout,
        startup_timeout=message.startup_timeout,
        valid_regions=list(message.valid_regions),
        created_at=to_datetime(message.created_at),
        environment_name=message.environment_name if message.HasField("environment_name") else None,
        request_start_timeout=message.request_start_timeout if message.HasField("request_start_timeout") else None,
        app_name=message.application_name if message.HasField("application_name") else None,
        current=message.current if message.HasField("current") else None,
        message=message.message if message.HasField("message") else None,
        annotations={annotation.name: annotation.value for annotation in message.annotations},
    )


def delete_request(application_id: str) -> revision_pb2.DeleteApplicationRequest:
    """Return a request to delete a revision.

    Raises:
        ArgumentError: the id is empty.
    """
    from fal_grpc.v1 import revision_pb2

    text("application_id", application_id, "must be an id that is not empty; `fal apps list-rev` lists the revisions")
    return revision_pb2.DeleteApplicationRequest(application_id=application_id)

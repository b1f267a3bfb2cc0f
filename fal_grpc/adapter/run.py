"""Code to run, its environment and machine, and a run's messages. Builds and deploys share them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from fal_grpc.adapter.app import AuthMode
from fal_grpc.adapter.log import Log, logs
from fal_grpc.adapter.values import environment, to_struct
from fal_grpc.errors import ArgumentError, FalError

if TYPE_CHECKING:
    from fal_grpc.v1 import run_pb2


@dataclass(frozen=True, slots=True, kw_only=True)
class SerializedCallable:
    """A callable as bytes.

    Attributes:
        definition: the bytes.
        method: the module whose `loads` reads the bytes.
    """

    definition: bytes = field(repr=False)
    method: str = "cloudpickle"


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvironmentSpec:
    """The packages that code runs with.

    Attributes:
        kind: "virtualenv", "container" or another kind that the controller builds.
        configuration: its JSON-like contents; a virtualenv has `python_version` and `requirements`. Not in repr,
        because
            an image's configuration can hold passwords.
        force: build it again even if the same one is already built.
    """

    kind: str
    configuration: Mapping[str, object] = field(repr=False)
    force: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineRequirements:
    """The machine that a runner needs, and how its app scales. None leaves the choice to the controller.

    Attributes:
        machine_types: acceptable types, the preferred one first.
        keep_alive, scaling_delay, request_timeout, request_start_timeout, startup_timeout: seconds.
        exposed_port: the port that the app listens on; None for code that only returns a result.
        metrics_port: the port of its metrics.
        concurrency_buffer_perc: a percentage of the runners that the load needs.
    """

    machine_types: tuple[str, ...] = ()
    num_gpus: int | None = None
    base_image: str | None = None
    exposed_port: int | None = None
    metrics_port: int | None = None
    scheduler: str | None = None
    scheduler_options: Mapping[str, object] | None = None
    keep_alive: int | None = None
    max_concurrency: int | None = None
    min_concurrency: int | None = None
    max_multiplexing: int | None = None
    concurrency_buffer: int | None = None
    concurrency_buffer_perc: int | None = None
    scaling_delay: int | None = None
    request_timeout: int | None = None
    request_start_timeout: int | None = None
    startup_timeout: int | None = None
    valid_regions: tuple[str, ...] = ()


class HealthCheckMethod(StrEnum):
    """The HTTP method of a health check."""

    GET = "GET"
    POST = "POST"


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthCheckConfig:
    """How to check whether a runner is healthy.

    Attributes:
        path: the path to call; 2xx means healthy.
        start_period_seconds: how long after the start failed checks do not count.
        timeout_seconds: how long a check may take.
        failure_threshold: how many consecutive checks must fail.
        call_regularly: check periodically; if False, only when a response asks for it.
        allow_on_busy: skip the check while requests are in flight.
    """

    path: str
    start_period_seconds: int | None = None
    timeout_seconds: int | None = None
    failure_threshold: int | None = None
    call_regularly: bool | None = None
    allow_on_busy: bool | None = None
    method: HealthCheckMethod | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRef:
    """A file that was uploaded before.

    Attributes:
        hash: SHA-256, in hexadecimal, of the content followed by the decimal digits of the file's mode.
        relative_path: its path in the app's directory.
    """

    hash: str
    relative_path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """A callable to run once, without deploying it. Exactly one of `function` and `entrypoint` is given.

    Attributes:
        entrypoint: an import path of the form "module:attribute".
        setup_func: called first; its result becomes the callable's first argument.
        secrets: names of the secrets that it gets; None means those exposed by default.
        build_environment: False means that the environment is already built; None means True.
        env_id: an environment's id from a build.
    """

    environments: tuple[EnvironmentSpec, ...]
    machine: MachineRequirements
    function: SerializedCallable | None = None
    entrypoint: str | None = None
    setup_func: SerializedCallable | None = None
    files: tuple[FileRef, ...] = ()
    environment_name: str | None = None
    application_name: str | None = None
    auth_mode: AuthMode | None = None
    data_mounts: tuple[str, ...] = ()
    secrets: tuple[str, ...] | None = None
    run_on_main_thread: bool | None = None
    build_environment: bool | None = None
    env_id: str | None = None
    health_check: HealthCheckConfig | None = None


class RunState(StrEnum):
    """The state of a run or a build."""

    IN_PROGRESS = "IN_PROGRESS"
    SUCCESS = "SUCCESS"
    INTERNAL_FAILURE = "INTERNAL_FAILURE"
    UNKNOWN = "UNKNOWN"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceURLs:
    """The addresses of an app. They are a page to try it, direct and queued calls, WebSockets, and a page with logs."""

    playground: str
    run: str
    queue: str
    ws: str
    log: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReturnValue:
    """The serialized result or exception of a callable. It stays so: reading a pickle can run the sender's code.

    Attributes:
        method: the module whose `loads` reads the bytes.
        was_it_raised: whether it is an exception.
        traceback, exception_type_name, exception_message: the exception as text.
    """

    method: str
    definition: bytes = field(repr=False)
    was_it_raised: bool = False
    traceback: str | None = None
    exception_type_name: str | None = None
    exception_message: str | None = None

    def load(self, *, allow_pickle: bool = False) -> object:
        """Return the object.

        Args:
            allow_pickle: also read pickles; only for trusted controllers, since they decide which code runs here.

        Raises:
            FalError: it is neither JSON nor an allowed pickle.
        """
        if self.method == "json":
            return json.loads(self.definition)
        if self.method in ("pickle", "cloudpickle", "dill") and allow_pickle:
            import importlib

            loaded: object = importlib.import_module(self.method).loads(self.definition)
            return loaded
        raise FalError(
            f"The result came as {self.method!r}, which is not read by default, since that can run the sender's code. "
            "Return JSON, or allow pickles if you trust this controller."
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """A message of a run. It has new log lines; the last one has the return value."""

    run_id: str
    state: RunState
    logs: tuple[Log, ...]
    return_value: ReturnValue | None
    service_urls: ServiceURLs | None
    env_id: str | None


_STATES: Mapping[int, RunState] = {0: RunState.IN_PROGRESS, 1: RunState.SUCCESS, 2: RunState.INTERNAL_FAILURE}


def run_state(message: run_pb2.HostedRunStatus) -> RunState:
    return _STATES.get(message.state, RunState.UNKNOWN)


def service_urls(message: run_pb2.ServiceURLs) -> ServiceURLs:
    return ServiceURLs(
        playground=message.playground, run=message.run, queue=message.queue, ws=message.ws, log=message.log
    )


def return_value(message: run_pb2.SerializedObject) -> ReturnValue:
    return ReturnValue(
        method=message.method,
        definition=message.definition,
        was_it_raised=message.was_it_raised,
        traceback=message.stringized_traceback if message.HasField("stringized_traceback") else None,
        exception_type_name=message.exception_type_name if message.HasField("exception_type_name") else None,
        exception_message=message.exception_message if message.HasField("exception_message") else None,
    )


def run_result(message: run_pb2.HostedRunResult) -> RunResult:
    """Return a message of a run. One without a status is in progress."""
    return RunResult(
        run_id=message.run_id,
        state=run_state(message.status) if message.HasField("status") else RunState.IN_PROGRESS,
        logs=logs(message.logs),
        return_value=return_value(message.return_value) if message.HasField("return_value") else None,
        service_urls=service_urls(message.service_urls) if message.HasField("service_urls") else None,
        env_id=message.env_id if message.HasField("env_id") else None,
    )


def run_request(request: RunRequest) -> run_pb2.HostedRun:
    """Return a run as a message.

    Raises:
        ArgumentError: not exactly one of function and entrypoint is given, or a configuration cannot be JSON.
    """
    from fal_grpc.v1 import run_pb2

    check_callable(request.function, request.entrypoint)
    message = run_pb2.HostedRun(
        environments=[environment_definition(spec) for spec in request.environments],
        machine_requirements=machine_requirements(request.machine),
        function=serialized(request.function),
        setup_func=serialized(request.setup_func),
        files=[file(ref) for ref in request.files],
        environment_name=environment(request.environment_name),
        application_name=request.application_name,
        auth_mode=None if request.auth_mode is None else request.auth_mode.number,
        data_mounts=request.data_mounts,
        secrets=None if request.secrets is None else run_pb2.SecretsConfig(names=request.secrets),
        run_on_main_thread=request.run_on_main_thread,
        build_environment=request.build_environment,
        env_id=request.env_id,
        health_check_config=None if request.health_check is None else health_check(request.health_check),
    )
    if request.entrypoint is not None:
        message.entrypoint = request.entrypoint
    return message


def check_callable(function: SerializedCallable | None, entrypoint: str | None) -> None:
    """Raise ArgumentError if both are given. They share one field on the wire."""
    if function is not None and entrypoint is not None:
        raise ArgumentError("entrypoint", "cannot be given together with a function")
    if entrypoint is not None and ":" not in entrypoint:
        raise ArgumentError("entrypoint", f"must have the form 'module:attribute', not {entrypoint!r}")


def serialized(call: SerializedCallable | None) -> run_pb2.SerializedObject | None:
    from fal_grpc.v1 import run_pb2

    return None if call is None else run_pb2.SerializedObject(method=call.method, definition=call.definition)


def file(ref: FileRef) -> run_pb2.File:
    from fal_grpc.v1 import run_pb2

    return run_pb2.File(hash=ref.hash, relative_path=ref.relative_path)


def environment_definition(spec: EnvironmentSpec) -> run_pb2.EnvironmentDefinition:
    from fal_grpc.v1 import run_pb2

    configuration = to_struct(spec.configuration, argument="configuration")
    return run_pb2.EnvironmentDefinition(kind=spec.kind, configuration=configuration, force=spec.force)


def machine_requirements(machine: MachineRequirements, *, build_only: bool = False) -> run_pb2.MachineRequirements:
    """Return a machine as a message.

    Args:
        machine: the machine.
        build_only: omit fields that do not affect a build, so that scaling settings never change its key.
    """
    from fal_grpc.v1 import run_pb2

    message = run_pb2.MachineRequirements(
        machine_type=machine.machine_types[0] if machine.machine_types else None,
        machine_types=machine.machine_types,
        num_gpus=machine.num_gpus,
        base_image=machine.base_image,
        scheduler=machine.scheduler,
        scheduler_options=(
            None
            if machine.scheduler_options is None
            else to_struct(machine.scheduler_options, argument="scheduler_options")
        ),
        valid_regions=machine.valid_regions,
    )
    if not build_only:
        scaling = run_pb2.MachineRequirements(
            keep_alive=machine.keep_alive,
            exposed_port=machine.exposed_port,
            metrics_port=machine.metrics_port,
            max_concurrency=machine.max_concurrency,
            min_concurrency=machine.min_concurrency,
            max_multiplexing=machine.max_multiplexing,
            concurrency_buffer=machine.concurrency_buffer,
            concurrency_buffer_perc=machine.concurrency_buffer_perc,
            scaling_delay_seconds=machine.scaling_delay,
            request_timeout=machine.request_timeout,
            request_start_timeout=machine.request_start_timeout,
            startup_timeout=machine.startup_timeout,
        )
        message.MergeFrom(scaling)
    return message


def health_check(config: HealthCheckConfig) -> run_pb2.ApplicationHealthCheckConfig:
    from fal_grpc.v1 import run_pb2

    return run_pb2.ApplicationHealthCheckConfig(
        path=config.path,
        start_period_seconds=config.start_period_seconds,
        timeout_seconds=config.timeout_seconds,
        failure_threshold=config.failure_threshold,
        call_regularly=config.call_regularly,
        allow_on_busy=config.allow_on_busy,
        method=(
            None if config.method is None else run_pb2.ApplicationHealthCheckConfig.Method.Value(config.method.name)
        ),
    )

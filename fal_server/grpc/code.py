"""Conversions of the requests that carry code: deploy, build and run."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import PurePosixPath
from typing import TypeAlias

from fal_grpc.v1 import revision_pb2, run_pb2
from fal_server.core.apps import Strategy
from fal_server.core.faults import InvalidArgument, Unimplemented
from fal_server.core.json_reader import read_json
from fal_server.core.revisions import AppFile, EnvironmentSpec, HealthCheck, HealthMethod
from fal_server.grpc.apps import AUTH_MODES, STRATEGIES, numbers_set
from fal_server.grpc.convert import free_form, named
from fal_server.services.views import CodeRequest, DeployRequest

Code: TypeAlias = "run_pb2.HostedRun | revision_pb2.RegisterApplicationRequest"

_METHODS: dict[int, HealthMethod] = {
    run_pb2.ApplicationHealthCheckConfig.GET: HealthMethod.GET,
    run_pb2.ApplicationHealthCheckConfig.POST: HealthMethod.POST,
}
_RETRY_CONDITIONS: dict[int, str] = {
    revision_pb2.TIMEOUT: "timeout",
    revision_pb2.CLIENT_ERROR: "client_error",
    revision_pb2.SERVER_ERROR: "server_error",
    revision_pb2.CONNECTION_ERROR: "connection_error",
}
_MODULE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)
_ENTRYPOINT = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MOST_PORT = 65_535


def build_request(request: revision_pb2.BuildEnvironmentRequest) -> CodeRequest:
    """Return what to build.

    Raises:
        InvalidArgument: there is no environment, or a field is malformed.
    """
    if not request.environments:
        raise InvalidArgument("environments", "environments is empty: describe the environment to build")
    return CodeRequest(
        environments=_environments(request.environments),
        force_build=any(environment.force for environment in request.environments),
        application_name=request.application_name,
        environment_name=request.environment_name,
        scaling=_scaling(request.machine_requirements),
        num_gpus=_num_gpus(request.machine_requirements),
        files=_files(request.files),
        secret_names=tuple(request.secrets.names) if request.HasField("secrets") else None,
    )


def run_request(request: Code) -> CodeRequest:
    """Return what to run, and what it needs.

    Raises:
        InvalidArgument: there is no callable, or a field is malformed.
        Unimplemented: it asks for volumes.
    """
    _check_callable(request)
    if request.volumes:
        raise Unimplemented(
            "volumes are not attached by this controller: leave `volumes` out, or use files and secrets"
        )
    machine = request.machine_requirements
    setup = _serialised(request.setup_func, "setup_func") if request.HasField("setup_func") else None
    return CodeRequest(
        environments=_environments(request.environments),
        force_build=any(environment.force for environment in request.environments),
        function=_serialised(request.function, "function") if request.HasField("function") else None,
        entrypoint=request.entrypoint if request.HasField("entrypoint") else None,
        setup=setup,
        run_on_main_thread=request.run_on_main_thread,
        application_name=request.application_name,
        environment_name=request.environment_name,
        auth_mode=named(request.auth_mode, AUTH_MODES, "auth_mode") if request.HasField("auth_mode") else None,
        scaling=_scaling(machine),
        exposed_port=_port(machine.exposed_port, "exposed_port") if machine.HasField("exposed_port") else None,
        metrics_port=_port(machine.metrics_port, "metrics_port") if machine.HasField("metrics_port") else None,
        num_gpus=_num_gpus(machine),
        files=_files(request.files),
        secret_names=tuple(request.secrets.names) if request.HasField("secrets") else None,
        health_check=_health_check(request.health_check_config) if request.HasField("health_check_config") else None,
        build_environment=request.build_environment if request.HasField("build_environment") else True,
        env_id=_env_id(request.env_id) if request.HasField("env_id") else None,
    )


def deploy_request(request: revision_pb2.RegisterApplicationRequest) -> DeployRequest:
    """Return what to deploy, and how.

    Raises:
        InvalidArgument: there is no callable, or a field is malformed.
        Unimplemented: it asks for volumes.
    """
    code = run_request(request)
    scaling = dict(code.scaling)
    if request.HasField("max_concurrency"):
        scaling.setdefault("max_concurrency", request.max_concurrency)
    health_check = code.health_check
    if health_check is None and request.HasField("health_check_path"):
        health_check = HealthCheck(path=_health_path(request.health_check_path, "health_check_path"))
    return DeployRequest(
        code=replace(
            code,
            scaling=scaling,
            health_check=health_check,
            termination_grace_seconds=_grace(request),
            private_logs=request.private_logs,
        ),
        strategy=named(request.deployment_strategy, STRATEGIES, "deployment_strategy")
        if request.HasField("deployment_strategy")
        else Strategy.ROLLING,
        reset_scale=request.scale,
        metadata=free_form(request.metadata, "metadata"),
        source_code=request.source_code if request.HasField("source_code") else None,
        retry_config=_retry_config(request.retry_config) if request.HasField("retry_config") else None,
        skip_retry_conditions=tuple(
            named(number, _RETRY_CONDITIONS, "skip_retry_conditions") for number in request.skip_retry_conditions
        ),
        attach=request.attach_to_deployment if request.HasField("attach_to_deployment") else None,
    )


def _check_callable(request: Code) -> None:
    """Demand a callable, unless there is an image, which can have a command of its own."""
    chosen = request.WhichOneof("callable")
    if chosen is None and not any(environment.kind == "container" for environment in request.environments):
        raise InvalidArgument("function", "neither function nor entrypoint is set: send the code to run, or name it")
    if chosen == "entrypoint" and (len(request.entrypoint) > 500 or not _ENTRYPOINT.fullmatch(request.entrypoint)):
        raise InvalidArgument("entrypoint", "entrypoint is not of the form 'module:attribute'")


def _serialised(value: run_pb2.SerializedObject, field: str) -> tuple[str, bytes]:
    if len(value.method) > 200 or not _MODULE.fullmatch(value.method):
        raise InvalidArgument(f"{field}.method", f"{field}.method is not the name of a module, such as 'cloudpickle'")
    if not value.definition:
        raise InvalidArgument(f"{field}.definition", f"{field}.definition is empty: send the serialised object")
    return value.method, value.definition


def _environments(definitions: Iterable[run_pb2.EnvironmentDefinition]) -> tuple[EnvironmentSpec, ...]:
    specs: list[EnvironmentSpec] = []
    for place, definition in enumerate(definitions):
        if not definition.kind:
            raise InvalidArgument(
                f"environments[{place}].kind", f"environments[{place}].kind is empty: use 'virtualenv'"
            )
        configuration = free_form(definition.configuration, f"environments[{place}].configuration")
        specs.append(EnvironmentSpec(kind=definition.kind, configuration=configuration))
    return tuple(specs)


def _scaling(machine: run_pb2.MachineRequirements) -> dict[str, int | tuple[str, ...]]:
    settings = numbers_set(machine)
    machine_types = tuple(machine.machine_types) or ((machine.machine_type,) if machine.machine_type else ())
    if machine_types:
        settings["machine_types"] = machine_types
    if machine.valid_regions:
        settings["regions"] = tuple(machine.valid_regions)
    return settings


def _num_gpus(machine: run_pb2.MachineRequirements) -> int | None:
    if not machine.HasField("num_gpus"):
        return None
    if machine.num_gpus < 0:
        raise InvalidArgument("num_gpus", f"num_gpus is {machine.num_gpus}: use 0 or more")
    return machine.num_gpus


def _port(number: int, field: str) -> int:
    if not 1 <= number <= _MOST_PORT:
        raise InvalidArgument(field, f"{field} is {number}: a port lies between 1 and {_MOST_PORT}")
    return number


def _files(files: Iterable[run_pb2.File]) -> tuple[AppFile, ...]:
    found: list[AppFile] = []
    for place, file in enumerate(files):
        if not _SHA256.fullmatch(file.hash):
            raise InvalidArgument(
                f"files[{place}].hash", f"files[{place}].hash is not a SHA-256 of 64 hexadecimal digits"
            )
        path = PurePosixPath(file.relative_path)
        if path.is_absolute() or ".." in path.parts or not path.parts or not file.relative_path.isprintable():
            raise InvalidArgument(
                f"files[{place}].relative_path",
                f"files[{place}].relative_path must lie below the app's directory: no leading '/', no '..'",
            )
        found.append(AppFile(hash=file.hash, relative_path=file.relative_path))
    return tuple(found)


def _health_check(config: run_pb2.ApplicationHealthCheckConfig) -> HealthCheck:
    check = HealthCheck(path=_health_path(config.path, "health_check_config.path"))
    if config.HasField("start_period_seconds"):
        check = replace(check, start_period_seconds=_at_least(0, config.start_period_seconds, "start_period_seconds"))
    if config.HasField("timeout_seconds"):
        check = replace(check, timeout_seconds=_at_least(1, config.timeout_seconds, "timeout_seconds"))
    if config.HasField("failure_threshold"):
        check = replace(check, failure_threshold=_at_least(1, config.failure_threshold, "failure_threshold"))
    if config.HasField("call_regularly"):
        check = replace(check, call_regularly=config.call_regularly)
    if config.HasField("method"):
        check = replace(check, method=named(config.method, _METHODS, "health_check_config.method"))
    return replace(check, allow_on_busy=config.allow_on_busy)


def _at_least(least: int, number: int, field: str) -> int:
    if number < least:
        raise InvalidArgument(
            f"health_check_config.{field}", f"health_check_config.{field} is {number}: use at least {least}"
        )
    return number


def _health_path(path: str, field: str) -> str:
    if not path.startswith("/") or not path.isprintable() or " " in path or len(path) > 2000:
        raise InvalidArgument(
            field, f"{field} is not a path: begin with '/', and leave out spaces and control characters"
        )
    return path


def _env_id(env_id: str) -> str:
    if not _SHA256.fullmatch(env_id):
        raise InvalidArgument("env_id", "env_id is not one that BuildEnvironment returned")
    return env_id


def _grace(request: revision_pb2.RegisterApplicationRequest) -> int | None:
    if not request.HasField("termination_grace_period_seconds"):
        return None
    seconds = request.termination_grace_period_seconds
    if seconds < 0:
        raise InvalidArgument(
            "termination_grace_period_seconds", f"termination_grace_period_seconds is {seconds}: use 0 or more"
        )
    return seconds


def _retry_config(text: str) -> str:
    try:
        valid = isinstance(read_json(text), dict)
    except ValueError:
        valid = False
    if not valid:
        raise InvalidArgument("retry_config", "retry_config is not a JSON object")
    return text

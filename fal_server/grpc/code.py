"""Converts the requests that carry code: deploy, build and run."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable
from dataclasses import replace
from typing import TypeAlias

from google.protobuf.message import Message

from fal_grpc.v1 import revision_pb2, run_pb2
from fal_server.core.apps import Strategy
from fal_server.core.checks import inside
from fal_server.core.faults import InvalidArgument, Unimplemented
from fal_server.core.identity import AccountId
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
_HEALTH_NUMBERS = ("start_period_seconds", "timeout_seconds", "failure_threshold")


def build_request(request: revision_pb2.BuildEnvironmentRequest, account: AccountId) -> CodeRequest:
    """Return what to build.

    Raises:
        InvalidArgument: there is no environment, or a field is malformed.
    """
    if not request.environments:
        raise InvalidArgument("environments", "environments is empty: describe the environment to build")
    return CodeRequest(
        environments=_environments(request.environments, account),
        force_build=any(environment.force for environment in request.environments),
        application_name=request.application_name,
        environment_name=request.environment_name,
        scaling=_scaling(request.machine_requirements),
        num_gpus=_optional(request.machine_requirements, "num_gpus"),
        files=_files(request.files),
        secret_names=tuple(request.secrets.names) if request.HasField("secrets") else None,
    )


def run_request(request: Code, account: AccountId) -> CodeRequest:
    """Return what to run, and its requirements.

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
    setup = _serialized(request.setup_func, "setup_func") if request.HasField("setup_func") else None
    return CodeRequest(
        environments=_environments(request.environments, account),
        force_build=any(environment.force for environment in request.environments),
        function=_serialized(request.function, "function") if request.HasField("function") else None,
        entrypoint=request.entrypoint if request.HasField("entrypoint") else None,
        setup=setup,
        run_on_main_thread=request.run_on_main_thread,
        application_name=request.application_name,
        environment_name=request.environment_name,
        auth_mode=named(request.auth_mode, AUTH_MODES, "auth_mode") if request.HasField("auth_mode") else None,
        scaling=_scaling(machine),
        exposed_port=_optional(machine, "exposed_port"),
        metrics_port=_optional(machine, "metrics_port"),
        num_gpus=_optional(machine, "num_gpus"),
        files=_files(request.files),
        secret_names=tuple(request.secrets.names) if request.HasField("secrets") else None,
        health_check=_health_check(request.health_check_config) if request.HasField("health_check_config") else None,
        build_environment=request.build_environment if request.HasField("build_environment") else True,
        env_id=_env_id(request.env_id) if request.HasField("env_id") else None,
    )


def deploy_request(request: revision_pb2.RegisterApplicationRequest, account: AccountId) -> DeployRequest:
    """Return what to deploy, and how.

    Raises:
        InvalidArgument: there is no callable, or a field is malformed.
        Unimplemented: it asks for volumes.
    """
    code = run_request(request, account)
    scaling = dict(code.scaling)
    if request.HasField("max_concurrency"):
        scaling.setdefault("max_concurrency", request.max_concurrency)
    health_check = code.health_check
    if health_check is None and request.HasField("health_check_path"):
        health_check = _check_of_path(request.health_check_path)
    return DeployRequest(
        code=replace(
            code,
            scaling=scaling,
            health_check=health_check,
            termination_grace_seconds=_optional(request, "termination_grace_period_seconds"),
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
        revision_id=_revision_id(request.revision_id) if request.HasField("revision_id") else None,
    )


def _revision_id(text: str) -> str:
    try:
        return str(uuid.UUID(text))
    except ValueError:
        raise InvalidArgument("revision_id", f"revision_id {text[:80]!r} is not a UUID") from None


def _check_callable(request: Code) -> None:
    """Require a callable, unless there is an image. An image can have its own command."""
    chosen = request.WhichOneof("callable")
    if chosen is None and not any(environment.kind == "container" for environment in request.environments):
        raise InvalidArgument("function", "neither function nor entrypoint is set: send the code to run, or name it")
    if chosen == "entrypoint" and (len(request.entrypoint) > 500 or not _ENTRYPOINT.fullmatch(request.entrypoint)):
        raise InvalidArgument("entrypoint", "entrypoint is not of the form 'module:attribute'")


def _serialized(value: run_pb2.SerializedObject, field: str) -> tuple[str, bytes]:
    if len(value.method) > 200 or not _MODULE.fullmatch(value.method):
        raise InvalidArgument(f"{field}.method", f"{field}.method is not the name of a module, such as 'cloudpickle'")
    if not value.definition:
        raise InvalidArgument(f"{field}.definition", f"{field}.definition is empty: send the serialized object")
    return value.method, value.definition


def _environments(
    definitions: Iterable[run_pb2.EnvironmentDefinition], account: AccountId
) -> tuple[EnvironmentSpec, ...]:
    specs: list[EnvironmentSpec] = []
    for place, definition in enumerate(definitions):
        if not definition.kind:
            raise InvalidArgument(
                f"environments[{place}].kind", f"environments[{place}].kind is empty: use 'virtualenv'"
            )
        configuration = free_form(definition.configuration, f"environments[{place}].configuration")
        specs.append(EnvironmentSpec(kind=definition.kind, configuration=configuration, account=account))
    return tuple(specs)


def _scaling(machine: run_pb2.MachineRequirements) -> dict[str, int | tuple[str, ...]]:
    settings = numbers_set(machine)
    machine_types = tuple(machine.machine_types) or ((machine.machine_type,) if machine.machine_type else ())
    if machine_types:
        settings["machine_types"] = machine_types
    if machine.valid_regions:
        settings["regions"] = tuple(machine.valid_regions)
    return settings


def _optional(message: Message, field: str) -> int | None:
    number: int | None = getattr(message, field) if message.HasField(field) else None
    return number


def _files(files: Iterable[run_pb2.File]) -> tuple[AppFile, ...]:
    found: list[AppFile] = []
    for place, file in enumerate(files):
        with inside(f"files[{place}]"):
            found.append(AppFile(hash=file.hash, relative_path=file.relative_path))
    return tuple(found)


def _health_check(config: run_pb2.ApplicationHealthCheckConfig) -> HealthCheck:
    method = named(config.method, _METHODS, "health_check_config.method") if config.HasField("method") else None
    numbers = {field: number for field in _HEALTH_NUMBERS if (number := _optional(config, field)) is not None}
    with inside("health_check_config"):
        return HealthCheck(
            path=config.path,
            call_regularly=config.call_regularly if config.HasField("call_regularly") else True,
            allow_on_busy=config.allow_on_busy,
            method=method or HealthMethod.GET,
            **numbers,
        )


def _check_of_path(path: str) -> HealthCheck:
    try:
        return HealthCheck(path=path)
    except InvalidArgument as fault:
        raise InvalidArgument("health_check_path", f"health_check_{fault.message}") from None


def _env_id(env_id: str) -> str:
    if not _SHA256.fullmatch(env_id):
        raise InvalidArgument("env_id", "env_id is not one that BuildEnvironment returned")
    return env_id


def _retry_config(text: str) -> str:
    try:
        valid = isinstance(read_json(text), dict)
    except ValueError:
        valid = False
    if not valid:
        raise InvalidArgument("retry_config", "retry_config is not a JSON object")
    return text

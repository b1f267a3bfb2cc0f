"""Builds the requests of deploys and runs. Each field is as the published client sends it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace

from fal.app.health import HealthCheckConfig as AppHealthCheck
from fal.app.options import ENVIRONMENT_KEYS
from fal.app.retries import RetryConfig, retry_config_json
from fal.container import ContainerImage
from fal.deploy.errors import DeployError
from fal.deploy.preparation import Code, PreparedApp
from fal.deploy.sources import METHOD
from fal_grpc.adapter.app import AuthMode, DeploymentStrategy, app_name
from fal_grpc.adapter.revision import BuildRequest, RegisterRequest, RetryCondition
from fal_grpc.adapter.run import (
    EnvironmentSpec,
    FileRef,
    HealthCheckConfig,
    HealthCheckMethod,
    MachineRequirements,
    RunRequest,
    SerializedCallable,
)
from fal_grpc.adapter.values import flag, optional_text
from fal_grpc.errors import ArgumentError

MAX_MESSAGE = 2048
MAX_ANNOTATIONS = 32
MAX_KEY = 64
MAX_TOTAL_BYTES = 16384
RESERVED = frozenset({"openapi", "message", "annotations"})


def check_types(
    *,
    texts: Mapping[str, object],
    flags: Mapping[str, object],
    functions: Mapping[str, object],
    annotations: object,
) -> None:
    """Check the types of a deploy's options before the app's code runs.

    Args:
        texts, flags, functions: options by name; each may be None.
        annotations: notes by name, or None.

    Raises:
        ArgumentError: an option has a wrong type.
    """
    for name, value in texts.items():
        optional_text(name, value)
    for name, value in flags.items():
        if value is not None:
            flag(name, value)
    for name, value in functions.items():
        if value is not None and not callable(value):
            raise ArgumentError(name, f"must be a function, not {type(value).__name__}")
    if annotations is not None and not isinstance(annotations, Mapping):
        raise ArgumentError("annotations", f"must be a mapping, not {type(annotations).__name__}")


def checked_notes(message: str | None, annotations: Mapping[str, object] | None) -> dict[str, object]:
    """Return message and annotations as parts of a revision's metadata. They are within the controllers' limits.

    Args:
        message: at most 2048 characters.
        annotations: at most 32, keys of at most 64 characters, 16384 bytes as JSON in total.

    Raises:
        DeployError: a limit is exceeded, a key is reserved or empty, or a value is not text.
    """
    notes: dict[str, object] = {}
    if message is not None:
        if len(message) > MAX_MESSAGE:
            raise DeployError(f"the message has {len(message)} characters; at most {MAX_MESSAGE} are kept")
        notes["message"] = message
    if not annotations:
        return notes
    if len(annotations) > MAX_ANNOTATIONS:
        raise DeployError(f"there are {len(annotations)} annotations; at most {MAX_ANNOTATIONS} are kept")
    for key, value in annotations.items():
        if not key or len(key) > MAX_KEY:
            raise DeployError(
                f"the annotation {key[:MAX_KEY]!r} has a key of {len(key)} characters: use 1 to {MAX_KEY}"
            )
        if key in RESERVED:
            raise DeployError(f"the annotation {key!r} has a reserved name: choose another")
        if not isinstance(value, str):
            raise DeployError(f"the annotation {key!r} is a {type(value).__name__}: give a text")
    size = len(json.dumps(dict(annotations), ensure_ascii=False).encode())
    if size > MAX_TOTAL_BYTES:
        raise DeployError(f"the annotations have {size} bytes as JSON; at most {MAX_TOTAL_BYTES} are kept")
    return {**notes, "annotations": dict(annotations)}


def asking_scheduler(app: PreparedApp, **wishes: object) -> PreparedApp:
    """Return the app with more options for the scheduler."""
    given = app.options.get("_scheduler_options")
    asked = {**given, **wishes} if isinstance(given, Mapping) else wishes
    return replace(app, options={**app.options, "_scheduler_options": asked})


def build_request(app: PreparedApp, *, environment_name: str | None, no_cache: bool) -> BuildRequest:
    """Return the request that builds an app's environment.

    Args:
        app: the app.
        environment_name: the environment to build it for; None means "main".
        no_cache: build it again even if it was built before.
    """
    return BuildRequest(
        environments=(environment_spec(app, force=no_cache or bool(app.options.get("force"))),),
        machine=machine_requirements(app),
        files=_files(app),
        environment_name=environment_name,
        application_name=app_name(app.app_name, environment_name),
        secrets=_texts(app.options.get("secrets")),
    )


def builds_alike(app: PreparedApp, other: PreparedApp) -> bool:
    """Return whether two apps have the same build. One request is enough then."""
    if app.options.get("force"):
        return False
    mine, its = (build_request(each, environment_name=None, no_cache=False) for each in (app, other))
    # Only an image build uses the app's files.
    return mine == its if app.kind == "container" else replace(mine, files=()) == replace(its, files=())


def register_request(
    app: PreparedApp,
    *,
    strategy: str,
    reset_scale: bool,
    environment_name: str | None,
    attach_to_deployment: bool | None,
    metadata: Mapping[str, object],
    revision_id: str | None = None,
) -> RegisterRequest:
    """Return the request that deploys an app whose environment is built.

    Args:
        app: the app.
        strategy: "rolling" or "recreate".
        reset_scale: apply the code's scaling settings.
        environment_name: the environment to deploy to; None means "main".
        attach_to_deployment: whether to wait until the app has moved; None leaves the choice to the controller.
        metadata: stored with the revision.
        revision_id: for the new revision; None lets the controller choose.
    """
    options = app.options
    return RegisterRequest(
        environments=(environment_spec(app),),
        machine=machine_requirements(app),
        function=_callable(app.function, app),
        entrypoint=None if app.entrypoint is None else f"{app.entrypoint}.run_local",
        application_name=app_name(app.app_name, environment_name),
        auth_mode=_auth_mode(app.auth),
        metadata=metadata,
        deployment_strategy=DeploymentStrategy(strategy),
        scale=reset_scale,
        private_logs=_flag(options.get("private_logs")),
        files=_files(app),
        source_code=app.source_code,
        environment_name=environment_name,
        health_check=_health_check(options.get("health_check_config")),
        skip_retry_conditions=tuple(
            RetryCondition(word) for word in _texts(options.get("skip_retry_conditions")) or ()
        ),
        termination_grace_period_seconds=_number(options.get("termination_grace_period_seconds")),
        data_mounts=_texts(options.get("data_mounts")) or (),
        secrets=_texts(options.get("secrets")),
        build_environment=False,
        retry_config=_retry_config(options.get("retry_config")),
        attach_to_deployment=attach_to_deployment,
        revision_id=revision_id,
    )


def run_request(
    app: PreparedApp, *, environment_name: str | None, build_environment: bool | None, attribute: str = "run_local"
) -> RunRequest:
    """Return the request that runs an app or function without deploying it.

    Args:
        app: the app.
        environment_name: the environment to run in; None means "main".
        build_environment: False if it is built already.
        attribute: what to call if the app is an import path.
    """
    return RunRequest(
        environments=(environment_spec(app),),
        machine=machine_requirements(app),
        function=_callable(app.function, app),
        entrypoint=None if app.entrypoint is None else f"{app.entrypoint}.{attribute}",
        setup_func=_callable(app.setup, app),
        files=_files(app),
        environment_name=environment_name,
        application_name=app_name(app.app_name, environment_name),
        auth_mode=_auth_mode(app.auth or "public"),
        data_mounts=_texts(app.options.get("data_mounts")) or (),
        secrets=_texts(app.options.get("secrets")),
        build_environment=build_environment,
        health_check=_health_check(app.options.get("health_check_config")),
    )


def environment_spec(app: PreparedApp, *, force: bool = False) -> EnvironmentSpec:
    """Return the packages by the kind of environment. For a container, it is the image with its passwords."""
    configuration: dict[str, object] = {}
    for key in ENVIRONMENT_KEYS[app.kind]:
        value = app.options.get(key)
        if value is not None and key != "force":
            configuration[key] = value.to_dict() if isinstance(value, ContainerImage) else value
    return EnvironmentSpec(kind=app.kind, configuration=configuration, force=force)


def machine_requirements(app: PreparedApp) -> MachineRequirements:
    """Return the machine and the scaling. Settings that the app omits are left to the controller."""
    options = app.options
    types = options.get("machine_type")
    scheduler_options = options.get("_scheduler_options")
    return MachineRequirements(
        machine_types=(types,) if isinstance(types, str) else _texts(types) or (),
        num_gpus=_number(options.get("num_gpus")),
        base_image=_text(options.get("_base_image")),
        exposed_port=app.exposed_port,
        metrics_port=app.metrics_port,
        scheduler=_text(options.get("_scheduler")),
        scheduler_options=scheduler_options if isinstance(scheduler_options, Mapping) else {},
        keep_alive=_number(options.get("keep_alive")),
        max_concurrency=_number(options.get("max_concurrency")),
        min_concurrency=_number(options.get("min_concurrency")),
        max_multiplexing=_number(options.get("max_multiplexing")),
        concurrency_buffer=_number(options.get("concurrency_buffer")),
        concurrency_buffer_perc=_number(options.get("concurrency_buffer_perc")),
        scaling_delay=_number(options.get("scaling_delay")),
        request_timeout=_number(options.get("request_timeout")),
        request_start_timeout=_number(options.get("request_start_timeout")),
        startup_timeout=_number(options.get("startup_timeout")),
        valid_regions=_texts(options.get("regions")) or (),
    )


def _callable(code: Code | None, app: PreparedApp) -> SerializedCallable | None:
    if code is None:
        return None
    if app.travels_as_modules:
        return SerializedCallable(definition=code.bundle, method=METHOD)
    return SerializedCallable(definition=code.pickle())


def _files(app: PreparedApp) -> tuple[FileRef, ...]:
    return tuple(FileRef(hash=file.hash, relative_path=file.relative_path) for file in app.files)


def _auth_mode(auth: str | None) -> AuthMode | None:
    if auth is None:
        return None
    try:
        return AuthMode(auth)
    except ValueError as error:
        raise DeployError(f"auth is {auth!r}: give one of {', '.join(AuthMode)}") from error


def _health_check(config: object) -> HealthCheckConfig | None:
    if not isinstance(config, AppHealthCheck):
        return None
    return HealthCheckConfig(
        path=config.path,
        start_period_seconds=config.start_period_seconds,
        timeout_seconds=config.timeout_seconds,
        failure_threshold=config.failure_threshold,
        call_regularly=config.call_regularly,
        method=None if config.method is None else HealthCheckMethod(config.method.upper()),
    )


def _retry_config(config: object) -> str | None:
    if config is None:
        return None
    if not isinstance(config, RetryConfig | Mapping):
        raise DeployError(f"retry_config is {config!r}: give a fal.RetryConfig or a mapping")
    try:
        return retry_config_json(config)
    except ValueError as error:
        raise DeployError(str(error)) from error


def _texts(value: object) -> tuple[str, ...] | None:
    return tuple(str(item) for item in value) if isinstance(value, list | tuple) else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _number(value: object) -> int | None:
    return value if isinstance(value, int) else None


def _flag(value: object) -> bool | None:
    return value if isinstance(value, bool) else None

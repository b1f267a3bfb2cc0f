"""Apps: names that point at a revision. Their settings control the number of runners."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from fal_grpc.adapter.values import count, environment, flag, text, texts
from fal_grpc.errors import ArgumentError

if TYPE_CHECKING:
    from fal_grpc.v1 import app_pb2


class AuthMode(StrEnum):
    """Who may call an app: its owner (private) or anyone (public). If shared, anyone with a key may, and then pays."""

    PRIVATE = "private"
    PUBLIC = "public"
    SHARED = "shared"

    @property
    def number(self) -> app_pb2.ApplicationAuthMode.ValueType:
        from fal_grpc.v1 import app_pb2

        return app_pb2.ApplicationAuthMode.Value(self.name)


class DeploymentStrategy(StrEnum):
    """How an app moves to another revision. Recreate does so at once, rolling when one of its runners is ready."""

    RECREATE = "recreate"
    ROLLING = "rolling"

    @property
    def number(self) -> app_pb2.DeploymentStrategy.ValueType:
        from fal_grpc.v1 import app_pb2

        return app_pb2.DeploymentStrategy.Value(self.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class AppLoad:
    """An app's load: requests in flight and waiting requests. `eligible` counts the latter that may start a runner."""

    in_flight: int
    queued: int
    eligible: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AliasInfo:
    """An app. Durations are in seconds; a field that the controller omits is 0 or empty.

    Attributes:
        auth_mode: "private", "public", "shared", or "unknown" for a mode that this client does not know.
        is_rolling: whether its runners are being replaced, or its traffic is moving.
        request_start_timeout: None if the app has no limit of its own.
        load: its requests; None if the controller does not say.
        failed_starts: how many starts of its revision failed in a row; `last_failure` says why the last one did, and
            `failed_runner_id` is its runner, which has the log.
    """

    alias: str
    revision: str
    auth_mode: str
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
    environment_name: str | None = None
    request_start_timeout: int | None = None
    is_rolling: bool = False
    load: AppLoad | None = None
    failed_starts: int = 0
    last_failure: str | None = None
    failed_runner_id: str | None = None


_AUTH_MODES = {0: "private", 1: "public", 2: "shared"}


def alias_info(message: app_pb2.AliasInfo) -> AliasInfo:
    return AliasInfo(
        alias=message.alias,
        revision=message.revision,
        auth_mode=_AUTH_MODES.get(message.auth_mode, "unknown"),
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
        environment_name=message.environment_name if message.HasField("environment_name") else None,
        request_start_timeout=message.request_start_timeout if message.HasField("request_start_timeout") else None,
        is_rolling=message.is_rolling,
        load=app_load(message.load) if message.HasField("load") else None,
        failed_starts=message.failed_starts,
        last_failure=message.last_failure if message.HasField("last_failure") else None,
        failed_runner_id=message.failed_runner_id if message.HasField("failed_runner_id") else None,
    )


def app_load(message: app_pb2.AppLoad) -> AppLoad:
    return AppLoad(in_flight=message.in_flight, queued=message.queued, eligible=message.eligible)


def alias_infos(message: app_pb2.ListAliasesResult) -> list[AliasInfo]:
    """Return the apps in the controller's order."""
    return [alias_info(item) for item in message.aliases]


def updated(message: app_pb2.SetAliasResult | app_pb2.UpdateApplicationResult) -> AliasInfo:
    return alias_info(message.alias_info)


def deleted_revision(message: app_pb2.DeleteAliasResult) -> str:
    return message.revision


def list_request(environment_name: str | None = None) -> app_pb2.ListAliasesRequest:
    from fal_grpc.v1 import app_pb2

    return app_pb2.ListAliasesRequest(environment_name=environment(environment_name))


def set_request(
    alias: str,
    revision: str,
    *,
    auth_mode: AuthMode | str | None = None,
    environment_name: str | None = None,
    deployment_strategy: DeploymentStrategy | str | None = None,
) -> app_pb2.SetAliasRequest:
    from fal_grpc.v1 import app_pb2

    return app_pb2.SetAliasRequest(
        alias=app_name(alias, environment_name),
        revision=text("revision", revision),
        auth_mode=None if auth_mode is None else parse_auth_mode(auth_mode).number,
        environment_name=environment(environment_name),
        deployment_strategy=None if deployment_strategy is None else parse_strategy(deployment_strategy).number,
    )


def delete_request(alias: str, *, environment_name: str | None = None) -> app_pb2.DeleteAliasRequest:
    from fal_grpc.v1 import app_pb2

    name = app_name(alias, environment_name)
    return app_pb2.DeleteAliasRequest(alias=name, environment_name=environment(environment_name))


def update_request(
    application_name: str,
    *,
    keep_alive: int | None = None,
    max_multiplexing: int | None = None,
    max_concurrency: int | None = None,
    min_concurrency: int | None = None,
    concurrency_buffer: int | None = None,
    concurrency_buffer_perc: int | None = None,
    scaling_delay: int | None = None,
    request_timeout: int | None = None,
    request_start_timeout: int | None = None,
    startup_timeout: int | None = None,
    machine_types: Sequence[str] | None = None,
    regions: Sequence[str] | None = None,
    environment_name: str | None = None,
) -> app_pb2.UpdateApplicationRequest:
    """Return a request to change settings. None and an empty list change nothing, but 0 and [""] are sent.

    Raises:
        ArgumentError: a number is negative or not whole, or a list contains something else than text.
    """
    from fal_grpc.v1 import app_pb2

    return app_pb2.UpdateApplicationRequest(
        application_name=app_name(application_name, environment_name),
        keep_alive=count("keep_alive", keep_alive),
        max_multiplexing=count("max_multiplexing", max_multiplexing),
        max_concurrency=count("max_concurrency", max_concurrency),
        min_concurrency=count("min_concurrency", min_concurrency),
        concurrency_buffer=count("concurrency_buffer", concurrency_buffer),
        concurrency_buffer_perc=count("concurrency_buffer_perc", concurrency_buffer_perc),
        scaling_delay_seconds=count("scaling_delay", scaling_delay),
        request_timeout=count("request_timeout", request_timeout),
        request_start_timeout=count("request_start_timeout", request_start_timeout),
        startup_timeout=count("startup_timeout", startup_timeout),
        machine_types=None if machine_types is None else texts("machine_types", machine_types),
        valid_regions=None if regions is None else texts("regions", regions, empty=True),
        environment_name=environment(environment_name),
    )


def rollout_request(
    application_name: str, *, force: bool = False, environment_name: str | None = None
) -> app_pb2.RolloutApplicationRequest:
    """Return a request for new runners. `force` is always sent, as by the published client."""
    from fal_grpc.v1 import app_pb2

    return app_pb2.RolloutApplicationRequest(
        application_name=app_name(application_name, environment_name),
        force=flag("force", force),
        environment_name=environment(environment_name),
    )


def app_name(name: object, environment_name: str | None = None) -> str:
    """Return an app's name on the wire. Outside of "main", it ends with `--` and the environment's name.

    Raises:
        ArgumentError: it is empty, or not text.
    """
    checked = text("app_name", name, "must be a name that is not empty; `fal apps list` lists the apps")
    return name_in_environment(checked, environment(environment_name))


def name_in_environment(name: str, environment_name: str | None) -> str:
    """Return an app's name with its environment's suffix. Queues and calls use it."""
    if environment_name in (None, "", "main") or name.endswith(f"--{environment_name}"):
        return name
    return f"{name}--{environment_name}"


def parse_auth_mode(name: AuthMode | str) -> AuthMode:
    try:
        return AuthMode(text("auth", name, "must be private, public or shared").lower())
    except ValueError:
        raise ArgumentError("auth", f"must be private, public or shared, not {name!r}") from None


def parse_strategy(name: DeploymentStrategy | str) -> DeploymentStrategy:
    try:
        return DeploymentStrategy(text("strategy", name, "must be recreate or rolling").lower())
    except ValueError:
        raise ArgumentError("strategy", f"must be recreate or rolling, not {name!r}") from None

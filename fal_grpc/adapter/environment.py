"""Environments: separate sets of apps and secrets, such as "main" and "staging"."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from fal_grpc.adapter.values import optional_text, text, to_datetime

if TYPE_CHECKING:
    from fal_grpc.v1 import environment_pb2


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvironmentInfo:
    """An environment. `is_default` says whether calls without an environment use this one."""

    name: str
    description: str | None
    is_default: bool
    created_at: datetime


def environment_info(message: environment_pb2.EnvironmentInfo) -> EnvironmentInfo:
    return EnvironmentInfo(
        name=message.name,
        description=message.description if message.HasField("description") else None,
        is_default=message.is_default,
        created_at=to_datetime(message.created_at),
    )


def environment_infos(message: environment_pb2.ListEnvironmentsResponse) -> list[EnvironmentInfo]:
    return [environment_info(item) for item in message.environments]


def created(message: environment_pb2.CreateEnvironmentResponse) -> EnvironmentInfo:
    return environment_info(message.environment)


def list_request() -> environment_pb2.ListEnvironmentsRequest:
    from fal_grpc.v1 import environment_pb2

    return environment_pb2.ListEnvironmentsRequest()


def create_request(name: str, *, description: str | None = None) -> environment_pb2.CreateEnvironmentRequest:
    from fal_grpc.v1 import environment_pb2

    return environment_pb2.CreateEnvironmentRequest(
        name=_name(name), description=optional_text("description", description)
    )


def delete_request(name: str) -> environment_pb2.DeleteEnvironmentRequest:
    from fal_grpc.v1 import environment_pb2

    return environment_pb2.DeleteEnvironmentRequest(name=_name(name))


def _name(name: object) -> str:
    return text("name", name, "must be a name that is not empty; `fal environments list` lists them")

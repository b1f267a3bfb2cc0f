"""Watched lists: the messages of a watch, and the requests for one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Generic, TypeVar

from fal_grpc.adapter.app import AliasInfo, alias_info, app_name
from fal_grpc.adapter.runner import RunnerInfo, runner_info
from fal_grpc.adapter.values import environment, to_timestamp

if TYPE_CHECKING:
    from fal_grpc.v1 import app_pb2, runner_pb2

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes(Generic[T]):
    """A part of a watched list.

    Attributes:
        snapshot: whether it replaces everything before it.
        items: new and changed items.
        removed: the names of removed items.
        version: the reader's version afterwards, to resume from; empty if more messages of the same version follow.
    """

    snapshot: bool
    items: Sequence[T]
    removed: Sequence[str]
    version: str


def runner_changes(message: runner_pb2.WatchRunnersResponse) -> Changes[RunnerInfo]:
    return Changes(
        snapshot=message.snapshot,
        items=[runner_info(item) for item in message.runners],
        removed=list(message.removed),
        version=message.version,
    )


def app_changes(message: app_pb2.WatchAppsResponse) -> Changes[AliasInfo]:
    return Changes(
        snapshot=message.snapshot,
        items=[alias_info(item) for item in message.apps],
        removed=list(message.removed),
        version=message.version,
    )


def watch_runners_request(
    *,
    alias: str | None = None,
    environment_name: str | None = None,
    since: datetime | None = None,
    version: str = "",
) -> runner_pb2.WatchRunnersRequest:
    from fal_grpc.v1 import runner_pb2

    return runner_pb2.WatchRunnersRequest(
        alias=app_name(alias, environment_name) if alias is not None else "",
        environment_name=environment(environment_name),
        start_time=None if since is None else to_timestamp(since, argument="since"),
        version=version,
    )


def watch_apps_request(*, environment_name: str | None = None, version: str = "") -> app_pb2.WatchAppsRequest:
    from fal_grpc.v1 import app_pb2

    return app_pb2.WatchAppsRequest(environment_name=environment(environment_name), version=version)

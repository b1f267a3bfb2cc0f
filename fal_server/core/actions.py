"""The actions in a plan of the reconciler."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from fal_server.core.identity import AppId
from fal_server.core.runners import StopCause


@dataclass(frozen=True, slots=True, kw_only=True)
class Create:
    """Add a runner: PENDING, or FAILURE_DELAY until `not_before`."""

    app_id: AppId
    revision_id: str
    reason: str
    not_before: datetime | None = None
    replaces: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """End the delay of a runner in FAILURE_DELAY."""

    runner_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """Start a PENDING runner on a node, as a fitting machine type.

    Attributes:
        gpus: the ids of the GPUs for it, which no other runner holds.
    """

    runner_id: str
    node: str
    machine_type: str
    gpus: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """Leave a PENDING runner that fits on no node. Say why, and try again later.

    Attributes:
        hopeless: whether there are nodes, but none would have room even if it were empty.
    """

    runner_id: str
    reason: str
    not_before: datetime
    hopeless: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Drain:
    """Send a runner no more requests. It stops once it has finished its current ones."""

    runner_id: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfirmUnrouted:
    """Let the router confirm that a stopping runner gets no more requests."""

    runner_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Unrouted:
    """Move a stopping runner that still has requests to DRAINING."""

    runner_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """Send SIGTERM with a grace time. It is planned until the runner is gone, and sent once."""

    runner_id: str
    grace_seconds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """Send SIGKILL; planned until the runner is gone, sent once."""

    runner_id: str
    reason: str
    cause: StopCause | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Drop:
    """End a runner without a process that is no longer wanted."""

    runner_id: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Promote:
    """Move an app to its next revision, which has a ready runner."""

    app_id: AppId
    revision_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Abandon:
    """End a rolling deploy whose runner failed to start or fits nowhere. The app keeps its revision."""

    app_id: AppId
    revision_id: str
    reason: str


Action = Create | Due | Launch | Hold | Drain | ConfirmUnrouted | Unrouted | Stop | Kill | Drop | Promote | Abandon

"""What the reconciler's plan can say: the actions, each a value."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Create:
    """Add a runner: PENDING, or FAILURE_DELAY until `not_before`."""

    app_name: str
    revision_id: str
    reason: str
    not_before: datetime | None = None
    replaces: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """The delay of a runner in FAILURE_DELAY is over."""

    runner_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """Start a PENDING runner on a node, as a machine type that fits."""

    runner_id: str
    node: str
    machine_type: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """A PENDING runner finds no room: say why, look again later.

    Attributes:
        hopeless: there are nodes, but none has so much even when it is empty.
    """

    runner_id: str
    reason: str
    not_before: datetime
    hopeless: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Drain:
    """Send a runner no more requests; it stops when those that it has are done."""

    runner_id: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfirmUnrouted:
    """A runner is not to serve any more: the router is to confirm that it sends it no further request."""

    runner_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Unrouted:
    """A runner that is to stop still has requests: it is DRAINING now."""

    runner_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """SIGTERM with grace; planned again until the runner is gone, sent once."""

    runner_id: str
    grace_seconds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """SIGKILL at once; planned again until the runner is gone, sent once."""

    runner_id: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Drop:
    """A runner that has no process yet is not wanted any more: it ends."""

    runner_id: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Promote:
    """The next revision has a ready runner: the app moves to it."""

    app_name: str
    revision_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Abandon:
    """The next revision's runner failed to start, or fits nowhere: the app stays where it is."""

    app_name: str
    revision_id: str
    reason: str


Action = Create | Due | Launch | Hold | Drain | ConfirmUnrouted | Unrouted | Stop | Kill | Drop | Promote | Abandon

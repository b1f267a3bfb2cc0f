"""A runner as people see it: its row, requests and history."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from fal_server.core.history import StartPhases, StateChange
from fal_server.core.resources import ResourceUse
from fal_server.core.runners import Runner, RunnerState


class Leased(Protocol):
    """A request on a runner, compared by identity.

    Counted: each one takes one of the runner's slots.
    """

    @property
    def request_id(self) -> str:
        """The request's id."""
        ...

    @property
    def caller(self) -> str | None:
        """The id of the caller's key; None for a call without one."""
        ...

    @property
    def sent_at(self) -> datetime:
        """When the slot was assigned."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestLease:
    """A request on a runner.

    Value: a copy for display.
    """

    request_id: str
    caller: str | None
    started_at: datetime

    @classmethod
    def of(cls, leased: Leased) -> RequestLease:
        """Return the visible part of a request."""
        return cls(request_id=leased.request_id, caller=leased.caller, started_at=leased.sent_at)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerView:
    """A runner with its current state.

    Value: a copy for display.

    Attributes:
        state: IDLE with requests in flight is shown as RUNNING.
        expires_in_seconds: until its keep_alive has passed; None while it works, or if min_concurrency keeps it.
        uptime_seconds: from its start to now or to its end.
        history: its state changes, in order; empty in lists.
        phases: the duration of each phase of its start; None in lists.
        resources: its recent usage; None if unknown.
        unreachable: whether its node does not answer, so that the state is what was known last.
    """

    runner: Runner
    state: RunnerState
    in_flight: int
    expires_in_seconds: int | None
    uptime_seconds: float
    leases: tuple[RequestLease, ...] = ()
    history: tuple[StateChange, ...] = ()
    phases: StartPhases | None = None
    resources: ResourceUse | None = None
    unreachable: bool = False

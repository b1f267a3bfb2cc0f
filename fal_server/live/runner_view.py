"""A runner as it is shown: its row, its requests and its history."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from fal_server.core.history import StartPhases, StateChange
from fal_server.core.runners import Runner, RunnerState


class Leased(Protocol):
    """A request on a runner; by its identity it is known again."""

    @property
    def request_id(self) -> str:
        """Shown beside the runner."""
        ...

    @property
    def caller(self) -> str | None:
        """The key that called; None for a public call."""
        ...

    @property
    def sent_at(self) -> datetime:
        """When the place was given."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestLease:
    """A request that a runner is working on."""

    request_id: str
    caller: str | None
    started_at: datetime

    @classmethod
    def of(cls, leased: Leased) -> RequestLease:
        """What is shown of a request on a runner."""
        return cls(request_id=leased.request_id, caller=leased.caller, started_at=leased.sent_at)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerView:
    """A runner with what is true of it now.

    Attributes:
        state: as shown: IDLE with requests in flight is RUNNING.
        expires_in_seconds: until its keep_alive is over; None while it works or is held by a floor.
        uptime_seconds: since its start, up to its end.
        history: what it went through, in order; empty in lists.
        phases: how long each part of its start took; None in lists.
    """

    runner: Runner
    state: RunnerState
    in_flight: int
    expires_in_seconds: int | None
    uptime_seconds: float
    leases: tuple[RequestLease, ...] = ()
    history: tuple[StateChange, ...] = ()
    phases: StartPhases | None = None

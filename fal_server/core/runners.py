"""A runner: one process group that runs one revision, from its order to its end."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from fal_server.core.identity import AccountId


class RunnerState(StrEnum):
    """What a runner is observed to be. RUNNING is never stored: it is IDLE with requests in flight."""

    FAILURE_DELAY = "failure_delay"
    PENDING = "pending"
    DOCKER_PULL = "docker_pull"
    SETUP = "setup"
    IDLE = "idle"
    RUNNING = "running"
    DRAINING = "draining"
    TERMINATING = "terminating"
    TERMINATED = "terminated"


# How far along its life each state is: observed state only moves up.
RANK: dict[RunnerState, int] = {
    RunnerState.FAILURE_DELAY: 0,
    RunnerState.PENDING: 1,
    RunnerState.DOCKER_PULL: 2,
    RunnerState.SETUP: 3,
    RunnerState.IDLE: 4,
    RunnerState.RUNNING: 4,
    RunnerState.DRAINING: 5,
    RunnerState.TERMINATING: 6,
    RunnerState.TERMINATED: 7,
}


# Its start was not ordered yet: nothing of it is alive anywhere.
NO_PROCESS = frozenset({RunnerState.FAILURE_DELAY, RunnerState.PENDING})


class Desired(StrEnum):
    """What a runner is meant to do: take requests, finish those it has, or be gone."""

    SERVE = "serve"
    DRAIN = "drain"
    GONE = "gone"


@dataclass(frozen=True, slots=True, kw_only=True)
class Runner:
    """One runner as it is stored.

    Attributes:
        token: a random word that every process of the runner carries in its environment; what does not is not ours.
        state: observed; written by lifecycle.step alone.
        desired: what it is meant to do; written by services and the reconciler.
        reason: why it is in this state, in words for people.
        not_before: in FAILURE_DELAY and where nothing could be scheduled: when the start is tried (again).
        replaces: the runner in whose place this one was started (`stop --replace`).
        replaced_by: the runner that was started to take this one's place.
        replace_first: it may stop only once its replacement is ready.
        handle: what its engine finds its process again by; empty until it was started. Only the engine reads it.
        host: the address at which its ports are reached from the controller; empty until ready.
        port: where the app answers HTTP; None until ready, or without HTTP.
        kill: end it at once, without grace.
        ordered_at: when its start was ordered on a node.
        first_request_at: when its first request was sent to it. Like `first_byte_at`, written once.
        first_byte_at: when the first byte of its first answer came.
        failed_starts: where its start failed: how many of its revision's had in a row, with this one; else 0.
        unrouted_at: when the router acknowledged that it sends it no further request. It is told to stop after that.
    """

    account: AccountId
    runner_id: str
    app_name: str
    environment: str
    revision_id: str
    machine_type: str
    token: str = field(repr=False)
    created_at: datetime
    state: RunnerState = RunnerState.PENDING
    desired: Desired = Desired.SERVE
    reason: str = ""
    node: str = ""
    handle: str = ""
    host: str = ""
    port: int | None = None
    metrics_port: int | None = None
    ordered_at: datetime | None = None
    started_at: datetime | None = None
    ready_at: datetime | None = None
    first_request_at: datetime | None = None
    first_byte_at: datetime | None = None
    unrouted_at: datetime | None = None
    draining_at: datetime | None = None
    stopping_at: datetime | None = None
    ended_at: datetime | None = None
    not_before: datetime | None = None
    exit_code: int | None = None
    grace_seconds: int = 5
    kill: bool = False
    replaces: str | None = None
    replaced_by: str | None = None
    replace_first: bool = False
    ephemeral: bool = False
    failed_starts: int = 0

    @property
    def ended(self) -> bool:
        """Whether nothing of it is left."""
        return self.state is RunnerState.TERMINATED

    @property
    def routable(self) -> bool:
        """Whether requests may be sent to it."""
        return self.state is RunnerState.IDLE and self.desired is Desired.SERVE and self.port is not None

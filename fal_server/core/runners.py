"""A runner: one process group that runs one revision."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from fal_server.core.addresses import RunnerAddress, gate_key_of, metrics_gate_key_of
from fal_server.core.identity import AccountId, AppId, app_id_of_row


class RunnerState(StrEnum):
    """The observed state of a runner. RUNNING is never stored: it is IDLE with requests in flight."""

    FAILURE_DELAY = "failure_delay"
    PENDING = "pending"
    DOCKER_PULL = "docker_pull"
    SETUP = "setup"
    IDLE = "idle"
    RUNNING = "running"
    DRAINING = "draining"
    TERMINATING = "terminating"
    TERMINATED = "terminated"


# The order of the states; a runner's state only moves up.
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


# States before the start was ordered, in which the runner has no living process.
NO_PROCESS = frozenset({RunnerState.FAILURE_DELAY, RunnerState.PENDING})


class Desired(StrEnum):
    """The desired state of a runner. It is to take requests, finish the current ones, or be gone."""

    SERVE = "serve"
    DRAIN = "drain"
    GONE = "gone"


class StopCause(StrEnum):
    """Why a runner ended, if the reason has consequences."""

    STARTUP_TIMEOUT = "startup_timeout"
    BROKE_CONNECTION = "broke_connection"
    UNAVAILABLE = "unavailable"  # it answered 503
    LOST = "lost"  # it ended while no controller watched, although nobody had asked it to


class MetricsAccess(StrEnum):
    """Who can connect to the port of a runner's metrics."""

    CLOSED = "closed"  # nobody: none of its processes listens there
    OPEN = "open"  # every program of its machine, as for runners of earlier versions
    GATED = "gated"  # who has the key


@dataclass(frozen=True, slots=True, kw_only=True)
class Runner:
    """One runner, as stored.

    Attributes:
        token: random, and in the environment of every process of the runner, to distinguish them from others.
        state: the observed state; only lifecycle.step changes it.
        desired: written by services and the reconciler.
        reason: why it is in this state, for people; programs read `stop_cause` and `own_end`.
        stop_cause: why it ended, if the reason has consequences; None for all other reasons.
        own_end: how it ended, if it did so before anyone asked it to; otherwise empty.
        node: the machine that it runs on; empty until its start is ordered.
        handle: how its engine finds its process again; empty until it was started. Only the engine reads it.
        host: the address at which the controller reaches its ports; empty until ready.
        port: the app's HTTP port; None until ready, or without HTTP.
        gated: whether a gate guards its port; runners of earlier versions and containers have none.
        metrics_access: who can connect to the port of its metrics.
        ordered_at: when its start on a node was ordered.
        first_request_at: when its first request was sent to it. Like `first_byte_at`, it is written once.
        first_byte_at: when the first byte of its first response arrived.
        unrouted_at: when the router confirmed that it sends it no more requests. Only then it is asked to stop.
        not_before: when its start is tried again, in FAILURE_DELAY or if no node had room.
        kill: end it at once, without grace.
        replaces: the runner that it replaces (`stop --replace`).
        replaced_by: the runner that replaces it.
        replace_first: whether it may stop only once its replacement is ready.
        ephemeral: whether it belongs to a `fal run`.
        gpus: the ids of the GPUs of its node that it holds, from the order to start it to its end.
        failed_starts: the number of consecutive failed starts of its revision when its own failed; 0 if it did not.
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
    stop_cause: StopCause | None = None
    own_end: str = ""
    node: str = ""
    handle: str = ""
    host: str = ""
    port: int | None = None
    metrics_port: int | None = None
    gated: bool = False
    metrics_access: MetricsAccess = MetricsAccess.OPEN
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
    gpus: tuple[str, ...] = ()
    failed_starts: int = 0

    @property
    def app_id(self) -> AppId:
        """The app's identity; other accounts may use the same name."""
        return app_id_of_row(self.account, self.app_name)

    @property
    def address(self) -> RunnerAddress:
        """The address of its app, once it has a port."""
        return RunnerAddress(self.host, self.port or 0, gate_key_of(self.token) if self.gated else "")

    @property
    def metrics_address(self) -> RunnerAddress | None:
        """The address of its metrics. None if no process of it listens there."""
        if not self.metrics_port or self.metrics_access is MetricsAccess.CLOSED:
            return None
        gated = self.metrics_access is MetricsAccess.GATED
        return RunnerAddress(self.host, self.metrics_port, metrics_gate_key_of(self.token) if gated else "")

    @property
    def ended(self) -> bool:
        """Whether no process of it is left."""
        return self.state is RunnerState.TERMINATED

    @property
    def routable(self) -> bool:
        """Whether it may get requests."""
        return self.state is RunnerState.IDLE and self.desired is Desired.SERVE and self.port is not None

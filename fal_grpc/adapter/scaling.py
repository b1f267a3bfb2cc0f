"""Explanations of an app's scaling, and simulations of a load."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from fal_grpc.adapter.app import AliasInfo, AppLoad, alias_info, app_load, app_name
from fal_grpc.adapter.runner import STATES, RunnerState
from fal_grpc.adapter.values import count, environment, mapping, number, optional_text, to_datetime
from fal_grpc.errors import ArgumentError

if TYPE_CHECKING:
    from fal_grpc.v1 import app_pb2


@dataclass(frozen=True, slots=True, kw_only=True)
class AppDecision:
    """A scaling decision of the controller.

    Attributes:
        at: the time; aware.
        action: start, hold, drain, drop, kill, move or abandon.
        subject: the runner; for start, move and abandon the revision.
        reason: why, for people.
        load: the app's load at that time.
    """

    at: datetime
    action: str
    subject: str
    reason: str
    load: AppLoad


@dataclass(frozen=True, slots=True, kw_only=True)
class AppExplanation:
    """Why an app has its current number of runners.

    Attributes:
        start_below: with fewer runners than this, the controller starts some.
        keep: with more than this, runners whose keep_alive has passed may end.
        arithmetic: how the two are computed, for people.
        runners: the number of runners in each state.
        decisions: the recent ones, oldest first; those before `known_since` are unknown.
        next_revision: the target revision of a rolling deploy.
        failed_starts: how many starts of its revision failed in a row; `last_failure` says why the last one did.
        lack: why no machine could run it; None if one could, or if the controller does not say.
    """

    app: AliasInfo
    load: AppLoad
    start_below: int
    keep: int
    arithmetic: str
    runners: Mapping[RunnerState, int]
    decisions: tuple[AppDecision, ...]
    known_since: datetime
    next_revision: str | None
    failed_starts: int
    last_failure: str | None
    lack: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulationPoint:
    """A time in a simulation, in seconds from its start. The numbers are maxima since the previous point."""

    at_seconds: float
    runners: int
    ready: int
    in_flight: int
    queued: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AppSimulation:
    """The result of simulating a load.

    Attributes:
        points: the course of the simulation, evenly spaced in time.
        settings: the settings that applied.
        started: the number of runners started; `most_runners` is the highest number at a time.
        runner_seconds: the sum of all runners' lifetimes.
        wait_seconds: the waiting times of requests: median, 95th percentile, maximum.
        unserved: the number of requests that no runner took.
    """

    points: tuple[SimulationPoint, ...]
    settings: AliasInfo
    started: int
    most_runners: int
    runner_seconds: float
    wait_seconds: tuple[float, float, float]
    unserved: int


def explain_request(name: str, *, environment_name: str | None = None) -> app_pb2.ExplainAppRequest:
    from fal_grpc.v1 import app_pb2

    return app_pb2.ExplainAppRequest(application_name=app_name(name), environment_name=environment(environment_name))


def simulate_request(
    arrivals: Sequence[tuple[float, float]],
    *,
    name: str | None = None,
    environment_name: str | None = None,
    settings: Mapping[str, int] | None = None,
    start_seconds: float = 5.0,
) -> app_pb2.SimulateAppRequest:
    """Return a request to simulate a load.

    Raises:
        ArgumentError: there is no arrival, or a setting is not a whole number.
    """
    from fal_grpc.v1 import app_pb2

    chosen: dict[str, int] = {}
    for key, value in mapping("settings", {} if settings is None else settings).items():
        setting = count(f"settings.{key}", value)
        if setting is not None:
            chosen["scaling_delay_seconds" if key == "scaling_delay" else key] = setting
    return app_pb2.SimulateAppRequest(
        application_name=optional_text("app_name", name) or "",
        environment_name=environment(environment_name),
        settings=chosen,
        arrivals=[app_pb2.SimulatedArrival(at_seconds=at, duration_seconds=lasts) for at, lasts in _pairs(arrivals)],
        start_seconds=number("start_seconds", start_seconds),
    )


def _pairs(arrivals: object) -> list[tuple[float, float]]:
    problem = "must be a list of at least one request: (seconds from the beginning, duration in seconds)"
    if not isinstance(arrivals, Sequence) or not arrivals:
        raise ArgumentError("arrivals", problem)
    pairs: list[tuple[float, float]] = []
    for arrival in arrivals:
        if not isinstance(arrival, Sequence) or isinstance(arrival, str | bytes) or len(arrival) != 2:
            raise ArgumentError("arrivals", problem)
        pairs.append((number("arrivals", arrival[0]), number("arrivals", arrival[1])))
    return pairs


def explanation(message: app_pb2.ExplainAppResponse) -> AppExplanation:
    return AppExplanation(
        app=alias_info(message.app),
        load=app_load(message.load),
        start_below=message.decision.start_below,
        keep=message.decision.keep,
        arithmetic=message.decision.arithmetic,
        runners={STATES.get(item.state, RunnerState.UNKNOWN): item.count for item in message.runners},
        decisions=tuple(
            AppDecision(
                at=to_datetime(item.at),
                action=item.action,
                subject=item.subject,
                reason=item.reason,
                load=app_load(item.load),
            )
            for item in message.decisions
        ),
        known_since=to_datetime(message.known_since),
        next_revision=message.next_revision if message.HasField("next_revision") else None,
        failed_starts=message.failed_starts,
        last_failure=message.last_failure if message.HasField("last_failure") else None,
        lack=message.lack if message.HasField("lack") else None,
    )


def simulation(message: app_pb2.SimulateAppResponse) -> AppSimulation:
    return AppSimulation(
        points=tuple(
            SimulationPoint(
                at_seconds=point.at_seconds,
                runners=point.runners,
                ready=point.ready,
                in_flight=point.in_flight,
                queued=point.queued,
            )
            for point in message.points
        ),
        settings=alias_info(message.settings),
        started=message.started,
        most_runners=message.most_runners,
        runner_seconds=message.runner_seconds,
        wait_seconds=(message.wait_seconds_p50, message.wait_seconds_p95, message.wait_seconds_max),
        unserved=message.unserved,
    )

"""Conversions of explanations and simulations of apps."""

from __future__ import annotations

from fal_grpc.v1 import app_pb2 as pb
from fal_server.core.autoscale import Load
from fal_server.core.faults import InvalidArgument
from fal_server.core.simulation import Arrival, SimulationResult
from fal_server.grpc.convert import timestamp
from fal_server.grpc.runners import STATES
from fal_server.services.explain import Explanation


def explanation(told: Explanation, app: pb.AliasInfo) -> pb.ExplainAppResponse:
    """An explanation for the wire."""
    return pb.ExplainAppResponse(
        app=app,
        load=_load(told.load),
        decision=pb.ScalingDecision(
            start_below=told.decision.start_below, keep=told.decision.keep, arithmetic=told.decision.reason
        ),
        runners=[pb.RunnerCount(state=STATES[state], count=count) for state, count in sorted(told.runners.items())],
        decisions=[
            pb.AppDecision(
                at=timestamp(one.at), action=one.action, subject=one.subject, reason=one.reason, load=_load(one.load)
            )
            for one in told.decisions
        ],
        known_since=timestamp(told.known_since),
        next_revision=told.app.app.next_revision_id,
        failed_starts=told.failed_starts,
        last_failure=told.last_failure or None,
    )


def settings(request: pb.SimulateAppRequest, fields: dict[str, str]) -> dict[str, int]:
    """The settings to try, by the field names of core.scaling.Scaling.

    Args:
        fields: the wire's names -> those.

    Raises:
        Invalid: there is no setting of such a name.
    """
    unknown = sorted(set(request.settings) - set(fields))
    if unknown:
        raise InvalidArgument("settings", f"{unknown[0][:80]} is no setting: there are {', '.join(sorted(fields))}")
    return {fields[name]: value for name, value in request.settings.items()}


def arrivals(request: pb.SimulateAppRequest) -> list[Arrival]:
    """The requests to play."""
    return [Arrival(at=one.at_seconds, duration=one.duration_seconds) for one in request.arrivals]


def course(played: SimulationResult, app: pb.AliasInfo) -> pb.SimulateAppResponse:
    """What would have been, for the wire."""
    return pb.SimulateAppResponse(
        points=[
            pb.SimulationPoint(
                at_seconds=point.at,
                runners=point.runners,
                ready=point.ready,
                in_flight=point.in_flight,
                queued=point.queued,
            )
            for point in played.points
        ],
        settings=app,
        started=played.started,
        most_runners=played.most_runners,
        runner_seconds=played.runner_seconds,
        wait_seconds_p50=played.wait_of(50),
        wait_seconds_p95=played.wait_of(95),
        wait_seconds_max=played.wait_of(100),
        unserved=played.unserved,
    )


def _load(load: Load) -> pb.AppLoad:
    return pb.AppLoad(in_flight=load.in_flight, queued=load.queued, ripe=load.eligible)

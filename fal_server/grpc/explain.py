"""Conversions of explanations and simulations."""

from __future__ import annotations

from fal_grpc.v1 import app_pb2 as pb
from fal_server.core.autoscale import Load
from fal_server.core.faults import InvalidArgument
from fal_server.core.simulation import Arrival, SimulationResult
from fal_server.grpc.convert import timestamp
from fal_server.grpc.runners import STATES
from fal_server.services.explain import Explanation


def explanation(found: Explanation, app: pb.AliasInfo) -> pb.ExplainAppResponse:
    """Return an explanation for the wire."""
    return pb.ExplainAppResponse(
        app=app,
        load=app_load(found.load),
        decision=pb.ScalingDecision(
            start_below=found.decision.start_below,
            keep=found.decision.keep,
            arithmetic=found.decision.reason,
        ),
        runners=[pb.RunnerCount(state=STATES[state], count=count) for state, count in sorted(found.runners.items())],
        decisions=[
            pb.AppDecision(
                at=timestamp(one.at), action=one.action, subject=one.subject, reason=one.reason, load=app_load(one.load)
            )
            for one in found.decisions
        ],
        known_since=timestamp(found.known_since),
        next_revision=found.app.app.next_revision_id,
        failed_starts=found.failed_starts,
        last_failure=found.last_failure or None,
        lack=found.lack or None,
    )


def settings(request: pb.SimulateAppRequest, fields: dict[str, str]) -> dict[str, int]:
    """Return the settings to try, by the field names of core.scaling.Scaling.

    Args:
        fields: the name on the wire -> the field.

    Raises:
        InvalidArgument: a setting is unknown.
    """
    unknown = sorted(set(request.settings) - set(fields))
    if unknown:
        raise InvalidArgument(
            "settings", f"{unknown[0][:80]} is not a setting: use some of {', '.join(sorted(fields))}"
        )
    return {fields[name]: value for name, value in request.settings.items()}


def arrivals(request: pb.SimulateAppRequest) -> list[Arrival]:
    """Return the requests to play."""
    return [Arrival(at=one.at_seconds, duration=one.duration_seconds) for one in request.arrivals]


def simulation(result: SimulationResult, settings: pb.AliasInfo) -> pb.SimulateAppResponse:
    """Return the result of a simulation for the wire."""
    return pb.SimulateAppResponse(
        points=[
            pb.SimulationPoint(
                at_seconds=point.at,
                runners=point.runners,
                ready=point.ready,
                in_flight=point.in_flight,
                queued=point.queued,
            )
            for point in result.points
        ],
        settings=settings,
        started=result.started,
        most_runners=result.most_runners,
        runner_seconds=result.runner_seconds,
        wait_seconds_p50=result.wait_of(50),
        wait_seconds_p95=result.wait_of(95),
        wait_seconds_max=result.wait_of(100),
        unserved=result.unserved,
    )


def app_load(load: Load) -> pb.AppLoad:
    """Return an app's requests for the wire."""
    return pb.AppLoad(in_flight=load.in_flight, queued=load.queued, eligible=load.eligible)

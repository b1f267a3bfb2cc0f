"""Handlers for runs, which end when their caller disconnects."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator

from fal_grpc.v1 import log_pb2
from fal_grpc.v1 import run_pb2 as pb
from fal_server.core.faults import Unimplemented
from fal_server.grpc.caller import Caller
from fal_server.grpc.code import run_request
from fal_server.grpc.lines import short_line
from fal_server.grpc.revisions import service_urls
from fal_server.grpc.streams import closing
from fal_server.ports import RunResult
from fal_server.services.runs import Runs
from fal_server.services.views import RunEnded, RunStarted

_Status = pb.HostedRunStatus


class RunHandlers:
    """fal.v1.Runs."""

    def __init__(self, runs: Runs) -> None:
        self._runs = runs

    async def run(self, request: pb.HostedRun, caller: Caller) -> AsyncGenerator[pb.HostedRunResult]:
        """Run once. Messages before the run has an id, such as a build's log lines, have none."""
        run_id, env_id = "", request.env_id or None
        async with closing(self._runs.run(caller.scope, run_request(request, caller.scope.account))) as steps:
            async for step in steps:
                if isinstance(step, RunEnded):
                    yield _ended(step, env_id)
                    return
                answer = pb.HostedRunResult(status=_Status(state=_Status.IN_PROGRESS))
                if isinstance(step, RunStarted):
                    run_id, env_id = step.run_id, step.env_id
                    answer.service_urls.CopyFrom(service_urls(step.urls))
                else:
                    answer.logs.append(short_line(step))
                answer.run_id = run_id
                if env_id is not None:
                    answer.env_id = env_id
                yield answer

    def interactive_run(
        self, requests: AsyncIterator[pb.InteractiveRunRequest], caller: Caller
    ) -> AsyncGenerator[pb.InteractiveRunResponse]:
        """Refuse: no published client calls it."""
        raise Unimplemented("InteractiveRun is not served by this controller: call Run, and again after each change")

    def map(self, request: pb.HostedMap, caller: Caller) -> AsyncGenerator[pb.HostedRunResult]:
        """Refuse: no published client calls it."""
        raise Unimplemented("Map is not served by this controller: call Run once for each input")


def _ended(step: RunEnded, env_id: str | None) -> pb.HostedRunResult:
    """Return the last message. A callable that raised still counts as a successful run."""
    if step.result is None:
        reason = log_pb2.Log(message=step.reason, source=log_pb2.BRIDGE, level=log_pb2.ERROR)
        reason.timestamp.GetCurrentTime()
        state, value, logs = _Status.INTERNAL_FAILURE, None, [reason]
    else:
        state, value, logs = _Status.SUCCESS, _serialized(step.result), []
    return pb.HostedRunResult(
        run_id=step.run_id, status=_Status(state=state), return_value=value, logs=logs, env_id=env_id
    )


def _serialized(result: RunResult) -> pb.SerializedObject:
    return pb.SerializedObject(
        method=result.method,
        definition=result.definition,
        was_it_raised=result.raised,
        stringized_traceback=result.traceback,
        exception_type_name=result.exception_type,
        exception_message=result.exception_message,
    )

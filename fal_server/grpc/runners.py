"""Handlers for runners; shell.py serves sessions in them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from functools import partial
from typing import TypeAlias

from google.protobuf.struct_pb2 import ListValue, Struct, Value

from fal_grpc.v1 import runner_pb2 as pb
from fal_grpc.v1.node_pb2 import ListNodesRequest, ListNodesResponse
from fal_server.core.history import StartPhases
from fal_server.core.names import MAIN
from fal_server.core.resources import ResourceUse
from fal_server.core.runners import Desired, Runner, RunnerState
from fal_server.grpc.caller import Caller
from fal_server.grpc.convert import optional_time, timestamp
from fal_server.grpc.lists import serialized
from fal_server.grpc.nodes import machine_type, node_info
from fal_server.grpc.shell import serve_shell
from fal_server.grpc.streams import closing, pages
from fal_server.live.runner_view import RunnerView
from fal_server.services.nodes import Nodes
from fal_server.services.runners import MOST_ON_A_PAGE, Runners

_Info = pb.RunnerInfo
_Listing: TypeAlias = "pb.ListRunnersRequest | pb.ListAliasRunnersRequest"
_Listed: TypeAlias = "pb.ListRunnersResponse | pb.ListAliasRunnersResponse"
# DEAD, the old name of TERMINATED, is never sent: published clients raise an error on an unknown number.
STATES = {
    RunnerState.FAILURE_DELAY: _Info.FAILURE_DELAY,
    RunnerState.PENDING: _Info.PENDING,
    RunnerState.DOCKER_PULL: _Info.DOCKER_PULL,
    RunnerState.SETUP: _Info.SETUP,
    RunnerState.IDLE: _Info.IDLE,
    RunnerState.RUNNING: _Info.RUNNING,
    RunnerState.DRAINING: _Info.DRAINING,
    RunnerState.TERMINATING: _Info.TERMINATING,
    RunnerState.TERMINATED: _Info.TERMINATED,
}


class RunnerHandlers:
    """fal.v1.Runners."""

    def __init__(self, runners: Runners, nodes: Nodes) -> None:
        self._runners = runners
        self._nodes = nodes

    async def list_runners(self, request: pb.ListRunnersRequest, caller: Caller) -> bytes:
        return await self._list(pb.ListRunnersResponse, request, None, MAIN, caller)

    async def list_alias_runners(self, request: pb.ListAliasRunnersRequest, caller: Caller) -> bytes:
        environment = request.environment_name or MAIN
        return await self._list(pb.ListAliasRunnersResponse, request, request.alias, environment, caller)

    async def _list(
        self, kind: type[_Listed], request: _Listing, app: str | None, environment: str, caller: Caller
    ) -> bytes:
        """Return a page of runners. Callers that ask for no page, like published clients, get all of them.

        Only few of them exist as Python objects at a time, so that a garbage collection blocks the event loop for
        milliseconds only.
        """
        one = request.HasField("page_size")
        token = request.page_token if one else ""
        parts: list[bytes] = []
        regions = self._nodes.regions()
        while True:
            page = await self._runners.page(
                caller.scope,
                app,
                environment,
                since=optional_time(request, "start_time"),
                include_pending=request.list_pending,
                size=request.page_size if one else MOST_ON_A_PAGE,
                token=token,
            )
            parts.append(
                await serialized(page.views, partial(runner_info, regions=regions), lambda infos: kind(runners=infos))
            )
            token = page.next_token
            if one and token:
                parts.append(kind(next_page_token=token).SerializeToString())
            if one or not token:
                return b"".join(parts)

    async def watch_runners(
        self, request: pb.WatchRunnersRequest, caller: Caller
    ) -> AsyncGenerator[pb.WatchRunnersResponse]:
        found = self._runners.watch(
            caller.scope,
            request.alias,
            request.environment_name or MAIN,
            since=optional_time(request, "start_time"),
            version=request.version,
        )
        async with closing(found) as stream:
            async for changes in stream:
                regions = self._nodes.regions()
                for page in pages(changes):
                    yield pb.WatchRunnersResponse(
                        snapshot=page.snapshot,
                        runners=[runner_info(view, regions) for view in page.rows],
                        removed=[view.runner.runner_id for view in page.removed],
                        version=page.version,
                    )

    async def get_runner(self, request: pb.GetRunnerRequest, caller: Caller) -> pb.GetRunnerResponse:
        return pb.GetRunnerResponse(
            runner=runner_info(await self._runners.get(caller.scope, request.runner_id), self._nodes.regions())
        )

    async def stop_runner(self, request: pb.StopRunnerRequest, caller: Caller) -> pb.StopRunnerResponse:
        await self._runners.stop(
            caller.scope,
            request.runner_id,
            replace_first=request.replace_first,
            grace_seconds=request.grace_seconds if request.HasField("grace_seconds") else None,
        )
        return pb.StopRunnerResponse()

    async def list_nodes(self, request: ListNodesRequest, caller: Caller) -> ListNodesResponse:
        return ListNodesResponse(
            nodes=[node_info(view) for view in await self._nodes.list(caller.scope)],
            machine_types=map(machine_type, self._nodes.machine_types),
        )

    async def kill_runner(self, request: pb.KillRunnerRequest, caller: Caller) -> pb.KillRunnerResponse:
        await self._runners.kill(caller.scope, request.runner_id)
        return pb.KillRunnerResponse()

    def shell_runner(
        self, requests: AsyncIterator[pb.ShellRunnerInput], caller: Caller
    ) -> AsyncGenerator[pb.ShellRunnerOutput]:
        return serve_shell(self._runners, requests, caller)


def runner_info(view: RunnerView, regions: Mapping[str, str]) -> pb.RunnerInfo:
    """Return a runner for the wire.

    Args:
        regions: of the machines that have one, by name.
    """
    runner = view.runner
    return pb.RunnerInfo(
        runner_id=runner.runner_id,
        in_flight_requests=view.in_flight,
        expiration_countdown=view.expires_in_seconds,
        uptime=view.uptime_seconds,
        external_metadata=_metadata(view),
        revision=runner.revision_id,
        alias=runner.app_name,
        state=STATES[view.state],
        replacement=_replacement(runner),
        machine_type=runner.machine_type,
        state_reason=runner.reason or None,
        created_at=timestamp(runner.created_at),
        ready_at=timestamp(runner.ready_at) if runner.ready_at else None,
        ended_at=timestamp(runner.ended_at) if runner.ended_at else None,
        environment_name=runner.environment,
        exit_code=runner.exit_code,
        node=runner.node or None,
        gpus=runner.gpus,
        region=regions.get(runner.node),
        unreachable=view.unreachable,
        state_changes=[
            pb.RunnerStateChange(at=timestamp(change.at), state=STATES[change.state], reason=change.reason)
            for change in view.history
        ],
        start_phases=None if view.phases is None else _phases(view.phases),
        usage=None if view.resources is None else _usage(view.resources),
    )


def _usage(used: ResourceUse) -> pb.RunnerUsage:
    return pb.RunnerUsage(
        cpu_cores=used.cpu_cores,
        memory_bytes=used.memory_bytes,
        gpu_memory_bytes=used.gpu_memory_bytes,
        gpu_cores=used.gpu_cores,
        measured_at=timestamp(used.measured_at),
    )


def _phases(phases: StartPhases) -> pb.RunnerStartPhases:
    return pb.RunnerStartPhases(
        waiting_seconds=phases.waiting,
        environment_seconds=phases.environment,
        setup_seconds=phases.setup,
        first_byte_seconds=phases.first_byte,
    )


def _metadata(view: RunnerView) -> Struct:
    leases = ListValue()
    for lease in view.leases:
        leases.add_struct().update(
            {
                "request_id": lease.request_id,
                "caller_user_id": lease.caller,
                "leased_at_epoch": lease.started_at.timestamp(),
            }
        )
    # `Struct.update` takes several times as long, for each runner of a list.
    return Struct(fields={"reason": Value(string_value=view.runner.reason), "leases": Value(list_value=leases)})


def _replacement(runner: Runner) -> pb.RunnerInfo.ReplaceState.ValueType:
    if not runner.replace_first and runner.replaced_by is None:
        return _Info.NO_REPLACE
    if runner.desired is Desired.SERVE:
        return _Info.WILL_REPLACE
    return _Info.NO_REPLACE if runner.replaced_by is None else _Info.DID_REPLACE

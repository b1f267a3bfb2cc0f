"""Handlers for commands in runners; requests and responses are forwarded unchanged."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from typing import TypeAlias

from fal_grpc.v1 import exec_pb2 as pb
from fal_server.core.faults import InvalidArgument, NotFound
from fal_server.grpc.caller import Caller
from fal_server.grpc.streams import closing
from fal_server.ports.execs import ExecChannel
from fal_server.services.execs import Execs

_Named: TypeAlias = "pb.SignalExecRequest | pb.ResizeExecRequest | pb.CloseExecRequest"


class ExecHandlers:
    """fal.v1.Execs."""

    def __init__(self, execs: Execs) -> None:
        self._execs = execs

    async def start_exec(self, request: pb.StartExecRequest, caller: Caller) -> pb.StartExecResponse:
        line, notice = await self._execs.enter(caller.scope, request.runner_id)
        answer = await line.call("StartExec", request.SerializeToString())
        response = pb.StartExecResponse.FromString(answer)
        response.notice = notice
        return response

    async def read_exec(self, request: pb.ReadExecRequest, caller: Caller) -> AsyncGenerator[bytes]:
        line = await self._line(caller, request.runner_id, request.exec_id)
        async with closing(line.read(request.SerializeToString())) as messages:
            async for message in messages:
                yield message

    async def write_exec(self, requests: AsyncIterator[pb.WriteExecRequest], caller: Caller) -> bytes:
        first = await anext(requests, None)
        if first is None:
            raise InvalidArgument(
                "exec_id", "the first message is missing: send the ids of the runner and of the command"
            )
        line = await self._line(caller, first.runner_id, first.exec_id)
        return await line.write(_serialized(first, requests))

    async def signal_exec(self, request: pb.SignalExecRequest, caller: Caller) -> bytes:
        return await self._call(caller, "SignalExec", request)

    async def resize_exec(self, request: pb.ResizeExecRequest, caller: Caller) -> bytes:
        return await self._call(caller, "ResizeExec", request)

    async def close_exec(self, request: pb.CloseExecRequest, caller: Caller) -> bytes:
        return await self._call(caller, "CloseExec", request)

    async def get_exec(self, request: pb.GetExecRequest, caller: Caller) -> pb.GetExecResponse:
        """Return one command, from the named runner or whichever has it."""
        _require_id(request.exec_id)
        data = request.SerializeToString()
        if request.runner_id:
            line = await self._execs.line(caller.scope, request.runner_id)
            return pb.GetExecResponse.FromString(await line.call("GetExec", data))
        found = await self._execs.everywhere(caller.scope, lambda line: line.call("GetExec", data))
        if not found:
            raise NotFound(
                f"command {request.exec_id!r}",
                "it never existed or ended too long ago; `fal runners execs` shows which exist",
            )
        return pb.GetExecResponse.FromString(found[0])

    async def list_execs(self, request: pb.ListExecsRequest, caller: Caller) -> pb.ListExecsResponse:
        """Return the commands of one runner, or of all. They are in the order of their start."""
        data = request.SerializeToString()
        if request.runner_id:
            line = await self._execs.line(caller.scope, request.runner_id)
            answers = [await line.call("ListExecs", data)]
        else:
            answers = list(await self._execs.everywhere(caller.scope, lambda line: line.call("ListExecs", data)))
        execs = [found for answer in answers for found in pb.ListExecsResponse.FromString(answer).execs]
        return pb.ListExecsResponse(execs=sorted(execs, key=lambda found: found.started_at.ToNanoseconds()))

    async def _call(self, caller: Caller, method: str, request: _Named) -> bytes:
        line = await self._line(caller, request.runner_id, request.exec_id)
        return await line.call(method, request.SerializeToString())

    async def _line(self, caller: Caller, runner_id: str, exec_id: str) -> ExecChannel:
        _require_id(exec_id)
        return await self._execs.line(caller.scope, runner_id)


def _require_id(exec_id: str) -> None:
    if not exec_id:
        raise InvalidArgument("exec_id", "exec_id is empty: send the id of the command")


async def _serialized(first: pb.WriteExecRequest, requests: AsyncIterator[pb.WriteExecRequest]) -> AsyncIterator[bytes]:
    yield first.SerializeToString()
    async for request in requests:
        yield request.SerializeToString()

"""A node whose runners have no processes. One shim and one app answer for all.

Run it with a directory and the number of runners; it prints its address and its token.
"""

# ruff: noqa: N802  # the methods have the names of the protocol

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from fal_grpc.v1 import host_pb2, host_pb2_grpc, shim_pb2, shim_pb2_grpc
from fal_runner.shim.address import TOKEN_METADATA, ShimIdentity
from fal_server.engines.node.entrance import ControlSockets, Entrance
from fal_server.engines.node.fence import Fence
from fal_server.engines.node.identity import NodeIdentity
from fal_server.engines.node.service import Enrolment, refuse_all, serve

GPU = "GPU-PRETENDED"
_Context = grpc.aio.ServicerContext[Any, Any]
_BEAT_SECONDS = 1.0


class _Place:
    """The runners that were ordered: by their tokens, their ids."""

    def __init__(self, root: Path, runners: int, app_port: int) -> None:
        self.root = root
        self.runners = runners
        self.app_port = app_port
        self.ids: dict[str, str] = {}

    @property
    def shim(self) -> Path:
        return self.root / "shim.sock"


class _Shim(shim_pb2_grpc.ShimServicer):
    """Answers as the shim of whichever runner's token a call carries."""

    def __init__(self, place: _Place) -> None:
        self._place = place

    async def Start(self, request: shim_pb2.StartRequest, context: _Context) -> shim_pb2.StartResponse:
        return shim_pb2.StartResponse()

    async def GetStatus(self, request: shim_pb2.GetStatusRequest, context: _Context) -> shim_pb2.GetStatusResponse:
        tokens = [value for name, value in context.invocation_metadata() or () if name == TOKEN_METADATA]
        status = shim_pb2.ShimStatus(
            runner_id=self._place.ids[str(tokens[0])], state=shim_pb2.ShimStatus.STATE_READY, requests_in_flight=0
        )
        return shim_pb2.GetStatusResponse(status=status)

    async def GetUsage(self, request: shim_pb2.GetUsageRequest, context: _Context) -> shim_pb2.GetUsageResponse:
        return shim_pb2.GetUsageResponse()

    async def Watch(self, request: shim_pb2.WatchRequest, context: _Context) -> AsyncIterator[shim_pb2.WatchResponse]:
        ready = shim_pb2.WorkerReady(port=self._place.app_port)
        yield shim_pb2.WatchResponse(event=shim_pb2.ShimEvent(sequence=request.after + 1, ready=ready))
        await asyncio.Event().wait()

    async def StreamLogs(
        self, request: shim_pb2.StreamLogsRequest, context: _Context
    ) -> AsyncIterator[shim_pb2.StreamLogsResponse]:
        await asyncio.Event().wait()
        yield shim_pb2.StreamLogsResponse()

    async def AckLogs(self, request: shim_pb2.AckLogsRequest, context: _Context) -> shim_pb2.AckLogsResponse:
        return shim_pb2.AckLogsResponse()

    async def Stop(self, request: shim_pb2.StopRequest, context: _Context) -> shim_pb2.StopResponse:
        return shim_pb2.StopResponse()

    async def Kill(self, request: shim_pb2.KillRequest, context: _Context) -> shim_pb2.KillResponse:
        return shim_pb2.KillResponse()

    async def Shutdown(self, request: shim_pb2.ShutdownRequest, context: _Context) -> shim_pb2.ShutdownResponse:
        return shim_pb2.ShutdownResponse()


class _Host(host_pb2_grpc.HostServicer):
    """Takes the orders of a controller."""

    def __init__(self, place: _Place) -> None:
        self._place = place

    async def WatchHost(
        self, request: host_pb2.WatchHostRequest, context: _Context
    ) -> AsyncIterator[host_pb2.WatchHostResponse]:
        gpus = [host_pb2.HostGpu(id=f"pretended-{number}", label=GPU) for number in range(self._place.runners)]
        while True:
            shims = [host_pb2.LivingShim(runner_id=each, handle=each) for each in self._place.ids.values()]
            ends_at = int((datetime.now(UTC) + timedelta(days=7)).timestamp())
            machine = host_pb2.Machine(milli_cpus=4_000_000, memory_mib=1_000_000_000, gpus=gpus)
            yield host_pb2.WatchHostResponse(
                machine=machine, shims=shims, certificate_ends_at=ends_at, version=len(shims)
            )
            await asyncio.sleep(_BEAT_SECONDS)

    async def Lack(self, request: host_pb2.LackRequest, context: _Context) -> host_pb2.LackResponse:
        return host_pb2.LackResponse()

    async def Launch(
        self, request: host_pb2.LaunchRequest, context: _Context
    ) -> AsyncIterator[host_pb2.LaunchResponse]:
        directory = self._place.root / "runners" / request.runner_id
        directory.mkdir(parents=True, exist_ok=True)
        ShimIdentity(
            pid=1, started_ticks=1, boot_id="pretended", tag=request.runner_id, address=str(self._place.shim)
        ).write(directory)
        self._place.ids[request.token] = request.runner_id
        yield host_pb2.LaunchResponse(handle=request.runner_id, version=len(self._place.ids))

    async def Find(self, request: host_pb2.FindRequest, context: _Context) -> host_pb2.FindResponse:
        living = request.runner_id if request.token in self._place.ids else ""
        return host_pb2.FindResponse(living=living, last=living, version=len(self._place.ids))

    async def ListHost(self, request: host_pb2.ListHostRequest, context: _Context) -> host_pb2.ListHostResponse:
        return host_pb2.ListHostResponse(runner_ids=self._place.ids.values())

    async def SweepOthers(
        self, request: host_pb2.SweepOthersRequest, context: _Context
    ) -> host_pb2.SweepOthersResponse:
        return host_pb2.SweepOthersResponse()

    async def Sweep(self, request: host_pb2.SweepRequest, context: _Context) -> host_pb2.SweepResponse:
        return host_pb2.SweepResponse()

    async def Delete(self, request: host_pb2.DeleteRequest, context: _Context) -> host_pb2.DeleteResponse:
        return host_pb2.DeleteResponse()

    async def ReadLeftover(
        self, request: host_pb2.ReadLeftoverRequest, context: _Context
    ) -> AsyncIterator[host_pb2.ReadLeftoverResponse]:
        yield host_pb2.ReadLeftoverResponse()

    async def Put(
        self, request_iterator: AsyncIterator[host_pb2.PutRequest], context: _Context
    ) -> host_pb2.PutResponse:
        return host_pb2.PutResponse()

    async def Enter(
        self, request_iterator: AsyncIterator[host_pb2.EnterRequest], context: _Context
    ) -> AsyncIterator[host_pb2.EnterResponse]:
        yield host_pb2.EnterResponse()

    async def Accept(
        self, request_iterator: AsyncIterator[host_pb2.AcceptRequest], context: _Context
    ) -> AsyncIterator[host_pb2.AcceptResponse]:
        await asyncio.Event().wait()  # no runner here calls the controller
        yield host_pb2.AcceptResponse()

    async def NoteReady(self, request: host_pb2.NoteReadyRequest, context: _Context) -> host_pb2.NoteReadyResponse:
        return host_pb2.NoteReadyResponse()

    async def RequestCertificate(
        self, request: host_pb2.RequestCertificateRequest, context: _Context
    ) -> host_pb2.RequestCertificateResponse:
        return host_pb2.RequestCertificateResponse()

    async def SetCertificate(
        self, request: host_pb2.SetCertificateRequest, context: _Context
    ) -> host_pb2.SetCertificateResponse:
        return host_pb2.SetCertificateResponse()


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer each request of a connection as the app."""
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(
                (int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0
            )
            await reader.readexactly(length)
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}")
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def _run(root: Path, runners: int) -> None:
    app = await asyncio.start_server(_answer, "127.0.0.1", 0)
    place = _Place(root, runners, app.sockets[0].getsockname()[1])
    (root / "runners").mkdir(parents=True)
    identity = NodeIdentity(root / "node", lambda: datetime.now(UTC))
    sockets = ControlSockets(
        control=root / "control.sock", joining=root / "joining.sock", refusing=root / "refusing.sock"
    )
    fence = Fence(root / "node" / "epoch.json")
    bound = socket.create_server(("127.0.0.1", 0), backlog=4096)
    bound.setblocking(False)
    entrance = Entrance(bound, lambda: identity.joined, sockets, fence, root / "runners")

    async def joined() -> None:
        fence.forget()
        await entrance.open(identity.context())

    control, shim = grpc.aio.server(), grpc.aio.server()
    host_pb2_grpc.add_HostServicer_to_server(_Host(place), control)
    control.add_insecure_port(f"unix:{sockets.control}")
    shim_pb2_grpc.add_ShimServicer_to_server(_Shim(place), shim)
    shim.add_insecure_port(f"unix:{place.shim}")
    servers = control, shim, serve(sockets.joining, Enrolment(identity, joined)), refuse_all(sockets.refusing, fence)
    for server in servers:
        await server.start()
    await entrance.open(identity.context())
    print(f"127.0.0.1:{bound.getsockname()[1]} {identity.token}", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_run(Path(sys.argv[1]), int(sys.argv[2])))

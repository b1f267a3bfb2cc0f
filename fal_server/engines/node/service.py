"""Carries out a controller's orders on this machine."""

# ruff: noqa: N802

from __future__ import annotations

import asyncio
import hashlib
import logging
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import grpc
import grpc.aio

from fal_grpc import VERSION
from fal_grpc.v1 import host_pb2 as pb
from fal_grpc.v1 import host_pb2_grpc
from fal_runner.shim.address import ShimIdentity, SocketPath
from fal_server.core.faults import (
    FailedPrecondition,
    Fault,
    InvalidArgument,
    NodeTrouble,
    NotFound,
    PermissionDenied,
    Unavailable,
)
from fal_server.core.identity import AccountId
from fal_server.core.lifecycle import Event, Observation
from fal_server.core.runners import Runner
from fal_server.engines.local.host import LocalHost
from fal_server.engines.local.shim_process import LocalShimProcess, handle_of
from fal_server.engines.node.api_socket import ApiSocket
from fal_server.engines.node.fence import Fence
from fal_server.engines.node.identity import NodeIdentity
from fal_server.engines.node.network import why_not_own
from fal_server.engines.node.shims import LivingShims
from fal_server.engines.remote import wire
from fal_server.engines.remote.tunnel import splice_socket
from fal_server.engines.shim.runner_door import UnixDoor
from fal_server.ports import Blobs

log = logging.getLogger(__name__)
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
_BEAT_SECONDS = 1.0
_CODES: dict[type[Fault], grpc.StatusCode] = {
    NodeTrouble: grpc.StatusCode.RESOURCE_EXHAUSTED,
    FailedPrecondition: grpc.StatusCode.FAILED_PRECONDITION,
    InvalidArgument: grpc.StatusCode.INVALID_ARGUMENT,
    PermissionDenied: grpc.StatusCode.PERMISSION_DENIED,
    NotFound: grpc.StatusCode.NOT_FOUND,
    Unavailable: grpc.StatusCode.UNAVAILABLE,
}


class NodeFiles(Protocol):
    """The files of apps, as far as a node needs them."""

    def has(self, account: AccountId, file_hash: str) -> bool:
        """Whether it is here."""
        ...

    def keep(self, account: AccountId, file_hash: str, content: bytes, mode: int) -> None:
        """Keep a file. Blocking."""
        ...


class Enrolment:
    """What a node that has not joined answers. It answers whoever knows its token.

    Args:
        joined: called once a controller has signed the node's certificate.
    """

    def __init__(self, identity: NodeIdentity, joined: Callable[[], Awaitable[None]]) -> None:
        self._identity = identity
        self._joined = joined

    async def RequestCertificate(
        self, request: pb.RequestCertificateRequest, context: Context
    ) -> pb.RequestCertificateResponse:
        async with _faults(context):
            self._identity.check(request.token)
            return _certificate_request(self._identity)

    async def SetCertificate(self, request: pb.SetCertificateRequest, context: Context) -> pb.SetCertificateResponse:
        async with _faults(context):
            self._identity.check(request.token)
            self._identity.accept(request.certificate, request.authority)
            await self._joined()
            return pb.SetCertificateResponse()


class HostService(host_pb2_grpc.HostServicer):
    """What a joined node does for its controller. Nobody else reaches it.

    Args:
        host: this machine.
        shims: those that live.
        runners_dir: where each runner has its directory.
        variables: added to those of each runner, in place of what means something on the controller's machine alone.
        isolation: how strongly runners are kept apart, for people to read.
        renewed: called once a certificate was renewed.
        api_socket: where runners call the controller.
    """

    def __init__(
        self,
        host: LocalHost,
        shims: LivingShims,
        *,
        identity: NodeIdentity,
        blobs: Blobs,
        files: NodeFiles,
        runners_dir: Path,
        variables: Callable[[AccountId], dict[str, str]],
        isolation: str,
        renewed: Callable[[], None],
        api_socket: ApiSocket,
    ) -> None:
        self._host = host
        self._shims = shims
        self._identity = identity
        self._blobs = blobs
        self._files = files
        self._runners_dir = runners_dir
        self._variables = variables
        self._isolation = isolation
        self._renewed = renewed
        self._api_socket = api_socket

    async def RequestCertificate(
        self, request: pb.RequestCertificateRequest, context: Context
    ) -> pb.RequestCertificateResponse:
        return _certificate_request(self._identity)

    async def SetCertificate(self, request: pb.SetCertificateRequest, context: Context) -> pb.SetCertificateResponse:
        async with _faults(context):
            self._identity.accept(request.certificate, request.authority)
            self._renewed()
            return pb.SetCertificateResponse()

    async def WatchHost(self, request: pb.WatchHostRequest, context: Context) -> AsyncIterator[pb.WatchHostResponse]:
        while True:
            ends_at = self._identity.ends_at or datetime.now(UTC)
            yield pb.WatchHostResponse(
                machine=wire.machine(self._host.node(), version=VERSION, isolation=self._isolation),
                shims=[pb.LivingShim(runner_id=name, handle=handle) for name, handle in self._shims.handles.items()],
                certificate_ends_at=int(ends_at.timestamp()),
                version=self._shims.version,
            )
            await self._shims.change(_BEAT_SECONDS)

    async def Lack(self, request: pb.LackRequest, context: Context) -> pb.LackResponse:
        return pb.LackResponse(contents=[content for content in request.contents if not self._has(content)])

    async def Put(self, request_iterator: AsyncIterator[pb.PutRequest], context: Context) -> pb.PutResponse:
        async with _faults(context):
            first: pb.PutRequest | None = None
            parts: list[bytes] = []
            async for request in request_iterator:
                first = first or request
                parts.append(request.data)
            if first is None:
                raise InvalidArgument("content", "the first message names the content")
            content = b"".join(parts)
            if first.content.account:
                account = AccountId(first.content.account)
                self._files.keep(account, first.content.hash, content, first.mode)
            elif hashlib.sha256(content).hexdigest() != first.content.hash:
                raise InvalidArgument("data", f"the bytes are not those of {first.content.hash}")
            else:
                await self._blobs.put(content)
            return pb.PutResponse()

    async def Launch(self, request: pb.LaunchRequest, context: Context) -> AsyncIterator[pb.LaunchResponse]:
        build = asyncio.Event()

        async def building() -> None:
            build.set()

        request.variables.update(self._variables(AccountId(request.account)))
        network_trouble = why_not_own(request.network_host) if request.network_host else ""
        if network_trouble:
            request.network_host = ""
        spec = wire.launch_spec(request, self._identity.name)
        async with _faults(context):
            starting = asyncio.ensure_future(self._host.start(spec, building))
            noticing = asyncio.ensure_future(build.wait())
            try:
                await asyncio.wait([starting, noticing], return_when=asyncio.FIRST_COMPLETED)
                if build.is_set():
                    yield pb.LaunchResponse(building=True)
                shim = await starting
            finally:
                noticing.cancel()
                if not starting.done():  # nobody waits for it any more, so nothing of it may be left
                    starting.cancel()
                    await asyncio.gather(starting, return_exceptions=True)
            await shim.client.close()
            number = self._shims.add(request.runner_id)
            yield pb.LaunchResponse(handle=shim.process.handle, version=number, network_trouble=network_trouble)

    async def Find(self, request: pb.FindRequest, context: Context) -> pb.FindResponse:
        async with _faults(context):
            identity = ShimIdentity.read(self._runners_dir / request.runner_id)
            last = "" if identity is None else handle_of(identity)
            shim = await self._host.find(_runner(request.runner_id, request.token, request.handle))
            if shim is None:
                return pb.FindResponse(last=last)
            await shim.client.close()
            return pb.FindResponse(living=shim.process.handle, last=last, version=self._shims.add(request.runner_id))

    async def ListHost(self, request: pb.ListHostRequest, context: Context) -> pb.ListHostResponse:
        return pb.ListHostResponse(runner_ids=await self._host.list())

    async def Sweep(self, request: pb.SweepRequest, context: Context) -> pb.SweepResponse:
        async with _faults(context):
            await self._host.sweep(_runner(request.runner_id, request.token))
            return pb.SweepResponse()

    async def ReadLeftover(
        self, request: pb.ReadLeftoverRequest, context: Context
    ) -> AsyncIterator[pb.ReadLeftoverResponse]:
        directory = self._runners_dir / request.runner_id
        identity = ShimIdentity.read(directory)
        if identity is not None:
            async for entries in LocalShimProcess(directory, identity).leftover(request.after):
                yield pb.ReadLeftoverResponse(entries=entries)

    async def Delete(self, request: pb.DeleteRequest, context: Context) -> pb.DeleteResponse:
        async with _faults(context):
            shortage = await self._host.delete(request.runner_id, request.token or None)
            gone = Observation(runner_id=request.runner_id, event=Event.GONE)
            self._host.observed(gone)
            return pb.DeleteResponse(shortage=shortage)

    async def NoteReady(self, request: pb.NoteReadyRequest, context: Context) -> pb.NoteReadyResponse:
        self._host.observed(Observation(runner_id=request.runner_id, event=Event.READY))
        return pb.NoteReadyResponse()

    async def SweepOthers(self, request: pb.SweepOthersRequest, context: Context) -> pb.SweepOthersResponse:
        async with _faults(context):
            await self._host.sweep_others(list(request.known), list(request.followed))
            return pb.SweepOthersResponse()

    async def Enter(
        self, request_iterator: AsyncIterator[pb.EnterRequest], context: Context
    ) -> AsyncIterator[pb.EnterResponse]:
        async with _faults(context):
            connection = await self._enter((await anext(request_iterator)).runner_id)
            yield pb.EnterResponse()

        async with aclosing(_spliced(connection, _data(request_iterator), until_incoming_ends=False)) as outgoing:
            async for data in outgoing:
                yield pb.EnterResponse(data=data)

    async def Accept(
        self, request_iterator: AsyncIterator[pb.AcceptRequest], context: Context
    ) -> AsyncIterator[pb.AcceptResponse]:
        connection = await self._api_socket.accept()
        yield pb.AcceptResponse()

        async with aclosing(_spliced(connection, _data(request_iterator), until_incoming_ends=True)) as outgoing:
            async for data in outgoing:
                yield pb.AcceptResponse(data=data)

    async def _enter(self, runner_id: str) -> socket.socket:
        """Connect to the commands of a runner.

        Raises:
            Unavailable: it takes none now.
        """
        identity = ShimIdentity.read(self._runners_dir / runner_id)
        if identity is None:
            raise Unavailable(f"runner {runner_id} takes no commands now: it is not here")
        door = UnixDoor(Path(identity.address), runner_id)
        try:
            return await door.connect()
        finally:
            door.close()

    def _has(self, content: pb.Content) -> bool:
        if content.account:
            return self._files.has(AccountId(content.account), content.hash)
        try:
            self._blobs.path(content.hash)
        except NotFound:
            return False
        return True


async def _data(requests: AsyncIterator[pb.EnterRequest | pb.AcceptRequest]) -> AsyncIterator[bytes]:
    async for request in requests:
        yield request.data


async def _spliced(
    connection: socket.socket, incoming: AsyncIterator[bytes], *, until_incoming_ends: bool
) -> AsyncGenerator[bytes]:
    """Carry bytes between a call and a connection; yield those to send."""
    outgoing: asyncio.Queue[bytes | None] = asyncio.Queue(1)

    async def splice() -> None:
        with suppress(OSError, grpc.aio.BaseError):
            await splice_socket(
                connection,
                incoming=incoming,
                send=outgoing.put,
                end=_nothing,
                until_incoming_ends=until_incoming_ends,
            )
        await outgoing.put(None)  # unless this is cancelled: nobody takes anything then

    splicing = asyncio.ensure_future(splice())
    try:
        while (data := await outgoing.get()) is not None:
            yield data
    finally:
        splicing.cancel()
        await asyncio.gather(splicing, return_exceptions=True)


def serve(path: Path, service: HostService | Enrolment) -> grpc.aio.Server:
    """Return a server of these calls on a unix socket. The caller starts it."""
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", -1),
            ("grpc.max_send_message_length", -1),
            ("grpc.compression_enabled_algorithms_bitset", 1),
        ]
    )
    if isinstance(service, HostService):
        host_pb2_grpc.add_HostServicer_to_server(service, server)
    else:
        server.add_generic_rpc_handlers((_enrolment(service),))
    _bind(server, path)
    return server


def _bind(server: grpc.aio.Server, path: Path) -> None:
    """Bind a server to a socket. The directory of a path that gRPC cannot read stays open until the process ends."""
    server.add_insecure_port(SocketPath(path).target)


def refuse_all(path: Path, fence: Fence) -> grpc.aio.Server:
    """Return a server that tells an earlier controller that it is one. The caller starts it."""

    async def refuse(_requests: object, context: Context) -> None:
        await context.abort(
            grpc.StatusCode.ABORTED, f"another controller has taken this node over, with epoch {fence.latest}"
        )

    class Refusing(grpc.GenericRpcHandler):
        """Refuses every call, whatever its name."""

        def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any]:
            return grpc.stream_stream_rpc_method_handler(refuse)

    server = grpc.aio.server()
    server.add_generic_rpc_handlers((Refusing(),))
    _bind(server, path)
    return server


def _enrolment(service: Enrolment) -> grpc.GenericRpcHandler:
    """Return the two calls of a node that has not joined."""
    return grpc.method_handlers_generic_handler(
        pb.DESCRIPTOR.services_by_name["Host"].full_name,
        {
            "RequestCertificate": grpc.unary_unary_rpc_method_handler(
                service.RequestCertificate,
                request_deserializer=pb.RequestCertificateRequest.FromString,
                response_serializer=pb.RequestCertificateResponse.SerializeToString,
            ),
            "SetCertificate": grpc.unary_unary_rpc_method_handler(
                service.SetCertificate,
                request_deserializer=pb.SetCertificateRequest.FromString,
                response_serializer=pb.SetCertificateResponse.SerializeToString,
            ),
        },
    )


def _certificate_request(identity: NodeIdentity) -> pb.RequestCertificateResponse:
    return pb.RequestCertificateResponse(name=identity.name, signing_request=identity.signing_request())


def _runner(runner_id: str, token: str, handle: str = "") -> Runner:
    """Return a runner as far as this machine needs to know it."""
    return Runner(
        account=AccountId("node"),
        runner_id=runner_id,
        app_name="",
        environment="",
        revision_id="",
        machine_type="",
        token=token,
        created_at=datetime.now(UTC),
        handle=handle,
    )


async def _nothing() -> None:
    """Do nothing: the call ends when this side does."""


@asynccontextmanager
async def _faults(context: Context) -> AsyncGenerator[None]:
    """Answer with a fault's status."""
    try:
        yield
    except Fault as fault:
        code = next((code for kind, code in _CODES.items() if isinstance(fault, kind)), grpc.StatusCode.INTERNAL)
        await context.abort(code, fault.message)

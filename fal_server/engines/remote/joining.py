"""Has a machine join. It speaks with it before either knows the other's certificate."""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from datetime import datetime
from typing import TYPE_CHECKING

import grpc
import grpc.aio

from fal_grpc.cancellation import raise_if_cancelled
from fal_grpc.v1 import host_pb2 as pb
from fal_grpc.v1 import host_pb2_grpc
from fal_server.core.faults import InvalidArgument, PermissionDenied, Unavailable
from fal_server.engines.remote.names import DoorTarget, server_name
from fal_server.engines.shim.runner_door import OPTIONS

if TYPE_CHECKING:
    from fal_server.engines.remote.authority import NodeAuthority

_SECONDS = 15.0


async def join(authority: NodeAuthority, host: str, port: int, token: str) -> str:
    """Sign the certificate of the machine that printed this token. Return its name.

    Raises:
        InvalidArgument: the token is not one.
        PermissionDenied: the machine there did not print it.
        Unavailable: nothing answers there.
    """
    secret, _, digest = token.partition(".")
    if not secret or len(digest) != 64:
        raise InvalidArgument("token", "this is not a token of `fal node up`: give the whole line that it printed")
    der = await _shown_certificate(host, port)
    if hashlib.sha256(der).hexdigest() != digest:
        raise PermissionDenied(
            f"what answers on {host}:{port} is not the machine that printed this token, or has joined already: "
            "`fal node up --new-token` on it prints another"
        )
    name = authority.name_in(der)
    pem = ssl.DER_cert_to_PEM_cert(der).encode()
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    override = server_name(name, DoorTarget.CONTROL, "joining")
    options = [*OPTIONS, ("grpc.ssl_target_name_override", override)]
    async with grpc.aio.secure_channel(target, grpc.ssl_channel_credentials(pem), options=options) as channel:
        stub: host_pb2_grpc.HostAsyncStub = host_pb2_grpc.HostStub(channel)
        try:
            await _certify(stub, authority, name, secret)
        except grpc.aio.AioRpcError as error:
            raise_if_cancelled()
            if error.code() is grpc.StatusCode.PERMISSION_DENIED:
                raise PermissionDenied(error.details() or "the token is another's") from error
            raise Unavailable(f"the machine on {host}:{port} cannot join: {error.details()}") from error
    return name


async def renew(authority: NodeAuthority, node: str, stub: host_pb2_grpc.HostAsyncStub, ends_at: datetime) -> None:
    """Renew a node's certificate if that is due."""
    if authority.is_due(ends_at):
        await _certify(stub, authority, node, "")


async def _certify(stub: host_pb2_grpc.HostAsyncStub, authority: NodeAuthority, node: str, secret: str) -> None:
    asked = await stub.RequestCertificate(pb.RequestCertificateRequest(token=secret), timeout=_SECONDS)
    certificate = authority.sign(node, asked.signing_request)
    request = pb.SetCertificateRequest(token=secret, certificate=certificate, authority=authority.certificate)
    await stub.SetCertificate(request, timeout=_SECONDS)


async def _shown_certificate(host: str, port: int) -> bytes:
    """Return the certificate that a machine shows. Nothing is believed of it yet."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        async with asyncio.timeout(_SECONDS):
            _, writer = await asyncio.open_connection(host, port, ssl=context)
    except (OSError, TimeoutError) as error:
        raise Unavailable(f"no node answers on {host}:{port} ({error}): `fal node up` starts one there") from error
    try:
        return writer.get_extra_info("ssl_object").getpeercert(binary_form=True) or b""
    finally:
        writer.transport.abort()

"""The listener: gRPC and HTTP/1.1 on one port, and how it closes. It runs with and without TLS."""

from __future__ import annotations

import asyncio
import datetime as dt
import ipaddress
import resource
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import grpc.aio
import psutil
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from fal_server.http.server.listener import bind
from tests.http.support import App, Reader, Writer, echo, read_chunks, read_head, read_message, runner, running_server


async def _unary(request: bytes, context: object) -> bytes:
    return request[::-1]


async def _bidi(requests: AsyncIterator[bytes], context: object) -> AsyncIterator[bytes]:
    async for request in requests:
        yield request[::-1]


@asynccontextmanager
async def grpc_server(address: str) -> AsyncIterator[str]:
    """Run a gRPC server with a unary and a streaming method. Their messages are bytes. Yield its address."""
    server = grpc.aio.server()
    handlers = {
        "Unary": grpc.unary_unary_rpc_method_handler(_unary),
        "Bidi": grpc.stream_stream_rpc_method_handler(_bidi),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", handlers),))
    port = server.add_insecure_port(address)
    await server.start()
    try:
        yield address if address.startswith("unix:") else f"127.0.0.1:{port}"
    finally:
        await server.stop(0)


@pytest.fixture(params=["unix", "tcp"])
def internal(request, tmp_path: Path) -> str:
    """The address of the gRPC server: TCP or a unix socket."""
    return f"unix:{tmp_path}/grpc.sock" if request.param == "unix" else "127.0.0.1:0"


async def test_grpc_and_http_on_one_port(internal: str) -> None:
    async with (
        grpc_server(internal) as address,
        running_server(grpc_address=address) as h,
        grpc.aio.insecure_channel(f"127.0.0.1:{h.port}") as channel,
    ):
        unary = channel.unary_unary("/test.Echo/Unary")
        assert await unary(b"abc") == b"cba"
        reader, writer = await h.connect()
        writer.write(b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await read_message(reader))[2] == b"/x|"
        big = bytes(range(256)) * 12_000
        assert await unary(big) == big[::-1]


async def test_a_long_stream_in_both_directions(internal: str) -> None:
    async with (
        grpc_server(internal) as address,
        running_server(grpc_address=address) as h,
        grpc.aio.insecure_channel(f"127.0.0.1:{h.port}") as channel,
    ):
        call = channel.stream_stream("/test.Echo/Bidi")()
        count = 10_000

        async def send() -> None:
            for number in range(count):
                await call.write(b"%d" % number)
            await call.done_writing()

        sending = asyncio.create_task(send())
        number = 0
        async for answer in call:
            assert answer == (b"%d" % number)[::-1]
            number += 1
        await sending
        assert number == count


async def test_the_preface_in_pieces(internal: str) -> None:
    async with grpc_server(internal) as address, running_server(grpc_address=address) as h:
        reader, writer = await h.connect()
        for byte in b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n":
            writer.write(bytes([byte]))
            await writer.drain()
        writer.write(b"\0\0\0\4\0\0\0\0\0")
        frame = await reader.readexactly(9)
        assert frame[3] == 4  # SETTINGS


async def test_methods_that_start_like_the_preface() -> None:
    async with running_server() as h, runner(echo) as port:
        h.ledger.add(App("hello"), port)
        reader, writer = await h.connect()
        writer.write(b"P")
        writer.write(b"ROPFIND /me/hello HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await read_message(reader))[2].startswith(b"PROPFIND / ")


async def test_a_grpc_server_that_is_not_there(caplog) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = f"127.0.0.1:{listening.getsockname()[1]}"
    async with running_server(grpc_address=address) as h:
        reader, writer = await h.connect()
        writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        with suppress(ConnectionError):
            assert await reader.read() == b""
        assert "cannot be reached" in caplog.text


@pytest.mark.parametrize("sent", [b"", b"PRI * H"])
async def test_a_silent_connection_is_closed(sent: bytes) -> None:
    async with running_server(first_byte_seconds=0.05) as h:
        reader, writer = await h.connect()
        writer.write(sent)
        with suppress(ConnectionError):
            assert await reader.read() == b""


async def test_a_dead_client_is_detected() -> None:
    async with running_server() as h:
        reader, writer = await h.connect()
        writer.write(b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
        await read_message(reader)
        connection: Any
        (connection,) = h.listener.registry
        accepted = connection.transport.get_extra_info("socket")
        assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 60


async def test_a_port_that_is_taken() -> None:
    async with running_server() as h:
        with pytest.raises(OSError, match="in use"):
            await bind("127.0.0.1", h.port)


async def test_a_connection_without_a_descriptor_waits_and_is_answered() -> None:
    async with running_server() as h:
        clients = [socket.socket() for _ in range(20)]
        for client in clients:
            client.setblocking(False)
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        used = psutil.Process().num_fds()
        loop = asyncio.get_running_loop()
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (used + 3, before[1]))
            for client in clients:
                await loop.sock_connect(client, ("127.0.0.1", h.port))
                await loop.sock_sendall(client, b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
            first = [await loop.sock_recv(client, 12) for client in clients[:2]]
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
        assert [*first, *[await loop.sock_recv(client, 12) for client in clients[2:]]] == [b"HTTP/1.1 200"] * 20
        for client in clients:
            client.close()


# Closing.


async def test_open_requests_are_finished_and_new_connections_refused() -> None:
    asked, finish = asyncio.Event(), asyncio.Event()

    async def slow(reader: Reader, writer: Writer) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
        asked.set()
        await finish.wait()
        writer.write(b"1\r\nb\r\n0\r\n\r\n")

    async with running_server() as h, runner(slow) as port:
        h.ledger.add(App("hello"), port)
        idle, idle_writer = await h.connect()
        idle_writer.write(b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
        await read_message(idle)
        silent, _ = await h.connect()
        reader, writer = await h.connect()
        writer.write(b"GET /me/hello HTTP/1.1\r\nHost: x\r\n\r\n")
        await asked.wait()
        closing = asyncio.create_task(h.listener.close(30))
        assert await idle.read() == b""
        assert await silent.read() == b""
        with pytest.raises(OSError, match=r"refused|Connect call failed"):
            await h.connect()
        assert not closing.done()
        finish.set()
        assert (await read_message(reader))[2] == b"ab"
        assert await reader.read() == b""
        await closing


async def test_a_waiting_request_learns_that_the_connection_closes() -> None:
    async with running_server() as h, runner(echo) as port:
        h.ledger.add(App("hello"), None)
        reader, writer = await h.connect()
        writer.write(b"GET /me/hello HTTP/1.1\r\nHost: x\r\n\r\n")
        await h.ledger.until(lambda: h.ledger.waiting)
        closing = asyncio.create_task(h.listener.close(30))
        h.ledger.place("hello", port)
        first, fields, _ = await read_message(reader)
        assert (first, fields[b"connection"]) == (b"HTTP/1.1 200 OK", b"close")
        await closing


async def test_a_client_that_connects_just_before_the_end_is_answered() -> None:
    async with running_server() as h, runner(echo) as port:
        h.ledger.add(App("hello"), port)
        with socket.create_connection(("127.0.0.1", h.port)) as client:  # the kernel has it, and nobody accepted it
            h.listener.drain()
            assert (len(h.listener.registry), h.listener.open) == (0, 1)
            client.sendall(b"GET /me/hello HTTP/1.1\r\nHost: x\r\n\r\n")
            await h.listener.close(60)
            client.setblocking(False)
            assert client.recv(1024).startswith(b"HTTP/1.1 200")
            assert h.listener.open == 0


async def test_connections_are_aborted_after_the_grace(internal: str) -> None:
    asked = asyncio.Event()

    async def endless(reader: Reader, writer: Writer) -> None:
        await read_head(reader)
        asked.set()
        assert await reader.read() == b""

    async with grpc_server(internal) as address, running_server(grpc_address=address) as h, runner(endless) as port:
        h.ledger.add(App("hello"), port)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{h.port}") as channel:
            call = channel.stream_stream("/test.Echo/Bidi")()
            await call.write(b"ab")
            assert await call.read() == b"ba"
            reader, writer = await h.connect()
            writer.write(b"GET /me/hello HTTP/1.1\r\nHost: x\r\n\r\n")
            await asked.wait()
            await h.listener.close(0.05)
            assert len(h.listener.registry) == 0
            with suppress(ConnectionError):
                assert await reader.read() == b""
            with pytest.raises(grpc.aio.AioRpcError):
                await call.read()
        await h.ledger.ended()


# TLS.


@pytest.fixture(scope="module")
def certificate(tmp_path_factory) -> tuple[Path, Path]:
    """A self-signed certificate for localhost, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return folder / "cert.pem", folder / "key.pem"


async def test_tls_tells_them_apart_by_alpn(certificate: tuple[Path, Path]) -> None:
    cert, key = certificate
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    trusting = ssl.create_default_context(cafile=str(cert))

    async def events(reader: Reader, writer: Writer) -> None:
        _, fields = await read_head(reader)
        assert fields[b"x-forwarded-proto"] == b"https"
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
        writer.write(b"1\r\nb\r\n0\r\n\r\n")

    async with grpc_server("127.0.0.1:0") as address, running_server(grpc_address=address, tls=context) as h:
        credentials = grpc.ssl_channel_credentials(cert.read_bytes())
        async with grpc.aio.secure_channel(f"localhost:{h.port}", credentials) as channel:
            assert await channel.unary_unary("/test.Echo/Unary")(b"abc") == b"cba"
        async with runner(events) as port:
            h.ledger.add(App("hello"), port)
            for alpn in ([], ["http/1.1"]):
                if alpn:
                    trusting.set_alpn_protocols(alpn)
                reader, writer = await asyncio.open_connection("localhost", h.port, ssl=trusting)
                h.writers.append(writer)
                writer.write(b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
                assert (await read_message(reader))[2] == b"/x|"
                writer.write(b"GET /me/hello HTTP/1.1\r\nHost: x\r\n\r\n")
                await read_head(reader)
                assert [part async for part in read_chunks(reader)] in ([b"a", b"b"], [b"ab"])
                writer.write(b"nonsense\r\n\r\n")
                assert (await read_message(reader))[0] == b"HTTP/1.1 400 Bad Request"
                assert await reader.read() == b""
        # Plain bytes on the TLS port get no answer.
        plain, plain_writer = await h.connect()
        plain_writer.write(b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
        with suppress(ConnectionError):
            assert b"200" not in await plain.read()

"""An app's port on a trusted network. The controller alone passes there."""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from fal_runner.worker.gate import _MOST_CALLERS
from fal_server.core.addresses import RunnerAddress
from fal_server.core.lifecycle import Event
from fal_server.engines.node.network import why_not_own
from fal_server.http.gateway.upstream import knock_and_proof
from tests.engines.test_gate import GET, said_to
from tests.support.gate import address_of, ask
from tests.support.waiting import until

# All of 127.0.0.0/8 is this machine's.
NETWORK = "127.0.0.2"


def server_on(loop: str) -> Any:
    def serve(exposed_port: int) -> None:
        """Answer with the caller's address. `/self` returns what the app gets from itself at an address."""
        import asyncio
        import urllib.error
        import urllib.request
        from collections.abc import Awaitable, Callable

        import uvicorn

        def by_itself(host: str) -> bytes:
            try:
                with urllib.request.urlopen(f"http://{host}:{exposed_port}/") as answer:
                    return bytes(answer.read())
            except urllib.error.HTTPError as error:
                return str(error.code).encode()

        async def api(
            scope: Any, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
        ) -> None:
            if scope["type"] == "websocket":
                await receive()
                await send({"type": "websocket.accept"})
                await send({"type": "websocket.send", "text": scope["client"][0]})
                await send({"type": "websocket.close"})
                return
            body: bytes = scope["client"][0].encode()
            if scope["path"].startswith("/self/"):
                body = await asyncio.to_thread(by_itself, scope["path"].removeprefix("/self/"))
            length = (b"content-length", b"%d" % len(body))
            await send({"type": "http.response.start", "status": 200, "headers": [length]})
            await send({"type": "http.response.body", "body": body})

        uvicorn.run(api, host="0.0.0.0", port=exposed_port, loop=loop, log_level="error", lifespan="off")

    return serve


def serve_one_after_the_other(exposed_port: int) -> None:
    """Serve with three servers in turn, the third in another loop. `/next` ends one."""
    import asyncio

    async def serve(name: bytes) -> None:
        over = asyncio.Event()

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b" % (len(name), name))
            await writer.drain()
            writer.close()
            if head.startswith(b"GET /next "):
                over.set()

        server = await asyncio.start_server(answer, "0.0.0.0", exposed_port)
        await over.wait()
        server.close()

    async def serve_both() -> None:
        await serve(b"first")
        await serve(b"second")

    asyncio.run(serve_both())
    asyncio.run(serve(b"third"))


def on_network(address: RunnerAddress) -> RunnerAddress:
    return replace(address, host=NETWORK)


async def started(rig: Any, function: Any, **options: Any) -> tuple[Any, RunnerAddress]:
    """Start a runner on a trusted network. Return it with its address on this machine."""
    runner = await rig.start_launch(replace(rig.launch(function, http=True, **options), network_host=NETWORK))
    return runner, address_of(runner, await rig.until(runner, Event.READY))


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
async def test_the_controller_alone_passes(rig: Any, loop: str) -> None:
    runner, address = await started(rig, server_on(loop))
    await rig.lines.until(runner.runner_id, f"listens on {address.port}, and on {NETWORK} for the controller")
    assert await asyncio.to_thread(ask, on_network(address), "GET", "/") == b"127.0.0.1", "as for an app of its machine"
    wrong, _ = knock_and_proof("0" * 64)
    for data in (
        GET,
        wrong + GET,
        GET * 50,
        b"HEAD / HTTP/1.0\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
        b"GET / HTTP/1.1\r\nx-forwarded-for: 127.0.0.1\r\n" + b"a: b\r\n" * 10_000,
    ):
        assert (await asyncio.to_thread(said_to, on_network(address), data)).startswith(b"HTTP/1.1 403 Forbidden\r\n")
    assert await asyncio.to_thread(ask, address, "GET", "/self/127.0.0.1") == b"127.0.0.1"
    assert await asyncio.to_thread(ask, address, "GET", f"/self/{NETWORK}") == b"403", "a runner knows its own port"


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
async def test_who_connects_and_waits_takes_no_room_from_the_controller(rig: Any, loop: str) -> None:
    _, address = await started(rig, server_on(loop))
    with ExitStack() as stack:
        waiting = [
            stack.enter_context(socket.create_connection((NETWORK, address.port), 30)) for _ in range(_MOST_CALLERS + 5)
        ]
        first, others = waiting[:5], waiting[5:]
        for connection in first:
            assert await asyncio.to_thread(_ends, connection)
        assert await asyncio.to_thread(ask, on_network(address), "GET", "/") == b"127.0.0.1"
        assert await asyncio.to_thread(_ends, others[0]), "the controller's took its place"
        others[-1].setblocking(False)
        with pytest.raises(BlockingIOError):
            others[-1].recv(1)


def _ends(connection: socket.socket) -> bool:
    """Return whether a connection is ended without a word."""
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
async def test_web_sockets_pass(rig: Any, loop: str) -> None:
    _, address = await started(rig, server_on(loop))
    knock, proof = knock_and_proof(address.gate_key)
    upgrade = (
        b"GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n"
        b"sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    masked_close = b"\x88\x80" + os.urandom(4)
    answer = await asyncio.to_thread(said_to, on_network(address), knock, upgrade, masked_close)
    assert answer.startswith(proof + b"HTTP/1.1 101 ")
    assert b"\x81\x09127.0.0.1" in answer


async def test_it_leads_to_the_server_that_the_app_has_now(rig: Any) -> None:
    _, address = await started(rig, serve_one_after_the_other)
    for name in (b"first", b"second", b"third"):
        await asyncio.to_thread(until, partial(_answers, address, name), "the next server")
        assert (await asyncio.to_thread(_asked, on_network(address), b"/next")).endswith(name)


def _answers(address: RunnerAddress, name: bytes) -> bool:
    return _asked(on_network(address), b"/").endswith(name)


def _asked(address: RunnerAddress, path: bytes) -> bytes:
    """Return what is answered; nothing while no server listens."""
    knock, _ = knock_and_proof(address.gate_key)
    try:
        return said_to(address, knock + GET.replace(b"/", path, 1))
    except OSError:
        return b""


async def test_a_port_without_a_gate_stays_on_its_machine(rig: Any) -> None:
    def serve_threads(exposed_port: int) -> None:
        from http.server import BaseHTTPRequestHandler, HTTPServer

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("content-length", "5")
                self.end_headers()
                self.wfile.write(b"hello")

        HTTPServer(("0.0.0.0", exposed_port), Handler).serve_forever()

    _, address = await started(rig, serve_threads)
    assert not address.gate_key
    assert await asyncio.to_thread(ask, address, "GET", "/") == b"hello"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((NETWORK, address.port), 10)


async def test_an_app_serves_although_its_port_is_taken_on_the_network(rig: Any) -> None:
    def serve_beside(exposed_port: int) -> None:
        import asyncio
        import socket

        taken = socket.socket()
        taken.bind(("127.0.0.2", exposed_port))
        taken.listen()

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello")
            writer.close()

        async def serve() -> None:
            async with await asyncio.start_server(answer, "0.0.0.0", exposed_port) as server:
                await server.serve_forever()

        asyncio.run(serve())

    runner, address = await started(rig, serve_beside)
    line = await rig.lines.until(runner.runner_id, f"listens on {address.port}")
    assert NETWORK not in line.message
    assert await asyncio.to_thread(ask, address, "GET", "/") == b"hello"


@pytest.mark.parametrize("host", ["", "0.0.0.0", "::", "127.0.0.1", "198.51.100.7", "box.example"])
def test_ports_are_opened_on_an_address_of_the_machine_alone(host: str) -> None:
    assert why_not_own(host)

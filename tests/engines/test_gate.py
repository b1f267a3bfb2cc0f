"""The gate of an app's port: which connections pass. No app loses its port."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from typing import Any

import pytest

from fal_runner.worker.gate import KNOCK, NONCE_BYTES, PROOF_BYTES
from fal_server.core.addresses import RunnerAddress, gate_key_of
from fal_server.core.app_metrics import MOST_BYTES, BadPage
from fal_server.core.lifecycle import Event
from fal_server.core.runners import MetricsAccess
from fal_server.http.gateway.metrics_client import HttpMetricsReader
from fal_server.http.gateway.upstream import Pool, knock_and_proof, straight
from tests.support.gate import address_of, ask, metrics_address_of


def serve(exposed_port: int) -> None:
    """Serve with uvicorn. `/self` returns what the app gets from itself, and `/child` what its child process gets."""
    import asyncio
    import subprocess
    import sys
    import urllib.error
    import urllib.request
    from collections.abc import Awaitable, Callable

    import uvicorn

    url = f"http://127.0.0.1:{exposed_port}/"
    program = f"import urllib.request; print(urllib.request.urlopen({url!r}).read().decode(), end='')"

    def by_itself() -> bytes:
        with urllib.request.urlopen(url) as answer:
            return bytes(answer.read())

    def by_a_child() -> bytes:
        return subprocess.run([sys.executable, "-c", program], check=True, capture_output=True).stdout

    ways: dict[str, Callable[[], bytes]] = {"/self": by_itself, "/child": by_a_child}

    async def api(scope: Any, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]) -> None:
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.send", "text": "hello"})
            return
        way = ways.get(scope["path"])
        body = b"hello" if way is None else await asyncio.to_thread(way)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})

    uvicorn.run(api, host="0.0.0.0", port=exposed_port, log_level="error", lifespan="off")


def said_to(address: RunnerAddress, *parts: bytes) -> bytes:
    """Send bytes, and return the complete answer."""
    with socket.create_connection((address.host, address.port), timeout=30) as sock:
        for part in parts:
            sock.sendall(part)
        answered = b""
        try:
            while data := sock.recv(65536):
                answered += data
        except ConnectionResetError:
            pass
        return answered


GET = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"


async def served(rig: Any, function: Any = serve, **options: Any) -> tuple[Any, RunnerAddress]:
    runner = await rig.start(function, http=True, **options)
    return runner, address_of(runner, await rig.until(runner, Event.READY))


async def test_another_program_of_the_machine_is_refused(rig: Any) -> None:
    _, address = await served(rig)
    assert address.gate_key
    answer = await asyncio.to_thread(said_to, address, GET)
    assert answer.startswith(b"HTTP/1.1 403 Forbidden\r\n")
    assert b"takes calls from its controller alone" in answer
    assert b"hello" not in answer


async def test_a_knock_with_one_other_bit_is_refused(rig: Any) -> None:
    _, address = await served(rig)
    for place in range(len(KNOCK) + NONCE_BYTES + PROOF_BYTES):
        knock, _ = knock_and_proof(address.gate_key)
        wrong = bytearray(knock)
        wrong[place] ^= 1 << place % 8
        assert b"hello" not in await asyncio.to_thread(said_to, address, bytes(wrong) + GET)


async def test_the_controller_passes_however_its_bytes_are_cut(rig: Any) -> None:
    _, address = await served(rig)
    for size in (1, 7, 56, 57, 200):
        knock, proof = knock_and_proof(address.gate_key)
        everything = knock + GET
        parts = [everything[at : at + size] for at in range(0, len(everything), size)]
        answer = await asyncio.to_thread(said_to, address, *parts)
        assert answer.startswith(proof + b"HTTP/1.1 200 OK")
        assert answer.endswith(b"hello")


async def test_another_runners_key_opens_nothing(rig: Any) -> None:
    _, one = await served(rig)
    _, two = await served(rig)
    knock, _ = knock_and_proof(one.gate_key)
    assert one.gate_key != two.gate_key
    assert b"hello" not in await asyncio.to_thread(said_to, two, knock + GET)


async def test_the_runner_itself_passes(rig: Any) -> None:
    runner, address = await served(rig)
    assert await asyncio.to_thread(ask, address, "GET", "/self") == b"hello"
    assert await asyncio.to_thread(ask, address, "GET", "/child") == b"hello"
    code = f"import urllib.request; print(urllib.request.urlopen('http://127.0.0.1:{address.port}/').read())"
    ran = await rig.run(runner, sys.executable, "-c", code)
    assert (ran.code, bytes(ran.stdout)) == (0, b"b'hello'\n"), bytes(ran.stderr)


async def test_another_runner_does_not(rig: Any) -> None:
    _, address = await served(rig)

    def call(port: int) -> str:
        import urllib.error
        import urllib.request

        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/") as answer:
                return str(answer.read())
        except urllib.error.HTTPError as error:
            return str(error.code)

    port = address.port
    other = await rig.start(lambda: print("got", call(port), flush=True))
    assert (await rig.lines.until(other.runner_id, "got ")).message == "got 403"


async def test_the_gate_outlives_the_controller(rig: Any) -> None:
    runner, address = await served(rig)
    assert await rig.restart(adopt=runner)
    again = address_of(runner, await rig.until(runner, Event.READY))
    assert again == address
    assert await asyncio.to_thread(ask, again, "GET", "/") == b"hello"


async def test_a_worker_that_waited_has_a_gate(warm: Any) -> None:
    for _ in range(2):
        runner = await warm.rig.start_launch(warm.launch(serve, http=True))
        address = address_of(runner, await warm.rig.until(runner, Event.READY))
        assert address.gate_key
        assert await asyncio.to_thread(ask, address, "GET", "/") == b"hello"
        assert (await asyncio.to_thread(said_to, address, GET)).startswith(b"HTTP/1.1 403")
        waiting = await warm.worker()
        await warm.rig.engine.kill(runner)
        await warm.rig.until(runner, Event.GONE)
        assert waiting


async def test_children_that_accept_for_their_parent_have_none(rig: Any) -> None:
    """The parent listens, and its children accept, so there is no gate. They are forked or new programs."""

    def fork_servers(exposed_port: int) -> None:
        import asyncio
        import os
        import socket

        listening = socket.create_server(("0.0.0.0", exposed_port))

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello")
            writer.close()

        async def accept() -> None:
            async with await asyncio.start_server(answer, sock=listening) as server:
                await server.serve_forever()

        if os.fork() == 0:
            asyncio.run(accept())
        os.wait()

    runner, address = await served(rig, fork_servers)
    assert not address.gate_key
    await rig.lines.until(runner.runner_id, f"listens on {address.port}, open to every program of this machine")
    assert await asyncio.to_thread(ask, address, "GET", "/") == b"hello"


async def test_workers_of_uvicorn_keep_their_port(rig: Any) -> None:
    def serve_by_two(exposed_port: int) -> None:
        import uvicorn

        uvicorn.run("answering:api", host="0.0.0.0", port=exposed_port, workers=2, lifespan="off", log_level="error")

    code = b"""
async def api(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})
"""
    _, address = await served(rig, serve_by_two, files={"answering.py": code})
    assert await asyncio.to_thread(ask, address, "GET", "/") == b"hello"


class _Heard:
    def __init__(self) -> None:
        self.broken: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def on_response(self) -> None:
        self.broken.set_result("answered")

    def on_broken(self, detail: str) -> None:
        if not self.broken.done():
            self.broken.set_result(detail)

    def on_runner_slow(self) -> None:
        """Nothing is sent."""

    def on_runner_ready(self) -> None:
        """Nothing is sent."""


async def test_who_takes_a_dead_runners_port_cannot_answer_for_it() -> None:
    async def pretend(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(65536)
        writer.write(os.urandom(PROOF_BYTES) + b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(pretend, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        upstream = await Pool(straight).connect("r", RunnerAddress("127.0.0.1", port, "0" * 64), seconds=30)
        heard = _Heard()
        upstream.start_request(heard, bodyless=False)
        upstream.transport.write(GET)
        assert await heard.broken == "what answers on the runner's port is not its app"


async def serve_both(exposed_port: int, exposed_metrics_port: int) -> None:
    """Serve the app and its metrics. With the file `later`, the metrics come only after GET /open."""
    import asyncio
    from pathlib import Path

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if (await reader.readuntil(b"\r\n\r\n")).startswith(b"GET /open "):
            await asyncio.start_server(answer, "0.0.0.0", exposed_metrics_port)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\nconnection: close\r\n\r\nimages 3\n")
        writer.close()

    if not await asyncio.to_thread(Path("later").exists):
        await asyncio.start_server(answer, "0.0.0.0", exposed_metrics_port)
    await asyncio.start_server(answer, "0.0.0.0", exposed_port)
    await asyncio.Event().wait()


async def page_at(address: RunnerAddress) -> bytes:
    """Read the metrics as the controller does."""
    return await HttpMetricsReader(straight).read(address, most_bytes=MOST_BYTES, seconds=30)


async def test_the_controller_alone_reads_the_metrics(rig: Any) -> None:
    runner = await rig.start(serve_both, http=True, metrics=True)
    ready = await rig.until(runner, Event.READY)
    assert ready.metrics_access is MetricsAccess.GATED
    address = metrics_address_of(runner, ready)
    assert await page_at(address) == b"images 3\n"
    assert (await asyncio.to_thread(said_to, address, GET)).startswith(b"HTTP/1.1 403 Forbidden\r\n")
    knock, _ = knock_and_proof(gate_key_of(runner.token))
    assert b"images" not in await asyncio.to_thread(said_to, address, knock + GET), "the app's key opens its metrics"
    ran = await rig.run(runner, sys.executable, "-c", _READS.format(port=address.port))
    assert (ran.code, bytes(ran.stdout)) == (0, b"b'images 3\\n'\n"), bytes(ran.stderr)


_READS = "import urllib.request; print(urllib.request.urlopen('http://127.0.0.1:{port}/').read())"


async def test_metrics_that_open_later_have_a_gate_also_for_the_next_controller(rig: Any) -> None:
    runner = await rig.start(serve_both, http=True, metrics=True, files={"later": b""})
    ready = await rig.until(runner, Event.READY)
    assert ready.metrics_access is MetricsAccess.CLOSED
    await asyncio.to_thread(ask, address_of(runner, ready), "GET", "/open")
    for _ in range(2):
        opened = await rig.until(runner, Event.METRICS)
        assert opened.metrics_access is MetricsAccess.GATED
        address = metrics_address_of(runner, ready, opened.metrics_access)
        assert await page_at(address) == b"images 3\n"
        assert (await asyncio.to_thread(said_to, address, GET)).startswith(b"HTTP/1.1 403")
        assert await rig.restart(adopt=runner)


async def test_metrics_that_threads_serve_have_none_and_the_log_says_so(rig: Any) -> None:
    def serve_in_threads(exposed_port: int, exposed_metrics_port: int) -> None:
        import asyncio
        import http.server
        import threading

        class Page(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.end_headers()
                self.wfile.write(b"images 3\n")

        pages = http.server.ThreadingHTTPServer(("0.0.0.0", exposed_metrics_port), Page)
        threading.Thread(target=pages.serve_forever, daemon=True).start()

        async def serve() -> None:
            await (await asyncio.start_server(lambda _, writer: writer.close(), "0.0.0.0", exposed_port)).wait_closed()
            await asyncio.Event().wait()

        asyncio.run(serve())

    runner = await rig.start(serve_in_threads, http=True, metrics=True)
    ready = await rig.until(runner, Event.READY)
    assert (ready.gated, ready.metrics_access) == (True, MetricsAccess.OPEN)
    address = metrics_address_of(runner, ready)
    await rig.lines.until(runner.runner_id, f"metrics on {address.port}, open to every program of this machine")
    assert await page_at(address) == b"images 3\n"


@asynccontextmanager
async def relay(at: int, to: int) -> AsyncIterator[list[bytes]]:
    """Take a port, and pass what arrives on to another. Pass its first answer back, and then answer in its place."""

    async def pretend(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer):
            if asked := await reader.read(65536):
                passed_on.append(asked)
                answered = await asyncio.to_thread(said_to, RunnerAddress("127.0.0.1", to), asked)
                writer.write(answered[:PROOF_BYTES] + b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nimages 9\n")
                await writer.drain()

    passed_on: list[bytes] = []
    async with await asyncio.start_server(pretend, "127.0.0.1", at):
        yield passed_on


async def test_who_takes_the_port_of_the_metrics_cannot_answer_there(rig: Any) -> None:
    """The app serves no metrics. Another program passes the controller's proof on to the app's own port."""
    runner = await rig.start(serve_both, http=True, metrics=True, files={"later": b""})
    ready = await rig.until(runner, Event.READY)
    async with relay(ready.metrics_port, ready.port) as passed_on:
        unopened = replace(
            runner, host=ready.host, metrics_port=ready.metrics_port, metrics_access=ready.metrics_access
        )
        assert unopened.metrics_address is None, "the controller asks nobody"
        await rig.lines.until(runner.runner_id, f"port {ready.metrics_port} is held by a process that is not this")
        with pytest.raises(BadPage, match="unreachable"):
            await page_at(metrics_address_of(runner, ready, MetricsAccess.GATED))
        assert passed_on[0].startswith(KNOCK)
    assert not [seen for seen in rig.seen[runner.runner_id] if seen.event is Event.METRICS]

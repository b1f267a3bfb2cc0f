"""Every protocol through a controller that waits. The owner may die or freeze."""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from pathlib import Path

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from fal.websocket import WebSocket
from tests.e2e.test_nodes import NodeProcess, end, start_node
from tests.support.certificates import Authority
from tests.support.controller import BIN, Controller, start
from tests.support.dashboard import Browser
from tests.support.postgresql import postgresql

APP = """
import asyncio
import os
import fal
from fastapi import Request, WebSocket
from fastapi.responses import StreamingResponse
from pydantic import BaseModel


class Number(BaseModel):
    number: int


class Wide(fal.App, name="wide", keep_alive=3600, max_concurrency=1, max_multiplexing=50):
    termination_grace_period_seconds = 1
    machine_type = "GPU-FAR"  # which only the node of this test offers

    @fal.endpoint("/")
    def run(self, given: Number) -> dict:
        print(f"number {given.number}", flush=True)
        return {"pid": os.getpid()}

    @fal.endpoint("/wait")
    async def wait(self) -> dict:
        print("it waits", flush=True)
        await asyncio.Event().wait()
        return {}

    @fal.endpoint("/stream")
    async def stream(self, given: Number) -> StreamingResponse:
        async def events():
            for number in range(given.number):
                yield f"data: {number}\\n\\n"
            if given.number == 1:
                await asyncio.Event().wait()
        return StreamingResponse(events(), media_type="text/event-stream")

    @fal.endpoint("/take")
    async def take(self, request: Request) -> dict:
        size = 0
        async for part in request.stream():
            size += len(part)
        return {"size": size}

    @fal.endpoint("/socket", is_websocket=True)
    async def socket(self, websocket: WebSocket) -> None:
        await websocket.accept()
        while True:
            await websocket.send_bytes(await websocket.receive_bytes())

    @fal.realtime("/realtime")
    def live(self, given: Number) -> Number:
        return Number(number=given.number + 1)
"""
ECHO = "import socket;s=socket.create_server(('127.0.0.1',0));print(s.getsockname()[1],flush=True)\nwhile 1:\n c=s.accept()[0];c.sendall(c.recv(9));c.close()"  # noqa: E501
UPLOADED = 64 * 1024 * 1024


@dataclass
class Door:
    """A way to the owner: an address, and what admits a client."""

    controller: Controller
    context: ssl.SSLContext | None = None
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def host(self) -> str:
        return f"localhost:{self.controller.port}"

    @property
    def environment(self) -> dict[str, str]:
        scheme = "https" if self.context else "http"
        return {**self.controller.environment, "FAL_GRPC_HOST": f"{scheme}://{self.host}", **self.variables}

    def fal(self, *arguments: str, stdin: bytes = b"", **variables: str) -> subprocess.CompletedProcess[bytes]:
        command = [str(BIN / "fal"), *arguments]
        environment = {**self.environment, **variables}
        done = subprocess.run(command, env=environment, input=stdin, capture_output=True, check=False, timeout=180)
        assert done.returncode in (0, 3), done.stderr.decode()
        return done

    @contextmanager
    def begin(self, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
        """Run a command while the block runs."""
        pipe = subprocess.PIPE
        command = [str(BIN / "fal"), *arguments]
        process = subprocess.Popen(command, env=self.environment, stdin=pipe, stdout=pipe, stderr=pipe)
        try:
            yield process
        finally:
            process.kill()
            process.communicate()

    def send(self, method: str, path: str, body: bytes | None = None) -> HTTPResponse:
        """Send a request; closing the answer closes its connection."""
        kind = {"timeout": 120} if self.context is None else {"timeout": 120, "context": self.context}
        connection = (HTTPSConnection if self.context else HTTPConnection)(self.host, **kind)  # type: ignore[arg-type]
        headers = {"Authorization": f"Key {self.controller.key}", "Content-Type": "application/json"}
        connection.request(method, path, body, {**headers, "Connection": "close"})  # the answer's own from now on
        return connection.getresponse()

    def json(self, path: str, body: object) -> dict[str, object]:
        with self.send("POST", path, json.dumps(body).encode()) as answer:
            text = answer.read()
        assert answer.status == 200, text
        return json.loads(text)

    def socket(self, path: str) -> WebSocket:
        scheme, fields = ("wss" if self.context else "ws"), {"Authorization": f"Key {self.controller.key}"}
        return WebSocket(connect(f"{scheme}://{self.host}{path}", ssl=self.context, additional_headers=fields))


@dataclass
class Site:
    """Two controllers on one database, and a node with an app's runner."""

    folder: Path
    url: str
    node: NodeProcess
    arguments: tuple[str, ...]
    client: tuple[Path, Path] | None

    def start(self, name: str) -> Door:
        key = self.folder / "master.key"
        controller = start(
            self.folder / name,
            *("--standby", "--content-dir", str(self.folder / "content"), *self.arguments),
            environment={"FAL_DATABASE_URL": self.url, "FAL_MASTER_KEY_FILE": str(key)},
        )
        if self.client is None:
            return Door(controller)
        roots = controller.state_dir / "tls" / "ca.pem"
        context = ssl.create_default_context(cafile=str(roots))
        context.load_cert_chain(*self.client)
        files = {"FAL_CLIENT_CERT_FILE": str(self.client[0]), "FAL_CLIENT_KEY_FILE": str(self.client[1])}
        return Door(controller, context, {"SSL_CERT_FILE": str(roots), **files})


@pytest.fixture(params=["plaintext", "TLS and client certificates"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    tls = request.param != "plaintext"
    arguments: tuple[str, ...] = ()
    client = None
    if tls:
        authority = Authority(tmp_path, "ours")
        arguments, client = ("--tls", "--tls-client-ca", str(authority.file)), authority.issue("ann")
    (tmp_path / "master.key").write_text("bWFzdGVyLWtleS1vZi10d28tY29udHJvbGxlcnMtMDE=\n")
    (tmp_path / "master.key").chmod(0o600)
    (tmp_path / "wide.py").write_text(APP)
    node = start_node(tmp_path / "box2")
    try:
        with tempfile.TemporaryDirectory(prefix="pg") as directory, postgresql(Path(directory)) as server:
            yield Site(tmp_path, server.make("fal"), node, arguments, client)
    finally:
        end(node)


@contextmanager
def two(site: Site) -> Iterator[tuple[Door, Door]]:
    """Run two controllers. Yield the doors of the owner and of the one that waits."""
    owner = site.start("first")
    doors = [owner]
    try:
        doors.append(site.start("second"))
        owner.fal("node", "join", site.node.address, stdin=f"{site.node.token}\n".encode())
        doors[1].fal("deploy", str(site.folder / "wide.py"))
        yield owner, doors[1]
    finally:
        for door in reversed(doors):  # the owner last: else the other would take its runners over
            if door.controller.process.poll() is None:
                door.controller.process.send_signal(signal.SIGCONT)
                door.controller.stop()


def runner_of(door: Door) -> str:
    [runner] = json.loads(door.fal("runners", "list", "--json").stdout)["runners"]
    return runner["runner_id"]


def line_with(process: subprocess.Popen[bytes], text: str) -> str:
    """Read what a command prints up to a line with a text."""
    assert process.stdout is not None
    while line := process.stdout.readline().decode():
        if text in line:
            return line
    raise AssertionError(f"no {text!r}")


def event_with(answer: HTTPResponse, text: bytes) -> bytes:
    while line := answer.readline():
        if text in line:
            return line
    raise AssertionError(f"no {text!r}")


def test_every_protocol_passes(site: Site) -> None:
    with two(site) as (owner, door), ExitStack() as stack:
        pid = door.json("/local/wide", {"number": 1})["pid"]
        assert owner.json("/local/wide", {"number": 1})["pid"] == pid
        runner = runner_of(door)

        # WebSockets and realtime.
        with door.socket("/local/wide/socket") as echo:
            for size in (0, 1, 900_000):
                echo.send(os.urandom(size))
                assert len(echo.recv()) == size
        said = door.fal("api", "local/wide", "--realtime", stdin=b'{"number": 2}\n\n{"number": 3}\n').stdout
        assert [json.loads(line)["number"] for line in said.decode().split("\n") if line.strip().startswith("{")] == [
            3,
            4,
        ], said

        # Bodies in both directions.
        with door.send("POST", "/local/wide/take", bytes(UPLOADED)) as answer:
            assert json.loads(answer.read()) == {"size": UPLOADED}
        with door.send("POST", "/local/wide/stream", b'{"number": 1000}') as answer:
            assert answer.read().decode() == "".join(f"data: {number}\n\n" for number in range(1000))
        (site.folder / "large").write_bytes(os.urandom(1024) * 1024 * 16)
        door.fal("files", "upload", str(site.folder / "large"), "large")
        door.fal("files", "download", "large", str(site.folder / "back"))
        assert (site.folder / "back").read_bytes() == (site.folder / "large").read_bytes()

        # gRPC, and the same as JSON over HTTP.
        found = door.json("/fal.v1.Runners/ListRunners", {})
        assert json.dumps(found).count(runner) >= 1
        follower = stack.enter_context(door.begin("runners", "logs", runner, "--follow", "--since", "1h"))
        line_with(follower, "number 1")
        lines = stack.enter_context(door.send("POST", "/v1/serverless/logs/stream?app_id=local/wide", b"[]"))
        assert lines.status == 200, lines.read()
        door.json("/local/wide", {"number": 77})
        line_with(follower, "number 77")
        event_with(lines, b"number 77")

        # Commands, shells and ports.
        ran = door.fal("runners", "exec", runner, "--", "sh", "-c", "cat; exit 3", stdin=b"x" * 5_000_000)
        assert (len(ran.stdout), ran.returncode) == (5_000_000, 3)
        with socket.create_server(("127.0.0.1", 0)) as frozen:  # the kernel accepts connections to it
            scheme = "https" if door.context else "http"
            hosts = f"{scheme}://localhost:{frozen.getsockname()[1]},{scheme}://{door.host}"
            ran = door.fal("runners", "exec", runner, "--", "cat", stdin=b"x", FAL_GRPC_HOST=hosts)
        assert (ran.stdout, ran.returncode) == (b"x", 0)
        server = stack.enter_context(door.begin("runners", "exec", runner, "--", "python", "-c", ECHO))
        port = int(line_with(server, ""))
        forwarding = stack.enter_context(door.begin("runners", "port-forward", runner, f":{port}"))
        local = int(line_with(forwarding, ":").split()[0].rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", local)) as link:
            link.sendall(b"ping")
            assert link.recv(9) == b"ping"

        # Pages, and a terminal with a new size on one of them.
        browser = Browser(door.host, context=door.context)
        assert browser.log_in(door.controller.key).status == 303
        assert runner in browser.get(f"/ui/runners/{runner}").text
        with browser.shell(runner) as shell:
            shell.send(json.dumps({"columns": 91, "rows": 23}))
            shell.send(b"stty size; exit 3\r")
            seen = b""
            while isinstance(part := shell.recv(), bytes):
                seen += part
            assert b"23 91" in seen
            assert json.loads(part) == {"exit": 3}


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["dies", "freezes"])
def test_what_is_open_when_the_owner_is_gone_ends_or_goes_on(how: signal.Signals, site: Site) -> None:
    with two(site) as (owner, door), ExitStack() as stack:
        pid = door.json("/local/wide", {"number": 1})["pid"]
        runner = runner_of(door)
        echo = stack.enter_context(door.socket("/local/wide/socket"))
        echo.send(b"x")
        assert echo.recv() == b"x"
        streamed = stack.enter_context(door.send("POST", "/local/wide/stream", b'{"number": 1}'))
        event_with(streamed, b"data: 0")
        lines = stack.enter_context(door.send("POST", "/v1/serverless/logs/stream?app_id=local/wide", b"[]"))
        follower = stack.enter_context(door.begin("runners", "logs", runner, "--follow", "--since", "1h"))
        line_with(follower, "number 1")
        command = stack.enter_context(door.begin("runners", "exec", runner, "--", "cat"))
        assert command.stdin is not None
        assert command.stdout is not None
        command.stdin.write(b"before\n")
        command.stdin.flush()
        assert command.stdout.readline() == b"before\n"
        server = stack.enter_context(door.begin("runners", "exec", runner, "--", "python", "-c", ECHO))
        port = int(line_with(server, ""))
        forwarding = stack.enter_context(door.begin("runners", "port-forward", runner, f":{port}"))
        local = int(line_with(forwarding, ":").split()[0].rpartition(":")[2])
        ends: list[object] = []
        waiting = threading.Thread(target=lambda: ends.append(outcome(lambda: door.json("/local/wide/wait", {}))))
        waiting.start()
        line_with(follower, "it waits")
        upload = Upload(door)

        owner.controller.process.send_signal(how)
        if how is signal.SIGKILL:
            owner.controller.process.wait()

        # What carries a state of the app ends, and says so.
        with pytest.raises(ConnectionClosed):
            echo.recv(60)
        assert isinstance(outcome(streamed.read), HTTPException | OSError | bytes)
        assert isinstance(outcome(lines.read), HTTPException | OSError | bytes)
        waiting.join()
        assert isinstance(ends[0], HTTPException | OSError), ends
        assert isinstance(outcome(upload.finish), HTTPException | OSError)

        # What has a place to go on from goes on.
        assert door.json("/local/wide", {"number": 2})["pid"] == pid
        line_with(follower, "number 2")
        command.stdin.write(b"after\n")
        command.stdin.flush()
        assert command.stdout.readline() == b"after\n"
        with socket.create_connection(("127.0.0.1", local)) as link:
            link.sendall(b"ping")
            assert link.recv(9) == b"ping"
        if how is signal.SIGSTOP:  # it is stopped while it finds that it is the owner no more
            owner.controller.process.send_signal(signal.SIGCONT)
            assert owner.controller.stop() in (0, 3)


class Upload:
    """A request of which half the body was sent."""

    def __init__(self, door: Door) -> None:
        kind = {"timeout": 120} if door.context is None else {"timeout": 120, "context": door.context}
        self._connection = (HTTPSConnection if door.context else HTTPConnection)(door.host, **kind)  # type: ignore[arg-type]
        self._connection.putrequest("POST", "/local/wide/take")
        self._connection.putheader("Authorization", f"Key {door.controller.key}")
        self._connection.putheader("Content-Length", str(2 * 1024 * 1024))
        self._connection.endheaders(bytes(1024 * 1024))

    def finish(self) -> bytes:
        with closing(self._connection):
            self._connection.send(bytes(1024 * 1024))
            return self._connection.getresponse().read()


def outcome(call: Callable[[], object]) -> object:
    """Return what a call returns or raises."""
    try:
        return call()
    except (HTTPException, OSError) as error:
        return error

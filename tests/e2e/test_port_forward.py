"""`fal runners port-forward` against a real runner. It has many connections, half closes, refusals, and both ends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from http.client import HTTPConnection
from pathlib import Path

import pytest

from tests.support.controller import BIN
from tests.support.place import Place, entered

# Sends back its input after the end of it.
ECHO = """
import socketserver
class Echo(socketserver.BaseRequestHandler):
    def handle(self):
        got = bytearray()
        while data := self.request.recv(65536):
            got += data
        self.request.sendall(got)
class Server(socketserver.ThreadingTCPServer):
    request_queue_size = 64
server = Server(("127.0.0.1", 0), Echo)
print(server.server_address[1], flush=True)
server.serve_forever()
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Generator[Place]:
    with entered(tmp_path_factory.mktemp("forwarded")) as place:
        yield place


@pytest.fixture(scope="module")
def echo_port(place: Place) -> Generator[int]:
    process = place.popen("python", "-c", ECHO)
    assert process.stdout is not None
    try:
        yield int(process.stdout.readline())
    finally:
        process.terminate()
        process.communicate()


class Forwarding:
    """The command, once it listens."""

    def __init__(self, place: Place, *ports: str) -> None:
        command = [str(BIN / "fal"), "runners", "port-forward", place.runner_id, *ports]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen(command, env=place.controller.environment, **pipes)
        assert self.process.stdout is not None
        lines = [self.process.stdout.readline() for _ in ports or [""]]
        self.ports = [int(line.split()[0].rpartition(":")[2]) for line in lines]

    def end(self, number: int) -> tuple[int, str]:
        self.process.send_signal(number)
        _, said = self.process.communicate()
        return self.process.returncode, said


def ask(port: int, data: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        got = bytearray()
        while piece := connection.recv(65536):
            got += piece
        return bytes(got)


def forwarding_commands(place: Place) -> list[str]:
    """Return the ids of the commands that carry connections now."""
    execs = place.sdk().runners.execs(place.runner_id)
    return [found.exec_id for found in execs if "-I" in found.command and found.exit_code is None]


def test_many_connections_carry_any_bytes_and_close_one_side_at_a_time(place: Place, echo_port: int) -> None:
    forwarding = Forwarding(place, f":{echo_port}", ":app")
    texts = [os.urandom(size) for size in (0, 1, 70_000, 1_000_000)] * 4
    # This one sends much, and nobody reads it: the others must not wait for it.
    with socket.create_connection(("127.0.0.1", forwarding.ports[0])), ThreadPoolExecutor(16) as pool:
        assert list(pool.map(lambda text: ask(forwarding.ports[0], text), texts)) == texts
    with closing(HTTPConnection("127.0.0.1", forwarding.ports[1])) as app:
        app.request("POST", "/", '{"name": "x"}', {"Content-Type": "application/json"})
        with app.getresponse() as answer:
            assert answer.status == 200
    (command,) = forwarding_commands(place)
    assert forwarding.end(signal.SIGINT) == (130, "")
    assert place.sdk().runners.attach(command).wait() == 128 + signal.SIGHUP


def test_what_nothing_in_the_runner_listens_on_is_said_and_closed(place: Place) -> None:
    with socket.create_server(("127.0.0.1", 0)) as elsewhere:  # on this machine, but not the runner's
        port = elsewhere.getsockname()[1]
        forwarding = Forwarding(place, f":{port}")
        # A reset or an end, depending on the system: the connection does not stay open.
        with suppress(ConnectionResetError), socket.create_connection(("127.0.0.1", forwarding.ports[0])) as connection:
            assert connection.recv(1) == b""
        code, said = forwarding.end(signal.SIGTERM)
    assert code == 143
    assert f"port {port} of runner {place.runner_id}: nothing in the runner listens there." in " ".join(said.split())


def test_a_port_that_is_in_use_here_is_named_with_a_way_out(place: Place) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = place.fal("runners", "port-forward", place.runner_id, f"{port}:app")
    assert (done.returncode, f"port {port} of this machine is in use: `:app` takes a free one" in done.stderr) == (
        1,
        True,
    )


def test_it_ends_with_the_runner_and_says_how_that_ended(tmp_path: Path) -> None:
    with entered(tmp_path) as place:
        forwarding = Forwarding(place)
        place.fal("runners", "kill", place.runner_id)
        _, said = forwarding.process.communicate()
    assert forwarding.process.returncode == 1
    assert f"Runner {place.runner_id} has ended" in " ".join(said.split())

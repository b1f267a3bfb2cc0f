"""Requests that go straight to a node's runners. The controller's operator trusts their network."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.cluster.conftest import PORT, Box, Cluster, running_cluster
from tests.support.controller import Answer
from tests.support.waiting import until

pytestmark = pytest.mark.cluster
_APP = """
import os
import fal
from fastapi import Request

class Far(fal.App, name="far", keep_alive=300, min_concurrency=1, max_concurrency=1, max_multiplexing=32):
    machine_type = "GPU-FAR"

    @fal.endpoint("/")
    def run(self, request: Request) -> dict:
        return dict(runner=os.environ["FAL_RUNNER_ID"], client=request.client.host)

    @fal.endpoint("/long")
    async def run_for_long(self) -> None:
        import asyncio
        await asyncio.Event().wait()

    @fal.endpoint("/itself")
    def itself(self) -> int:
        import urllib.request
        port = os.environ["FAL_RUNNER_PORTS"]
        return urllib.request.urlopen(f"http://127.0.0.1:{port}/openapi.json", timeout=10).status
"""
# Asks for a page of a port without the runner's key, as anybody on the network can.
_STRANGER = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), 10) as connection:
    connection.sendall(eval(sys.argv[3]))
    print(connection.makefile("rb").readline().decode().strip())
"""


@pytest.fixture
def cluster(tmp_path: Path) -> Generator[Cluster]:
    """Start a controller that trusts the way to the first machine alone."""
    with running_cluster(tmp_path, "--trusted-network", "10.77.0.2/32") as cluster:
        yield cluster


def deploy(cluster: Cluster, path: Path, box: Box) -> str:
    """Deploy the app; return its runner."""
    path.write_text(_APP)
    cluster.controller.fal("deploy", str(path))
    return cluster.runner_on(box)


def call(cluster: Cluster, timeout: float = 60) -> Answer:
    return cluster.controller.call("/local/far", {}, key=cluster.controller.key, timeout=timeout)


def nodes(cluster: Cluster) -> dict[str, dict[str, str]]:
    """Return what is said of each node, by its address."""
    listed = json.loads(cluster.controller.fal("node", "list", "--json").stdout)["nodes"]
    return {node["host"]: node for node in listed}


def straight_ports(box: Box) -> set[int]:
    """Return the connected ports of a box, but for its door."""
    shown = subprocess.run(
        ["ss", "-Htn", "state", "established", "dst", box.machine.address], capture_output=True, text=True, check=True
    )
    return {int(line.split()[3].rpartition(":")[2]) for line in shown.stdout.splitlines()} - {PORT}


def filtered(box: Box, action: str, *target: str) -> None:
    """Drop what comes to runners' ports (`-A`), or let it in (`-D`). A target does something else to it."""
    rule = ["INPUT", "-i", "eth0", "-p", "tcp", "--dport", "20000:32767", "-j", *(target or ["DROP"])]
    done = box.machine.run(["iptables", "-w", action, *rule], {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})
    assert done.returncode == 0, done.stderr


def said_to(box: Box, port: int, data: bytes, host: str) -> str:
    """Return the first line that a port answers. A program on a box asks."""
    said = box.machine.run([sys.executable, "-c", _STRANGER, host, str(port), repr(data)], {})
    return said.stdout.strip() or said.stderr


def test_requests_go_straight_where_the_network_is_trusted(cluster: Cluster, tmp_path: Path) -> None:
    [box] = cluster.add("trusted")
    deploy(cluster, tmp_path / "far.py", box)
    answer = call(cluster).json()
    assert isinstance(answer, dict)
    assert answer["client"] == "127.0.0.1", "the caller's address, not that of the controller"
    [port] = straight_ports(box)
    [other] = cluster.add("other")
    told = nodes(cluster)
    assert {host: node["network"] for host, node in told.items()} == {
        box.machine.address: "trusted",
        other.machine.address: "door",
    }
    name = told[box.machine.address]["name"]
    assert (
        f"Trusted:     10.77.0.2/32: requests to {name} go there without TLS" in cluster.controller.fal("status").stdout
    )
    for data in (b"GET / HTTP/1.1\r\nhost: far\r\n\r\n", b"\0fal-gate" + bytes(48)):
        for stranger in (other, box):
            assert said_to(stranger, port, data, box.machine.address) == "HTTP/1.1 403 Forbidden"
    cluster.controller.fal("node", "drain", name)
    moved = cluster.runner_on(other)
    until(lambda: call(cluster).json().get("runner") == moved, "the runner that replaces it")
    assert not straight_ports(other)
    listening = other.machine.run(["ss", "-Htln", "src", other.machine.address], {"PATH": "/usr/bin:/bin"}).stdout
    assert [line.split()[3].rpartition(":")[2] for line in listening.splitlines()] == [str(PORT)]


def test_requests_take_the_door_while_the_straight_way_is_closed(cluster: Cluster, tmp_path: Path) -> None:
    [box] = cluster.add("trusted")
    runner = deploy(cluster, tmp_path / "far.py", box)
    assert call(cluster).status == 200
    assert straight_ports(box)
    over = threading.Event()
    statuses: list[int] = []
    late: list[int] = []

    def ask(answers: list[int]) -> None:
        while not over.is_set():
            answers.append(call(cluster).status)

    def trouble() -> str:
        return nodes(cluster)[box.machine.address]["network_trouble"]

    threads = [threading.Thread(target=ask, args=(statuses,)) for _ in range(4)]
    try:
        for thread in threads:
            thread.start()
        until(lambda: len(statuses) > 40, "some answers")
        filtered(box, "-A")
        until(trouble, "word that the ports cannot be reached")
        threads.append(threading.Thread(target=ask, args=(late,)))
        threads[-1].start()
        until(lambda: len(late) > 40, "answers through the door")
        assert set(late) == {200}, "requests that begin after that do not fail"
        shown = cluster.controller.fal("node", "list", "--json").stdout
        assert "requests take its door since" in shown
        filtered(box, "-D")
        until(lambda: not trouble(), "the straight way")
        until(lambda: straight_ports(box), "connections that go straight")
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert set(late) == {200}
    lost = [status for status in statuses if status != 200]
    print(f"{len(statuses)} answers, of which {len(lost)} were cut off: {lost}")
    assert len(lost) <= 4, "no more than were being answered when the packets were dropped"
    assert cluster.runner_on(box) == runner, "a runner is not blamed for a way that is closed"


def test_a_firewall_that_was_never_opened_is_named(cluster: Cluster, tmp_path: Path) -> None:
    [box] = cluster.add("trusted")
    filtered(box, "-A")
    deploy(cluster, tmp_path / "far.py", box)
    assert call(cluster).status == 200
    assert not straight_ports(box)
    told = until(lambda: nodes(cluster)[box.machine.address]["network_trouble"], "word of it")
    assert "the ports of its runners cannot be reached (no answer)" in told
    assert told in cluster.controller.fal("status").stdout


def test_a_firewall_that_resets_connections_has_no_runner_blamed(cluster: Cluster, tmp_path: Path) -> None:
    [box] = cluster.add("trusted")
    runner = deploy(cluster, tmp_path / "far.py", box)
    controller = cluster.controller
    with ThreadPoolExecutor(1) as caller:
        cut = caller.submit(controller.call, "/local/far/long", {}, key=controller.key, timeout=60)
        until(lambda: straight_ports(box), "the request's way")
        filtered(box, "-A", "REJECT", "--reject-with", "tcp-reset")
        assert cut.result().status == 503
    answer = call(cluster).json()
    assert isinstance(answer, dict)
    assert answer["runner"] == runner
    assert "(Connection refused)" in until(
        lambda: nodes(cluster)[box.machine.address]["network_trouble"], "word that the ports cannot be reached"
    )

"""A runner that nobody can reach any more stops by itself."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import grpc.aio
from hypothesis import given
from hypothesis import strategies as st

from fal_grpc.v1 import shim_pb2, shim_pb2_grpc
from fal_runner.log.journal import read_leftover
from fal_runner.process.proc import is_alive
from fal_runner.shim.address import TOKEN_METADATA
from fal_runner.shim.orphan import OrphanWatch, listens
from tests.runner.test_shim import TOKEN, Shim, spec


class Runner:
    """A runner's surroundings, and a clock that is set by hand."""

    def __init__(self, seconds: float) -> None:
        self.now = 1000.0
        self.called_at = self.now
        self.kept = False
        self.watch = OrphanWatch(seconds, lambda: self.called_at, lambda: self.kept, lambda: self.now)


def test_it_is_an_orphan_after_its_time_and_not_before() -> None:
    runner = Runner(900)
    assert 0 < runner.watch.look() <= 30
    runner.now += 899
    assert runner.watch.look() == 1
    runner.now += 1
    assert runner.watch.look() == 0


def test_a_call_or_the_node_process_starts_the_time_again() -> None:
    runner = Runner(900)
    runner.now += 899
    runner.called_at = runner.now
    runner.now += 899
    assert runner.watch.look() > 0
    runner.kept = True
    runner.now += 10_000
    assert runner.watch.look() > 0
    runner.kept = False
    runner.now += 899
    assert runner.watch.look() > 0
    runner.now += 1
    assert runner.watch.look() == 0


@given(
    seconds=st.floats(1, 10_000),
    steps=st.lists(st.tuples(st.floats(0, 5_000), st.sampled_from(["call", "node", "nobody"]))),
)
def test_it_is_an_orphan_exactly_if_nobody_was_there_for_so_long(
    seconds: float, steps: list[tuple[float, str]]
) -> None:
    runner = Runner(seconds)
    seen = runner.now
    for passed, who in steps:
        runner.now += passed
        runner.kept = who == "node"
        if who != "nobody":
            seen = runner.now
        if who == "call":
            runner.called_at = runner.now
        pause = runner.watch.look()
        assert (pause == 0) == (seconds - (runner.now - seen) <= 0)
        assert pause <= max(0.0, seconds - (runner.now - seen)), "it is never late"


def test_who_listens_is_there(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    assert not listens(path)
    assert not listens(tmp_path / "nowhere" / ("long" * 30) / "control.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as bound:
        bound.bind(str(path))
        bound.listen()
        assert listens(path)
    assert not listens(path), "its process has ended, and the file is still there"


async def test_the_worker_of_an_orphan_is_stopped_in_order(tmp_path: Path) -> None:
    shim = Shim(tmp_path, "--keep-seconds", "0.1")
    path = tmp_path / "control.sock"
    runner = spec(tmp_path)
    runner.entrypoint = "signal:pause"
    runner.orphan_seconds, runner.node_socket, runner.termination_grace_seconds = 0.5, str(path), 60
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as node:
        node.bind(str(path))
        node.listen()
        node.setblocking(False)
        async with grpc.aio.insecure_channel(f"unix:{tmp_path / 'shim.sock'}") as channel:
            stub = shim_pb2_grpc.ShimStub(channel)
            started = await stub.Start(shim_pb2.StartRequest(spec=runner), metadata=((TOKEN_METADATA, TOKEN),))
        for _ in range(8):  # of which each is a quarter of the time later at most
            connection, _ = await asyncio.get_running_loop().sock_accept(node)
            connection.close()
        assert is_alive(started.worker.pid, started.worker.start_ticks), "its node process is there"
    assert await asyncio.to_thread(shim.process.wait, 60) == 0
    reader = read_leftover(tmp_path / "log", 0)
    assert reader is not None
    said = [entry.message for entry in reader.read(1 << 20)]
    assert "neither a controller nor the node process was there for 0.5 s" in said
    assert "asked to stop: SIGTERM sent, 60 s until SIGKILL" in said
    shim.process.communicate()

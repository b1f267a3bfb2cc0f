"""A node that is away, and one that was given up. The tests also cover who may speak with a node."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import grpc
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fal_grpc.v1 import host_pb2 as pb
from fal_grpc.v1 import host_pb2_grpc
from fal_server.core.faults import NodeTrouble, PermissionDenied, Unavailable
from fal_server.core.lifecycle import Event
from fal_server.core.runners import Runner
from fal_server.engines.node.fence import Fence
from fal_server.engines.node.identity import NodeIdentity
from fal_server.engines.remote.authority import NODE_LIFE, NodeAuthority, make_authority
from fal_server.engines.remote.epoch import Epoch
from fal_server.engines.remote.host import RemoteHost
from fal_server.engines.remote.joining import join, renew
from fal_server.engines.remote.names import DoorTarget, server_name, split_epoch, with_epoch, with_port
from fal_server.engines.remote.way import Way
from fal_server.engines.shim.client import ShimClient
from fal_server.ports import Adopted
from tests.engines.conformance.conftest import Remote
from tests.support.node import EPOCH, now


@pytest.fixture
async def under(tmp_path: Path) -> AsyncIterator[Remote]:
    """A node that is given up after a second without a word."""
    engine = Remote(tmp_path, silent=0.5, lost=1.0)
    await engine.join()
    yield engine
    await engine.close()


@pytest.fixture
async def under_for_long(tmp_path: Path) -> AsyncIterator[Remote]:
    """A node that is never given up."""
    engine = Remote(tmp_path, lost=600.0)
    await engine.join()
    yield engine
    await engine.close()


async def away(under: Remote) -> None:
    """End the node process, and wait until the controller knows."""
    await under.node.close()
    async with asyncio.timeout(30):
        await under.host.silent.wait()


async def back(under: Remote) -> None:
    """Start the node process again, and wait until the controller knows."""
    await under.node.open()
    async with asyncio.timeout(30):
        await under.host.heard.wait()


def living(under: Remote, runner: Runner) -> bool:
    return (under.node.root / "runners" / runner.runner_id).exists()


async def test_a_node_that_is_away_starts_nothing_and_says_so(under: Remote) -> None:
    await away(under)
    [node] = under.engine.nodes()
    assert "does not answer since" in node.trouble
    with pytest.raises(NodeTrouble, match="does not answer since"):
        await under.engine.start(under.spec())
    await back(under)
    [node] = under.engine.nodes()
    assert not node.trouble
    await under.until(await under.start(), Event.READY)


async def test_content_that_a_node_has_removed_is_sent_again(under_for_long: Remote) -> None:
    under = under_for_long
    first = await under.start()
    await under.until(first, Event.READY)
    for path in (under.node.root / "kept").rglob("*"):
        if path.is_file():
            path.unlink()
    await under.until(await under.start(), Event.READY)


async def test_a_given_up_runner_ends_when_its_node_is_back(under: Remote) -> None:
    runner = await under.start()
    await under.until(runner, Event.READY)
    await away(under)
    gone = await under.until(runner, Event.GONE)
    assert gone.reason.startswith(f"node {under.node.name} was lost")
    await under.engine.release(runner.runner_id)
    assert living(under, runner), "its node cannot be told yet"
    under.wanted = []
    await back(under)
    assert not living(under, runner)
    under.started.clear()


async def test_a_runner_is_given_up_although_the_connections_to_its_node_do_not_break(under: Remote) -> None:
    runner = await under.start()
    await under.until(runner, Event.READY)
    ours, theirs = socket.socketpair()
    under.host.opened(under.host.way.app_host(runner.runner_id), ours)
    under.way.silence()
    gone = await under.until(runner, Event.GONE)
    assert gone.reason.startswith(f"node {under.node.name} was lost")
    with ours, theirs:
        theirs.setblocking(False)
        assert theirs.recv(1) == b"", "who waits for an answer of its app is told"
    await under.engine.release(runner.runner_id)
    under.wanted = []
    under.way.resume()
    async with asyncio.timeout(30):
        await under.host.heard.wait()
    assert not living(under, runner)
    under.started.clear()


async def test_the_same_process_serves_again_if_the_node_is_back_in_time(tmp_path: Path) -> None:
    under = Remote(tmp_path, silent=0.5, lost=600.0)
    await under.join()
    try:
        runner = await under.start()
        await under.until(runner, Event.READY)
        under.wanted = [runner.runner_id]
        await away(under)
        await back(under)
        adopted = await under.engine.adopt(runner)
        assert adopted is not None
        assert adopted.handle == runner.handle
        assert await under.engine.requests_in_flight(runner) == 0
        await under.engine.stop(runner, 5)
        await under.until(runner, Event.GONE)
    finally:
        await under.close()


async def adopted_while(
    under: Remote, monkeypatch: pytest.MonkeyPatch, where: object, call: str, fault: Callable[[], Awaitable[None]]
) -> tuple[Runner, Adopted | None]:
    """Return a runner, and how the next controller adopted it. One call of that met a fault."""
    runner = await under.start()
    await under.until(runner, Event.READY)
    under.wanted = [runner.runner_id]
    await under.restart()
    with monkeypatch.context() as patch:
        meet(patch, under.host if where is RemoteHost else where, call, fault)
        # Without its handle the node has to be asked whether it lives.
        return runner, await under.engine.adopt(replace(runner, handle="") if call == "find" else runner)


def meet(patch: pytest.MonkeyPatch, where: object, call: str, fault: Callable[[], Awaitable[None]]) -> None:
    """Have the first call of a method meet a fault."""
    original, met = getattr(where, call), []

    async def started(*arguments: object) -> object:
        if met:
            return await original(*arguments)
        met.append(call)
        if where is ShimClient:  # it is connected, and its question is on the way
            await original(*arguments)
            await fault()
            raise Broken
        await fault()
        return await original(*arguments)

    patch.setattr(where, call, started)


class Broken(grpc.aio.AioRpcError):
    """What a call raises whose connection broke."""

    def __init__(self) -> None:
        super().__init__(grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata(), "Socket closed")


@pytest.mark.parametrize(("where", "call"), [(RemoteHost, "find"), (ShimClient, "status")])
async def test_a_node_that_goes_away_in_an_adoption_keeps_its_runner(
    under_for_long: Remote, monkeypatch: pytest.MonkeyPatch, where: object, call: str
) -> None:
    under = under_for_long
    runner, adopted = await adopted_while(under, monkeypatch, where, call, under.node.close)
    assert adopted is not None
    assert adopted.silent
    await under.host.silent.wait()
    with pytest.raises(Unavailable, match="does not answer"):
        await under.engine.requests_in_flight(runner)
    await back(under)
    assert await under.engine.requests_in_flight(runner) == 0
    await under.engine.stop(runner, 5)
    await under.until(runner, Event.GONE)


async def test_an_adoption_whose_connection_breaks_ends_no_runner(
    under_for_long: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    under = under_for_long
    runner, adopted = await adopted_while(under, monkeypatch, ShimClient, "status", under.way.break_off)
    assert adopted is not None
    assert adopted.handle == runner.handle
    assert await said(under, runner) == 0
    await under.engine.stop(runner, 5)
    await under.until(runner, Event.GONE)


async def test_a_node_that_goes_away_before_a_dead_runner_is_swept_tells_of_its_end_when_it_is_back(
    under_for_long: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    under = under_for_long
    runner = await under.start()
    await under.until(runner, Event.READY)
    await under.restart()
    await under.host.sweep(runner)
    with monkeypatch.context() as patch:
        meet(patch, under.host, "sweep", under.node.close)
        adopted = await under.engine.adopt(replace(runner, handle=""))
    assert adopted is not None
    assert adopted.silent
    await back(under)
    await under.until(runner, Event.GONE)


@pytest.mark.parametrize("call", ["list", "sweep_others"])
async def test_a_node_that_goes_away_while_strangers_are_ended_ends_them_when_it_is_back(
    under_for_long: Remote, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    under = under_for_long
    runner = await under.start()
    await under.until(runner, Event.READY)
    await under.restart()
    meet(monkeypatch, under.host, call, under.node.close)
    assert set(await under.engine.left_behind([])) <= {runner.runner_id}
    await under.engine.release_strangers([])
    under.wanted = []
    await back(under)
    assert not living(under, runner)
    under.started.clear()


async def test_a_runner_whose_connection_breaks_may_still_work_on_what_it_had(
    under_for_long: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    under = under_for_long
    runner = await under.start()
    await under.until(runner, Event.READY)
    with monkeypatch.context() as patch:
        meet(patch, ShimClient, "status", under.way.break_off)
        with pytest.raises(Unavailable, match="does not answer"):
            await under.engine.requests_in_flight(runner)
    assert await said(under, runner) == 0


async def said(under: Remote, runner: Runner) -> int | None:
    """Return what a runner works on, once its node answers."""
    async with asyncio.timeout(30):
        while True:
            await under.host.heard.wait()
            with contextlib.suppress(Unavailable):  # it did not know yet that its connection had ended
                return await under.engine.requests_in_flight(runner)


async def test_a_worker_waits_on_the_node_for_its_next_runner(under_for_long: Remote) -> None:
    under = under_for_long
    under.node.warm_workers = 1
    await away(under)
    await back(under)
    first = await under.start()
    await under.until(first, Event.READY)
    pool = under.node.warm_pool
    async with asyncio.timeout(60):
        while not pool.workers:
            pool.warmed.clear()
            await pool.warmed.wait()
    [waiting] = pool.workers
    second = await under.start()
    await under.until(second, Event.READY)
    shim = json.loads((under.node.root / "runners" / second.runner_id / "shim.json").read_text())
    assert psutil.Process(waiting).ppid() == shim["pid"]
    for runner in (first, second):
        await under.engine.stop(runner, 5)
        await under.until(runner, Event.GONE)


async def test_only_its_controller_gets_through_the_door(under: Remote, tmp_path: Path) -> None:
    other = NodeAuthority(make_authority(now()), now)
    way = Way(
        node=under.node.name,
        host="127.0.0.1",
        port=under.node.port,
        epoch=EPOCH,
        credentials=other.credentials,
        context=other.credentials.context(),
    )
    channel = way.channel(DoorTarget.CONTROL, "controller")
    stub: host_pb2_grpc.HostAsyncStub = host_pb2_grpc.HostStub(channel)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub.ListHost(pb.ListHostRequest())
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    await channel.close()
    nobody = ssl.create_default_context(cadata=under.node.authority.certificate.decode())
    name = server_name(under.node.name, DoorTarget.CONTROL, "controller")
    reader, writer = await asyncio.open_connection("127.0.0.1", under.node.port, ssl=nobody, server_hostname=name)
    writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    try:
        answer = await reader.read()
    except OSError:
        answer = b""
    assert not answer, "a server of HTTP/2 would have answered"
    writer.transport.abort()
    with pytest.raises(PermissionDenied, match="has joined already"):
        await join(other, "127.0.0.1", under.node.port, f"{'0' * 32}.{'0' * 64}")


async def test_a_name_stays_with_its_directory(tmp_path: Path) -> None:
    first = NodeIdentity(tmp_path / "node", now)
    assert NodeIdentity(tmp_path / "node", now).name == first.name
    assert NodeIdentity(tmp_path / "another", now).name != first.name
    assert first.token not in repr(first)


async def test_a_certificate_is_renewed_before_half_of_it_is_over(under: Remote) -> None:
    before = under.node.identity.ends_at
    assert before is not None
    assert before - now() > NODE_LIFE - timedelta(hours=1)
    channel = under.host.way.channel(DoorTarget.CONTROL, "controller")
    stub: host_pb2_grpc.HostAsyncStub = host_pb2_grpc.HostStub(channel)
    path = under.node.root / "node" / "certificate.pem"
    written = path.read_bytes()
    await renew(under.node.authority, under.node.name, stub, before)
    assert path.read_bytes() == written
    await renew(under.node.authority, under.node.name, stub, now() + NODE_LIFE / 2)
    assert path.read_bytes() != written
    await channel.close()


async def test_a_later_controller_takes_a_node_over_and_an_earlier_one_can_do_nothing(under: Remote) -> None:
    runner = await under.start()
    await under.until(runner, Event.READY)
    under.wanted = [runner.runner_id]
    other = under.later([runner.runner_id])
    other.open()
    try:
        await other.heard.wait()
        await under.host.silent.wait()
        gone = await under.until(runner, Event.GONE)
        assert gone.reason.startswith(f"node {under.node.name} takes no orders of this controller: another controller")
        [node] = under.engine.nodes()
        assert "another controller has taken this node over, with epoch 2-two" in node.trouble
        with pytest.raises(NodeTrouble, match="takes no orders of this controller"):
            await under.engine.start(under.spec())
        found = await other.find(runner)
        assert found is not None, "what the earlier one did since has not ended it"
        assert (await found.client.status()).runner_id == runner.runner_id
        await found.client.close()
        for target in (DoorTarget.SHIM, DoorTarget.CONTROL):
            async with under.host.way.channel(target, runner.runner_id) as channel:
                kill = channel.unary_unary("/fal.v1.Shim/Kill")
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await kill(b"", metadata=(("shim-token", runner.token),))
            assert refused.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.ABORTED)
        await other.sweep(runner)
    finally:
        await other.close()
    under.started.clear()


async def test_a_node_keeps_who_gives_it_orders_over_its_own_end(under: Remote) -> None:
    later = under.later([])
    later.open()
    await later.heard.wait()
    await later.close()
    await away(under)
    await under.node.open()
    again = under.later([])
    again.open()
    try:
        await again.heard.wait()
        # The earlier one is refused each time that it comes.
        async with under.host.way.channel(DoorTarget.CONTROL, "controller") as channel:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await host_pb2_grpc.HostStub(channel).ListHost(pb.ListHostRequest())
        assert refused.value.code() is grpc.StatusCode.ABORTED
    finally:
        await again.close()


@given(st.lists(st.tuples(st.integers(1, 5), st.sampled_from("ab"))))
def test_no_connection_of_an_earlier_epoch_is_let_in(came: list[tuple[int, str]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path, latest = Path(directory) / "epoch.json", None
        for number, holder in came:
            epoch = Epoch(number=number, holder=holder)
            expected = latest is None or epoch == latest or number > latest.number
            assert Fence(path).admits(epoch) == expected
            latest = epoch if expected else latest
        assert Fence(path).latest == latest
        Fence(path).forget()
        assert Fence(path).admits(Epoch(number=1, holder="c"))


@given(st.integers(0, 10**6), st.text("0123456789abcdef", min_size=8, max_size=8), st.uuids(), st.integers(1, 65535))
def test_a_name_says_of_which_start_it_is(number: int, holder: str, runner: UUID, port: int) -> None:
    epoch = Epoch(number=number, holder=holder)
    who = with_port(str(runner), port)
    label = with_epoch(epoch, who)
    assert split_epoch(label) == (epoch, who)
    assert len(label) <= 63, "the longest label of a name"
    assert split_epoch(who) == (None, who)


async def test_a_node_that_is_elsewhere_than_it_is_reached_opens_no_port_there(tmp_path: Path) -> None:
    """A forwarded port leads to it, for example."""
    under = Remote(tmp_path, network_host="198.51.100.7")
    await under.join()
    ready = await under.until(await under.start(), Event.READY)
    assert under.host.way.app(ready.host) == (ready.runner_id, False)
    assert under.host.network_trouble.startswith("198.51.100.7 is not an address of the machine")
    await under.close()

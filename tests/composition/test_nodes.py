"""The nodes of a controller, and what it keeps over a restart."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from fal_server.composition.nodes import JoinedNodes, trusts
from fal_server.core.addresses import RunnerAddress
from fal_server.core.machines import MachineTypes
from fal_server.core.places import FreeRoom, Lack, Needs, Room
from fal_server.engines.remote.authority import NodeAuthority, make_authority
from fal_server.engines.remote.epoch import Epoch
from fal_server.http.outbound.destinations import Network
from fal_server.store import AesVault, SqlStore, open_store
from tests.engines.conftest import NODE, Built, Content
from tests.fakes.platform import KEY, Platform
from tests.support.node import NoFiles, TestNode, now


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not true():  # noqa: ASYNC110 - hosts notify nobody
            await asyncio.sleep(0)


class Controllers:
    """Controllers of one database, one after the other."""

    def __init__(self, root: Path, store: SqlStore) -> None:
        self._root = root
        self._store = store
        self._starts = 0
        self.nodes = self._next()

    def _next(self, *trusted: Network) -> JoinedNodes:
        self._starts += 1
        return JoinedNodes(
            self._store.nodes,
            machine_types=MachineTypes(),
            blobs=Content(self._root / "blobs"),
            files=NoFiles(),
            api_socket=self._root / "api.sock",
            epoch=Epoch(number=self._starts, holder="one"),
            trusted=trusted,
            now=now,
        )

    async def open(self) -> None:
        await self.nodes.open(Platform(self._store, self._root).fleet)

    async def restart(self, *trusted: Network) -> asyncio.Task[None]:
        """End one and start the next. Return its start, which waits for nodes."""
        await self.close()
        self.nodes = self._next(*trusted)
        opening = asyncio.create_task(self.open())
        await until(lambda: bool(self.nodes.hosts))
        return opening

    async def close(self) -> None:
        await self.nodes.close()
        for host in self.nodes.hosts:
            await host.close()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqlStore]:
    opened = await open_store(tmp_path / "db", AesVault(KEY))
    yield opened
    await opened.close()


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[TestNode]:
    """A machine of a region that has not joined yet."""
    (tmp_path / "away").mkdir()
    described = replace(NODE, region="eu")
    made = TestNode(tmp_path / "away", described, Built(), NodeAuthority(make_authority(now()), now))
    await made.open()
    yield made
    await made.close()


async def test_the_region_of_a_node_is_known_before_it_answers(tmp_path: Path, store: SqlStore, node: TestNode) -> None:
    controllers = Controllers(tmp_path, store)
    await controllers.open()
    name = await controllers.nodes.join(f"127.0.0.1:{node.port}", node.identity.token)
    await until(lambda: [host.node().region for host in controllers.nodes.hosts] == ["eu"])
    await controllers.nodes.drain(name, undo=False)
    [joined] = await store.nodes.all()
    assert (joined.region, joined.drained) == ("eu", True)
    await node.close()
    opening = await controllers.restart()
    places = [replace(NODE, name="here"), *(host.node() for host in controllers.nodes.hosts)]
    lack = FreeRoom(places, Room()).fit(Needs(machine_types=("XS",), regions=("eu",)))
    assert lack == Lack(reason=f"nothing can be started on node {name!r}: it was not reached yet")
    await opening
    await controllers.close()


async def test_a_trusted_network_is_that_of_each_start_of_a_controller(
    tmp_path: Path, store: SqlStore, node: TestNode
) -> None:
    controllers = Controllers(tmp_path, store)
    await controllers.open()
    await controllers.nodes.join(f"127.0.0.1:{node.port}", node.identity.token)
    for trusted in ("127.0.0.1/32", "10.0.0.0/8"):
        await (await controllers.restart(ipaddress.ip_network(trusted)))
        nodes = controllers.nodes
        [host] = nodes.hosts
        [described] = nodes.described()
        closed, opened = (
            RunnerAddress(host.way.app_host("runner", on_network=on_network), 23456) for on_network in (False, True)
        )
        for door in (nodes.way(closed), nodes.door(closed), nodes.door(opened)):
            assert door is not None
            assert (door.port, door.fallback) == (node.port, None)
            assert ".http." in door.server_name
            assert "network" not in door.server_name
        way = nodes.way(opened)
        assert way is not None
        if trusted == "127.0.0.1/32":
            assert (way.host, way.port, way.context) == ("127.0.0.1", 23456, None)
            assert way.fallback is not None
            assert way.fallback.way.port == node.port
            assert described["network"] == "trusted"
            host.network_trouble = "it is elsewhere"
            [described] = nodes.described()
            assert str(described["network_trouble"]).startswith("requests take its door: it is elsewhere; have it join")
            way.fallback.taken(TimeoutError())
            way = nodes.way(opened)
            assert way is not None
            [described] = nodes.described()
            assert "requests take its door" in str(described["network_trouble"])
        assert (way.port, way.fallback) == (node.port, None)
    assert described["network"] == "door"
    assert nodes.way(RunnerAddress("127.0.0.1", 23456)) is None
    await controllers.close()


def test_what_is_trusted_is_an_address() -> None:
    networks = [ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("fd00::/8")]
    assert [
        host
        for host in ("10.0.0.5", "fd00::5", "11.0.0.5", "box.example", "::ffff:10.0.0.5", "")
        if trusts(networks, host)
    ] == ["10.0.0.5", "fd00::5"]

"""The other machines of a controller. It knows which joined, and what is to become of the runners of each."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import ipaddress
import logging
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from fal_server.core.addresses import RunnerAddress
from fal_server.core.faults import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NodeTrouble,
    NotFound,
    Unavailable,
)
from fal_server.core.machines import MachineTypes
from fal_server.core.nodes import JoinedNode
from fal_server.core.runners import NO_PROCESS, Desired, Runner
from fal_server.engines.remote.epoch import Epoch
from fal_server.engines.remote.host import RemoteHost
from fal_server.engines.remote.joining import join, renew
from fal_server.engines.remote.straight_way import StraightWay
from fal_server.engines.remote.way import Way
from fal_server.http.gateway.upstream import AppWay, Fallback, Pool, stays_open
from fal_server.http.outbound.destinations import Network
from fal_server.live.fleet import Fleet
from fal_server.ports import Blobs, DeployedFiles
from fal_server.ports.nodes import NodeStore

if TYPE_CHECKING:
    from fal_server.engines.remote.authority import NodeAuthority

log = logging.getLogger(__name__)
_FIRST_SECONDS = 5.0
_LOOK_SECONDS = 0.25
# So long a connection through a door serves requests that could go straight again.
_DOOR_SECONDS = 5.0
_GIVEN_UP = "its node was removed"
# What these say is true on the controller's machine alone.
_OWN_VARIABLES = frozenset({"FAL_DATA_DIR", "FAL_API_SOCKET", "FAL_USE_LOCAL_UPLOADER", "SSL_CERT_FILE"})


class JoinedNodes:
    """The nodes of this controller. Make and use it in one event loop.

    Args:
        store: has the nodes and their authority, so that whoever takes the database over has both.
        machine_types: what runners can be.
        blobs, files: what runners are started with.
        api_socket: where runners call this controller.
        epoch: which start of the controller this is.
        trusted: the networks on which requests may go to runners without TLS.
        now: returns the time.
    """

    def __init__(
        self,
        store: NodeStore,
        *,
        machine_types: MachineTypes,
        blobs: Blobs,
        files: DeployedFiles,
        api_socket: Path,
        epoch: Epoch,
        trusted: Sequence[Network] = (),
        now: Callable[[], datetime],
    ) -> None:
        self._store = store
        self._authority: NodeAuthority | None = None
        self._machine_types = machine_types
        self._blobs = blobs
        self._files = files
        self._api_socket = api_socket
        self._epoch = epoch
        self._trusted = trusted
        self._now = now
        self._fleet: Fleet | None = None
        self._known: dict[str, JoinedNode] = {}
        self._hosts: dict[str, RemoteHost] = {}
        self._straight: dict[str, StraightWay] = {}  # of nodes on trusted networks
        self._adopted = False
        self._draining: asyncio.Task[None] | None = None
        self._changing = asyncio.Lock()  # of rows

    @property
    def hosts(self) -> Sequence[RemoteHost]:
        """The machines."""
        return tuple(self._hosts.values())

    async def open(self, fleet: Fleet) -> None:
        """Follow the nodes that joined before."""
        self._fleet = fleet
        for joined in await self._store.all():
            self._add(joined, await self._needed_authority())
        self._draining = asyncio.get_running_loop().create_task(self._drain(), name="drained nodes")

    async def first_word(self, name: str) -> None:
        """Wait for a node's first word. After some seconds it counts as silent."""
        if (host := self._hosts.get(name)) is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_FIRST_SECONDS):
                    await host.heard.wait()

    def adopted(self) -> None:
        """Note that the runners of an earlier controller were adopted. An unknown one is a stranger from now on."""
        self._adopted = True

    async def close(self) -> None:
        """Stop draining; the engine closes the machines."""
        if self._draining is not None:
            self._draining.cancel()
            await asyncio.gather(self._draining, return_exceptions=True)
        for name in tuple(self._straight):
            await self._leave_straight_way(name)

    async def join(self, address: str, token: str) -> str:
        """Have the machine at an address join; return its name.

        Raises:
            InvalidArgument: the address or the token is not one.
            PermissionDenied: the machine there did not print the token.
            Unavailable: nothing answers there.
            AlreadyExists: it has joined already.
        """
        host, port = _address(address)
        authority = await self._needed_authority()
        name = await join(authority, host, port, token)
        if name in self._hosts:
            old = self._hosts[name]
            if self._runners(name):
                raise AlreadyExists(f"node {name} has joined already, and has runners: `fal node remove {name}` first")
            await old.close()
            await self._leave_straight_way(name)
        joined = JoinedNode(name=name, host=host, port=port, joined_at=self._now())
        await self._store.save(joined)
        added = self._add(joined, authority)
        try:
            async with asyncio.timeout(_FIRST_SECONDS):
                await added.heard.wait()
        except TimeoutError:
            log.warning("node %s joined, and does not answer yet: %s", name, added.away)
        return name

    async def drain(self, name: str, *, undo: bool) -> None:
        """Start nothing more on a node, and move its runners elsewhere. They move one by one. `undo` ends that.

        Raises:
            NotFound: there is no such node.
        """
        async with self._changing:
            joined = replace(self._require(name), drained=not undo)
            await self._store.save(joined)
            self._known[name] = joined
        self._hosts[name].draining = not undo

    async def remove(self, name: str, *, force: bool) -> None:
        """Forget a node.

        Args:
            force: give up the runners that it has.

        Raises:
            NotFound: there is no such node.
            FailedPrecondition: it has runners.
            Unavailable: its runners do not end yet.
        """
        joined = self._require(name)
        host = self._hosts[name]
        if (left := self._runners(name)) and not force:
            raise FailedPrecondition(
                f"node {name} has {len(left)} of the runners: `fal node drain {name}` moves them, --force ends them"
            )
        host.draining = True
        try:
            await host.leave(f"{_GIVEN_UP} ({name})")
            async with asyncio.timeout(_FIRST_SECONDS):
                while self._runners(name):  # noqa: ASYNC110  # the end of a lost runner takes no time but to be stored
                    await asyncio.sleep(_LOOK_SECONDS)
        except TimeoutError:
            host.draining = joined.drained
            raise Unavailable(f"the runners of node {name} do not end yet: try again in some seconds") from None
        async with self._changing:
            await self._store.remove(name)
            del self._known[name]
        del self._hosts[name]
        self._note(name, True)
        await self._leave_straight_way(name)
        await host.close()

    def described(self) -> Sequence[dict[str, object]]:
        """Describe the nodes, for people."""
        return [
            {
                "name": name,
                "host": joined.host,
                "port": joined.port,
                "joined_at": joined.joined_at.isoformat(),
                "drained": joined.drained,
                "trouble": host.node().trouble,
                "region": host.node().region,
                "away": bool(host.away),
                "runners": len(self._runners(name)),
                "version": host.machine.version,
                "isolation": host.machine.isolation,
                **self._network(name),
            }
            for name, host in self._hosts.items()
            if (joined := self._known.get(name)) is not None
        ]

    def names(self) -> dict[str, str]:
        """Return the nodes' names, by the host that each joined with."""
        return {joined.host: name for name, joined in self._known.items()}

    async def authority_id(self) -> str:
        """Return what tells this database's nodes from those of other databases."""
        authority = await self._needed_authority()
        return hashlib.sha256(authority.certificate).hexdigest()[:12]

    def lost(self) -> list[str]:
        """Return the names of the nodes that do not answer now."""
        return sorted(name for name, host in self._hosts.items() if host.away)

    def answers(self, runner: Runner) -> Awaitable[bool] | None:
        """Ask the node of a runner whether it answers. Return None for a runner of this machine."""
        host = self._hosts.get(runner.node)
        return None if host is None else self._is_reached(host, runner)

    async def _is_reached(self, host: RemoteHost, runner: Runner) -> bool:
        straight, app = self._straight.get(runner.node), host.way.app(runner.host or "")
        if (
            straight is not None
            and app is not None
            and app[1]
            and not await straight.is_open(runner.port or 0, partial(self._listens, runner))
        ):
            return False
        return await host.answers()

    async def _listens(self, runner: Runner) -> bool:
        """Return whether a runner accepts connections through its node's door."""
        try:
            upstream = await Pool(self.door).connect(runner.runner_id, runner.address, seconds=_FIRST_SECONDS)
        except (OSError, NodeTrouble):
            return False
        return await stays_open(upstream)

    def door(self, address: RunnerAddress) -> AppWay | None:
        """Return how another machine's door leads to a runner's port. None means that it is on this machine."""
        for host in self._hosts.values():
            if (app := host.way.app(address.host)) is not None:
                return _door(host, app[0], address.port)
        return None

    def way(self, address: RunnerAddress) -> AppWay | None:
        """Return how another machine's app is reached; None for this machine's."""
        for name, host in self._hosts.items():
            if (app := host.way.app(address.host)) is not None:
                runner_id, on_network = app
                door, straight = _door(host, runner_id, address.port), self._straight.get(name)
                if not on_network or straight is None:
                    return door
                door = replace(door, seconds=_DOOR_SECONDS)
                if straight.trouble:
                    return door

                def opened(connection: socket.socket, door: AppWay = door, straight: StraightWay = straight) -> None:
                    straight.opened(connection)
                    door.opened(connection)

                fallback = Fallback(door, straight.failed)
                return AppWay(straight.host, address.port, None, "", opened, fallback=fallback)
        return None

    def trusted_networks(self) -> dict[str, object]:
        """Describe the trusted networks, for people. Each node there has what is wrong with the way to it."""
        return {
            "networks": [str(network) for network in self._trusted],
            "nodes": {name: self._network_trouble(name, straight) for name, straight in self._straight.items()},
        }

    async def _leave_straight_way(self, name: str) -> None:
        straight = self._straight.pop(name, None)
        if straight is not None:
            await straight.close()

    def _network(self, name: str) -> dict[str, str]:
        """Describe how requests reach a node's apps."""
        straight = self._straight.get(name)
        if straight is None:
            return {"network": "door", "network_trouble": ""}
        return {"network": "trusted", "network_trouble": self._network_trouble(name, straight)}

    def _network_trouble(self, name: str, straight: StraightWay) -> str:
        """Return why requests take a node's door, for people. Return nothing if they go straight."""
        refused = self._hosts[name].network_trouble
        told = f"requests take its door: {refused}; have it join by its own address on the trusted network"
        return straight.trouble or (told if refused else "")

    def _open_ports(self, name: str) -> Sequence[int] | None:
        """Return the ports that a node's runners have open on its network. None means that it does not answer."""
        host = self._hosts.get(name)
        if host is None or host.away:
            return None
        found = ((runner, host.way.app(runner.host or "")) for runner in self._runners(name) if runner.routable)
        return [runner.port for runner, app in found if app is not None and app[1] and runner.port]

    def _add(self, joined: JoinedNode, authority: NodeAuthority) -> RemoteHost:
        way = Way(
            node=joined.name,
            host=joined.host,
            port=joined.port,
            epoch=self._epoch,
            credentials=authority.credentials,
            context=authority.credentials.context(),
        )
        host = RemoteHost(
            way,
            machine_types=self._machine_types,
            blobs=self._blobs,
            files=self._files,
            wanted=self._wanted,
            api_socket=self._api_socket,
            own_variables=_OWN_VARIABLES,
            network_host=joined.host if trusts(self._trusted, joined.host) else "",
            region=joined.region,
            located=partial(self._locate, joined.name),
            certify=partial(renew, authority, joined.name),
            noted=partial(self._note, joined.name),
        )
        host.draining = joined.drained
        self._known[joined.name] = joined
        self._note(joined.name, False)
        self._hosts[joined.name] = host
        if trusts(self._trusted, joined.host):
            ports = partial(self._open_ports, joined.name)
            self._straight[joined.name] = StraightWay(joined.name, joined.host, ports)
        host.open()
        return host

    def _note(self, name: str, answers: bool) -> None:
        if self._fleet is not None:
            self._fleet.node_answers(name, answers)

    async def _locate(self, name: str, region: str) -> None:
        """Keep where a node is. A later controller needs that before the node answers."""
        if (known := self._known.get(name)) is None or known.region == region:
            return
        async with self._changing:
            if (known := self._known.get(name)) is None:
                return
            try:
                await self._store.save(replace(known, region=region))
            except Unavailable as fault:  # its next word tries again
                log.warning("the region of node %s could not be stored: %s", name, fault.message)
                return
            self._known[name] = replace(known, region=region)

    async def _needed_authority(self) -> NodeAuthority:
        if self._authority is None:
            # Most controllers have no nodes, and what reads certificates is a large library.
            from fal_server.engines.remote.authority import NodeAuthority, make_authority

            self._authority = NodeAuthority(await self._store.authority(lambda: make_authority(self._now())), self._now)
        return self._authority

    def _require(self, name: str) -> JoinedNode:
        found = self._known.get(name)
        if found is None:
            raise NotFound(f"node {name!r}", "`fal node list` shows which joined")
        return found

    def _wanted(self) -> Sequence[str] | None:
        return [runner.runner_id for runner in self._all()] if self._adopted else None

    def _all(self) -> Sequence[Runner]:
        return () if self._fleet is None else self._fleet.runners

    def _runners(self, node: str) -> Sequence[Runner]:
        return [r for r in self._all() if r.node == node and r.state not in NO_PROCESS and not r.ended]

    async def _drain(self) -> None:
        """Replace one runner at a time of each drained node."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            for name in [name for name, joined in self._known.items() if joined.drained]:
                runners = [r for r in self._runners(name) if r.desired is Desired.SERVE and not r.ephemeral]
                ready = [r for r in runners if r.routable]
                if ready and not any(r.replace_first for r in runners) and self._fleet is not None:
                    change = partial(_leave, reason=f"node {name} is drained")
                    await self._fleet.change(ready[0].runner_id, change)


def trusts(networks: Sequence[Network], host: str) -> bool:
    """Return whether an address is in one of the networks. A name is not: it may lead elsewhere tomorrow."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return any(address in network for network in networks)


def _door(host: RemoteHost, runner_id: str, port: int) -> AppWay:
    opened = partial(host.opened, host.way.app_host(runner_id))
    return AppWay(host.way.host, host.way.port, host.way.context, host.way.app_name(runner_id, port), opened)


def _leave(runner: Runner, reason: str) -> Runner:
    return replace(runner, replace_first=True, reason=reason)


def _address(text: str) -> tuple[str, int]:
    host, separator, port = text.rpartition(":")
    if not separator or not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise InvalidArgument("address", f"'{text}' is not an address such as 10.0.0.5:7411, as `fal node up` printed")
    return host.strip("[]"), int(port)

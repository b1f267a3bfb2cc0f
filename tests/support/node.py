"""A node in the test's process, behind a real door on loopback."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path

from fal_server.core.identity import AccountId
from fal_server.core.machines import MachineTypes, Node
from fal_server.engines.local import LocalHost
from fal_server.engines.node.api_socket import ApiSocket
from fal_server.engines.node.entrance import ControlSockets, Entrance
from fal_server.engines.node.fence import Fence
from fal_server.engines.node.identity import NodeIdentity
from fal_server.engines.node.service import Enrolment, HostService, refuse_all, serve
from fal_server.engines.node.shims import LivingShims
from fal_server.engines.remote.authority import NodeAuthority
from fal_server.engines.remote.epoch import Epoch
from fal_server.engines.remote.host import RemoteHost
from fal_server.engines.remote.joining import join
from fal_server.engines.remote.way import Way
from fal_server.ports import Blobs, Builder
from fal_server.store.files.blobs import FileBlobs

EPOCH = Epoch(number=1, holder="one")


def now() -> datetime:
    """Return the time."""
    return datetime.now(UTC)


class NoFiles:
    """A node whose apps have no files."""

    def has(self, account: AccountId, file_hash: str) -> bool:
        return False

    def keep(self, account: AccountId, file_hash: str, content: bytes, mode: int) -> None:
        raise AssertionError("no app of these tests has files")

    def path(self, account: AccountId, file_hash: str) -> Path:
        raise AssertionError("no app of these tests has files")


class TestNode:
    """A machine of its own, as far as the controller can tell.

    Args:
        root: holds all that the machine has.
        described: what it says that it has.
        builder: builds its environments.
        authority: of the controller.

    Attributes:
        api_socket: where the controller would answer runners; nobody listens there.
        warm_workers: as of `fal node up`; takes effect when the node opens.
        warm_pool: its processes that wait.
    """

    __test__ = False

    def __init__(self, root: Path, described: Node, builder: Builder, authority: NodeAuthority) -> None:
        self.root = root
        self.authority = authority
        self.identity = NodeIdentity(root / "node", now)
        self._described = described
        self._builder = builder
        self._stack = AsyncExitStack()
        self._entrance: Entrance | None = None
        self.port = 0
        self.api_socket = root / "controller.sock"
        self.warm_workers = 0

    @property
    def name(self) -> str:
        """What the machine calls itself."""
        return self.identity.name

    async def open(self) -> None:
        """Start the node, on the port that it had before."""
        runners = self.root / "runners"
        host = LocalHost(
            runners,
            node=self._described,
            builder=self._builder,
            blobs=FileBlobs(self.root / "kept"),
            files=NoFiles(),
            warm_workers=self.warm_workers,
        )
        self.warm_pool = host.warm_pool
        self._stack.push_async_callback(host.close)
        shims = LivingShims(runners)
        self._stack.push_async_callback(shims.close)
        shims.find()
        bound = socket.create_server(("127.0.0.1", self.port))
        bound.setblocking(False)
        self.port = bound.getsockname()[1]
        sockets = ControlSockets(
            control=self.root / "control.sock", joining=self.root / "joining.sock", refusing=self.root / "refusing.sock"
        )
        fence = Fence(self.root / "node" / "epoch.json")
        entrance = Entrance(bound, lambda: self.identity.joined, sockets, fence, runners)
        self._stack.callback(entrance.close)

        async def joined() -> None:
            fence.forget()
            await entrance.open(self.identity.context())

        api_socket = ApiSocket(self.root / "api.sock")
        self._stack.callback(api_socket.close)
        service = HostService(
            host,
            shims,
            identity=self.identity,
            blobs=FileBlobs(self.root / "kept"),
            files=NoFiles(),
            runners_dir=runners,
            variables=lambda _account: {},
            isolation="none",
            renewed=lambda: None,
            api_socket=api_socket,
        )
        for path in (sockets.control, sockets.joining, sockets.refusing):
            path.unlink(missing_ok=True)
        for server in (
            serve(sockets.control, service),
            serve(sockets.joining, Enrolment(self.identity, joined)),
            refuse_all(sockets.refusing, fence),
        ):
            await server.start()
            self._stack.push_async_callback(server.stop, 0)
        await entrance.open(self.identity.context())
        self._entrance = entrance

    async def join(self) -> str:
        """Have it join the controller; return its name."""
        return await join(self.authority, "127.0.0.1", self.port, self.identity.token)

    async def close(self) -> None:
        """End the node; its runners go on."""
        await self._stack.aclose()
        self._stack = AsyncExitStack()
        if self._entrance is not None:
            self._entrance.cut()

    def host(
        self,
        blobs: Blobs,
        *,
        epoch: Epoch = EPOCH,
        wanted: Callable[[], Sequence[str] | None],
        silent: float,
        lost: float,
        port: int | None = None,
        network_host: str = "",
    ) -> RemoteHost:
        """Return the controller's side of it. It is to be opened and closed.

        Args:
            port: leads to it, if not its own.
            network_host: its address on a trusted network.
        """
        credentials = self.authority.credentials
        way = Way(
            node=self.name,
            host="127.0.0.1",
            port=self.port if port is None else port,
            epoch=epoch,
            credentials=credentials,
            context=credentials.context(),
        )
        return RemoteHost(
            way,
            machine_types=MachineTypes(),
            blobs=blobs,
            files=NoFiles(),
            wanted=wanted,
            api_socket=self.api_socket,
            network_host=network_host,
            silent_seconds=silent,
            lost_seconds=lost,
        )

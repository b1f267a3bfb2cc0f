"""How a controller reaches a node. This is its address, and what both prove who they are by."""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass, field

import grpc
import grpc.aio

from fal_server.engines.remote.epoch import Epoch
from fal_server.engines.remote.names import (
    DoorTarget,
    parse,
    server_name,
    split_network,
    with_epoch,
    with_port,
)
from fal_server.engines.remote.names import on_network as named_on_network
from fal_server.engines.shim.runner_door import OPTIONS

_OPTIONS: list[tuple[str, int | str]] = [
    *OPTIONS,
    # A machine without power, or one that was cut off, breaks no connection. The kernel gives one up whose bytes were
    # not acknowledged for five seconds. For that gRPC wants a keepalive, and a node refuses pings that come often.
    ("grpc.keepalive_time_ms", 3_600_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    # How long one attempt to connect takes: else it would wait for its packets' ever rarer repetitions.
    ("grpc.min_reconnect_backoff_ms", 5_000),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """What the controller shows to nodes. It also says by which authority it knows them.

    Attributes:
        authority, certificate, key: in PEM.
    """

    authority: bytes
    certificate: bytes
    key: bytes = field(repr=False)

    def channel(self) -> grpc.ChannelCredentials:
        """Return them for gRPC."""
        return grpc.ssl_channel_credentials(self.authority, self.key, self.certificate)

    def context(self) -> ssl.SSLContext:
        """Return them for other connections."""
        context = ssl.create_default_context(cadata=self.authority.decode())
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        # The module reads keys from files alone, and the key is to be on no disk.
        with os.fdopen(os.memfd_create("credentials", os.MFD_CLOEXEC), "wb") as file:
            file.write(self.certificate + self.key)
            file.flush()
            context.load_cert_chain(f"/proc/self/fd/{file.fileno()}")
        return context


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """The way to one node.

    Attributes:
        node: its name.
        host, port: where its door is.
        epoch: which start of the controller this is.
    """

    node: str
    host: str
    port: int
    epoch: Epoch
    credentials: Credentials = field(repr=False)
    context: ssl.SSLContext = field(repr=False)

    def channel(self, target: DoorTarget, who: str) -> grpc.aio.Channel:
        """Return a channel through the door, which the caller closes."""
        address = f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
        name = server_name(self.node, target, with_epoch(self.epoch, who))
        return grpc.aio.secure_channel(
            address,
            self.credentials.channel(),
            options=[*_OPTIONS, ("grpc.ssl_target_name_override", name), ("grpc.default_authority", name)],
        )

    def app_host(self, runner_id: str, *, on_network: bool = False) -> str:
        """Return the host of a runner's ports; see `app`."""
        return server_name(self.node, DoorTarget.HTTP, named_on_network(runner_id) if on_network else runner_id)

    def app(self, host: str) -> tuple[str, bool] | None:
        """Return which runner a host means. Also return whether its port is open on a trusted network.

        None is the answer for a runner of another machine.
        """
        found = parse(host)
        if found is None or host != server_name(self.node, DoorTarget.HTTP, found[1]):
            return None
        return split_network(found[1])

    def app_name(self, runner_id: str, port: int) -> str:
        """Return the name to ask the door for a runner's port."""
        return server_name(self.node, DoorTarget.HTTP, with_epoch(self.epoch, with_port(runner_id, port)))

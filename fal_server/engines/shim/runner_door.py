"""Connections to a runner: to its shim, its commands and its ports."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Protocol

import grpc.aio

from fal_runner.shim.address import EXEC_SOCKET_NAME, SocketPath
from fal_server.core.faults import Unavailable

OPTIONS: list[tuple[str, int | str]] = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.enable_http_proxy", 0),
    # Otherwise channels to one target share a connection, but a path through an open directory changes its target.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
]
"""How a channel to a shim is made, wherever that is."""


class Door(Protocol):
    """Connects to one runner."""

    @property
    def host(self) -> str:
        """The host of its ports."""
        ...

    @property
    def network_host(self) -> str:
        """The same, if its port is open on a trusted network, too."""
        ...

    def channel(self) -> grpc.aio.Channel:
        """Return a channel to its shim; the caller closes it."""
        ...

    async def connect(self) -> socket.socket:
        """Connect to its commands; the caller closes the socket.

        Raises:
            Unavailable: it cannot be reached.
        """
        ...

    def close(self) -> None:
        """Free the channels' resources, after they are closed."""
        ...


class UnixDoor:
    """Implements Door for a runner of this machine.

    Args:
        address: the path of its shim's socket.
        runner_id: for messages.
    """

    host = network_host = "127.0.0.1"

    def __init__(self, address: Path, runner_id: str) -> None:
        self._runner_id = runner_id
        self._socket = SocketPath(address)
        self._execs = address.with_name(EXEC_SOCKET_NAME)

    def channel(self) -> grpc.aio.Channel:
        return grpc.aio.insecure_channel(self._socket.target, options=OPTIONS)

    async def connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        path: SocketPath | None = None
        try:
            connection.setblocking(False)
            path = SocketPath(self._execs)
            connection.connect(path.path)
        except OSError as error:
            connection.close()
            raise Unavailable(self._unreachable(error)) from error
        finally:
            if path is not None:
                path.close()
        return connection

    def close(self) -> None:
        self._socket.close()

    def _unreachable(self, error: OSError) -> str:
        if isinstance(error, FileNotFoundError) and self._execs.parent.exists():
            return (
                f"runner {self._runner_id} was started by an older version, which takes no commands this way: "
                "`fal apps rollout` of its app replaces it"
            )
        return f"runner {self._runner_id} takes no commands now: {error}"

"""The socket on which runners of a node call the controller."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

_WAITING = 128


class ApiSocket:
    """Listens for runners; who connects waits until a controller takes the connection.

    Args:
        path: of the socket, alone in its directory, which is in every sandbox.

    Raises:
        OSError: it cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.unlink(missing_ok=True)
        self._listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listening.setblocking(False)
        self._listening.bind(os.fspath(path))
        path.chmod(0o600)
        self._listening.listen(_WAITING)
        self._one_at_a_time = asyncio.Lock()  # an event loop has one callback for each socket

    async def accept(self) -> socket.socket:
        """Wait for the next connection of a runner; return it."""
        async with self._one_at_a_time:
            connection, _ = await asyncio.get_running_loop().sock_accept(self._listening)
        return connection

    def close(self) -> None:
        """Listen no more."""
        self._listening.close()

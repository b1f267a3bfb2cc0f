"""The way to a node's apps past its door. It is for trusted networks."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

log = logging.getLogger(__name__)
_LOOK_SECONDS = 2.0
_CONNECT_SECONDS = 1.0
_MOST_LOOKS = 3
# The door's connections end when the node is given up. These may end while it answers.
_SILENT_SECONDS = 15


class StraightWay:
    """Leads to the ports of a node's runners. While it does not, requests take the door. Use it in one event loop.

    Args:
        node: the name of the node.
        host: its address on the trusted network.
        ports: returns the ports that its runners have open there; None while the node does not answer.
        look_seconds: how often to look whether it leads there again.

    Attributes:
        trouble: why requests take the door, for people to read; empty while they need not.
    """

    def __init__(
        self, node: str, host: str, ports: Callable[[], Sequence[int] | None], look_seconds: float = _LOOK_SECONDS
    ) -> None:
        self.node = node
        self.host = host
        self.trouble = ""
        self._ports = ports
        self._look_seconds = look_seconds
        self._looking: asyncio.Task[None] | None = None

    def failed(self, error: OSError) -> None:
        """Note that a connection could not be opened. A refused one may be of a runner that ends: look first."""
        if not isinstance(error, ConnectionRefusedError):
            self._note(error)
        if self._looking is None or self._looking.done():
            self._looking = asyncio.get_running_loop().create_task(self._look(), name=f"straight way to {self.node}")

    async def is_open(self, port: int) -> bool:
        """Return whether packets reach a port now. That of a runner that listens no more counts, too."""
        error = await self._why_closed([port])
        if error is None or isinstance(error, ConnectionRefusedError):
            return True
        self.failed(error)
        return False

    async def close(self) -> None:
        """Look no more."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)

    async def _look(self) -> None:
        """Look until it leads to a runner again. Without runners there is nothing to look at."""
        while True:
            await asyncio.sleep(self._look_seconds)
            ports = self._ports()
            if ports is None:
                continue
            error = await self._why_closed(ports[:_MOST_LOOKS])
            if error is None:
                if self.trouble:
                    log.info("node %s: requests go straight to its runners again", self.node)
                self.trouble = ""
                return
            self._note(error)

    async def _why_closed(self, ports: Sequence[int]) -> OSError | None:
        """Return why no port can be reached. None means that one can, or that there is none."""
        why: OSError | None = None
        for port in ports:
            try:
                async with asyncio.timeout(_CONNECT_SECONDS):
                    _, writer = await asyncio.open_connection(self.host, port)
            except OSError as error:
                why = error
            else:
                writer.transport.abort()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
                return None
        return why

    def _note(self, error: OSError) -> None:
        if not self.trouble:
            why = os.strerror(error.errno) if error.errno else "no answer"
            self.trouble = (
                f"requests take its door since {datetime.now(UTC):%H:%M:%S} UTC: the ports of its runners cannot be "
                f"reached ({why}); let the controller's machine connect to them, usually 20000 to 32767"
            )
            log.warning("node %s: %s", self.node, self.trouble)


def notice_silence(connection: socket.socket) -> None:
    """Have the kernel end a connection whose other end falls silent.

    The node's door may answer while a firewall drops what goes straight to its runners.
    """
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _SILENT_SECONDS // 3)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _SILENT_SECONDS // 3)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _SILENT_SECONDS * 1000)

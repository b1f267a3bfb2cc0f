"""Accepts connections; without free descriptors they wait in the kernel."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable

from fal_server.aio.tasks import TaskSet

_log = logging.getLogger(__name__)
BACKLOG = 1024
# The most accepted in a row before other work gets its turn.
_AT_ONCE = 100
_AGAIN_SECONDS = 0.1


class Acceptor:
    """Accepts the connections of one socket.

    It replaces the event loops' own servers: if descriptors run out, uvloop's accepts waiting connections and closes
    them at once, so that callers get a reset although a tenth of a second would have sufficed.

    Args:
        listening: a bound socket, which it closes.
        protocol: creates the protocol of each connection.
        tls: the TLS settings of each connection, if any.
        handshake_seconds: how long the handshake may take.
        tasks: keeps the tasks that establish connections.
    """

    def __init__(
        self,
        listening: socket.socket,
        protocol: Callable[[], asyncio.Protocol],
        *,
        tls: ssl.SSLContext | None,
        handshake_seconds: float,
        tasks: TaskSet,
    ) -> None:
        self._listening = listening
        self._protocol = protocol
        self._tls = tls
        self._handshake_seconds = handshake_seconds if tls is not None else None
        self._tasks = tasks
        self._loop = asyncio.get_running_loop()
        self._again: asyncio.TimerHandle | None = None
        self._lacking = False

    def start(self) -> None:
        """Listen.

        Raises:
            OSError: the socket cannot be listened on.
        """
        self._listening.setblocking(False)
        self._listening.listen(BACKLOG)
        self._resume()

    def close(self) -> None:
        """Accept who has connected, and stop listening. The kernel would reset what it has not handed out."""
        if self._listening.fileno() < 0:
            return
        if self._again is None:
            self._accept()
        if self._again is None:
            self._loop.remove_reader(self._listening)
        else:
            self._again.cancel()
        self._listening.close()

    def _resume(self) -> None:
        self._again = None
        self._loop.add_reader(self._listening, self._accept)

    def _accept(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                connection, _address = self._listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:  # no descriptor or memory, or a pending network error of the connection
                self._wait(error)
                return
            self._lacking = False
            connection.setblocking(False)
            self._tasks.spawn(self._connect(connection))

    def _wait(self, error: OSError) -> None:
        """Accept again after a pause. During it the reader would otherwise be called all the time."""
        if not self._lacking:
            self._lacking = True
            _log.warning("new connections wait: %s", error.strerror)
        self._loop.remove_reader(self._listening)
        self._again = self._loop.call_later(_AGAIN_SECONDS, self._resume)

    async def _connect(self, connection: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(
                self._protocol, connection, ssl=self._tls, ssl_handshake_timeout=self._handshake_seconds
            )
        except (OSError, asyncio.CancelledError):
            connection.close()  # the client has left, or does not speak TLS

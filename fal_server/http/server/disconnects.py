"""Notices that a client is gone whose connection is not being read, because its upload is held back."""

from __future__ import annotations

import asyncio
import os
import select
from collections.abc import Callable


class DisconnectWatcher:
    """Watches sockets for nothing but their end; the event loop's own transports see that only while they read.

    What is noticed: a reset, a host that answers no more, and a closed side, once it has come. A client that dies with
    much still to send is noticed when the app has taken what is before the end: the end stands behind it in line.
    """

    def __init__(self) -> None:
        self._epoll: select.epoll | None = None
        self._watched: dict[int, Callable[[], None]] = {}

    def watch(self, transport: asyncio.Transport, gone: Callable[[], None]) -> int:
        """Call `gone`, once, when the other side ends the connection.

        Returns:
            What `forget` wants.
        """
        if self._epoll is None:
            self._epoll = select.epoll()
            asyncio.get_running_loop().add_reader(self._epoll.fileno(), self._look)
        # A descriptor of our own: the transport's may be closed, and its number be another's, before it is forgotten.
        watched = os.dup(transport.get_extra_info("socket").fileno())
        self._watched[watched] = gone
        self._epoll.register(watched, select.EPOLLRDHUP)
        return watched

    def forget(self, watched: int) -> None:
        """Watch no longer; nothing where it has told its end."""
        if self._watched.pop(watched, None) is not None and self._epoll is not None:
            self._epoll.unregister(watched)
            os.close(watched)

    def close(self) -> None:
        """Forget all."""
        for watched in tuple(self._watched):
            self.forget(watched)
        if self._epoll is not None:
            asyncio.get_running_loop().remove_reader(self._epoll.fileno())
            self._epoll.close()
            self._epoll = None

    def _look(self) -> None:
        assert self._epoll is not None
        for watched, _ in self._epoll.poll(0):
            gone = self._watched.get(watched)
            self.forget(watched)
            if gone is not None:
                gone()

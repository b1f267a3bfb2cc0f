"""Detects client disconnects while reading is paused for backpressure."""

from __future__ import annotations

import asyncio
import os
import select
from collections.abc import Callable


class DisconnectWatcher:
    """Watches sockets for their end. The event loop's transports only notice it while reading.

    It detects a reset, a host that stopped answering, and a closed side. If a client dies in the middle of a large
    upload, the close is detected only once the app has taken the bytes before it.
    """

    def __init__(self) -> None:
        self._epoll: select.epoll | None = None
        self._watched: dict[int, Callable[[], None]] = {}

    def watch(self, transport: asyncio.Transport, gone: Callable[[], None]) -> int:
        """Call `gone` once when the other side ends the connection. Return a handle for `forget`."""
        if self._epoll is None:
            self._epoll = select.epoll()
            asyncio.get_running_loop().add_reader(self._epoll.fileno(), self._look)
        # Watch a duplicate, because the transport may close its descriptor and the number be reused before `forget`.
        watched = os.dup(transport.get_extra_info("socket").fileno())
        self._watched[watched] = gone
        self._epoll.register(watched, select.EPOLLRDHUP)
        return watched

    def forget(self, watched: int) -> None:
        """Stop watching; do nothing if `gone` was called."""
        if self._watched.pop(watched, None) is not None and self._epoll is not None:
            self._epoll.unregister(watched)
            os.close(watched)

    def close(self) -> None:
        """Stop watching everything."""
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

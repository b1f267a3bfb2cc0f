"""Joins two connections. It copies bytes from one to the other, at the pace of the slower."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import cast

from fal_server.http.server.header_limit import MOST_BLOCK_BYTES, HeaderLimit
from fal_server.http.server.registry import Registry

_log = logging.getLogger(__name__)


class Splice(asyncio.Protocol):
    """One of two joined connections; reading is paused until they are joined.

    Args:
        registry: lists this end while it is open; None for the inner end.
        on_end: called once when this end is closed.
        key_id: of the caller's key; None if there is none, or if each call on this connection has its own.

    Attributes:
        early: bytes that arrived before the join.
        eof: whether this side will send no more.
        slow: whether this side reads more slowly than it is sent to.
        lost: whether this end is closed.
    """

    __slots__ = ("_key_id", "_on_end", "_peer", "_registry", "early", "eof", "lost", "slow", "transport")

    def __init__(
        self,
        registry: Registry | None = None,
        on_end: Callable[[], None] | None = None,
        key_id: str | None = None,
    ) -> None:
        self._registry = registry
        self._key_id = key_id
        self._on_end = on_end
        self._peer: Splice | None = None
        self.early: list[bytes] = []
        self.lost = False
        self.eof = False
        self.slow = False

    def join(self, peer: Splice) -> None:
        """Join this end with another; both must be connected."""
        self._peer, peer._peer = peer, self
        for end in (self, peer):
            early, end.early = end.early, []
            for data in early:
                end.data_received(data)
            if end.lost:
                end.hang_up()
                continue
            if end.eof:
                end.eof_received()
                end.transport.close()
        for end, other in ((self, peer), (peer, self)):
            if not end.transport.is_closing() and not other.slow:
                end.transport.resume_reading()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        if self._peer is None:
            self.transport.pause_reading()
        if self._registry is not None:
            self._registry.add(self)

    def data_received(self, data: bytes) -> None:
        if self._peer is None:
            self.early.append(data)
        elif not self._peer.transport.is_closing():
            self._peer.transport.write(data)

    def eof_received(self) -> bool | None:
        """End both directions, because neither HTTP/2 nor WebSocket works half closed."""
        self.eof = True
        if self._peer is None:
            return True  # the bytes that arrived before the join must still be forwarded
        self.hang_up()
        return None

    def pause_writing(self) -> None:
        """Pause reading from the other side, because this one reads slowly."""
        self.slow = True
        if self._peer is not None and not self._peer.transport.is_closing():
            self._peer.transport.pause_reading()

    def resume_writing(self) -> None:
        self.slow = False
        if self._peer is not None and not self._peer.transport.is_closing():
            self._peer.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        if self._registry is not None:
            self._registry.discard(self)
        self.hang_up()
        if self._on_end is not None:
            on_end, self._on_end = self._on_end, None
            on_end()

    def drain(self) -> None:
        """Do nothing: the gRPC server or app behind this connection ends it."""

    def abort(self) -> None:
        """Close both ends at once."""
        self.transport.abort()
        if self._peer is not None:
            self._peer.transport.abort()

    def end_calls(self, name: str) -> None:
        if self._key_id == name:
            self.abort()

    def hang_up(self) -> None:
        """Close the other end once everything written to it is sent."""
        if self._peer is not None and not self._peer.lost:
            self._peer.transport.close()


class GrpcClient(Splice):
    """The end of a gRPC client. It is disconnected if one of its header blocks never ends."""

    __slots__ = ("_limit",)

    def __init__(self, registry: Registry) -> None:
        super().__init__(registry)
        self._limit = HeaderLimit()

    def data_received(self, data: bytes) -> None:
        """Forward bytes; early ones are passed again at the join."""
        if self._peer is None or self._limit.admits(data):
            super().data_received(data)
        elif not self.transport.is_closing():
            peer = self.transport.get_extra_info("peername")
            _log.debug("the connection from %s is cut: its headers exceed %d bytes", peer, MOST_BLOCK_BYTES)
            self.abort()

"""The controller's end of a WebSocket. It takes over the connection of its request."""

from __future__ import annotations

import asyncio
import logging
from abc import abstractmethod
from typing import cast

from websockets.frames import CloseCode, Frame, Opcode
from websockets.protocol import Protocol as WebSocket
from websockets.protocol import Side, State
from websockets.utils import accept_key

from fal_server.http.server.exchange import Exchange
from fal_server.http.server.registry import Registry

_FIELDS = b"connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: %b\r\nx-fal-request-id: %b\r\n"
_log = logging.getLogger(__name__)


class WebSocketProtocol(asyncio.Protocol):
    """Passes on whole messages. A subclass says what they mean, and how the connection ends in order.

    Args:
        exchange: the request for it.
        most_bytes: the largest message.
        admitted_by: the key and the membership that end the connection when they end.

    Attributes:
        socket: the parser; `flush` writes what it has to send.
        writable: cleared while the client takes nothing.
        gone: set when the connection has ended.
    """

    def __init__(self, exchange: Exchange, *, most_bytes: int, admitted_by: tuple[str | None, ...]) -> None:
        self.socket = WebSocket(Side.SERVER, state=State.OPEN, max_size=most_bytes, logger=_log)
        self.writable = asyncio.Event()
        self.writable.set()
        self.gone = asyncio.Event()
        self._exchange = exchange
        self._registry: Registry = exchange.connection.registry
        self._admitted_by = admitted_by
        self._parts: list[bytes] = []
        self._text = False

    @abstractmethod
    def take(self, data: bytes, *, text: bool) -> None:
        """Process a message."""

    @abstractmethod
    def read_on(self) -> None:
        """Pause reading if many messages wait. It is called after each part of what arrives."""

    @abstractmethod
    def drain(self) -> None:
        """Finish what the client may expect, then close."""

    def accept(self, request_id: str) -> None:
        """Accept the WebSocket, and take over the connection, with what came early."""
        exchange = self._exchange
        key = next((value for name, value in exchange.headers if name == b"sec-websocket-key"), b"")
        early = exchange.take_body()
        exchange.driver = None
        exchange.switch(_FIELDS % (accept_key(key.decode("latin-1")).encode(), request_id.encode()), self)
        if early:
            self.data_received(early)

    def flush(self) -> None:
        """Write the parser's output. An empty part means that it wants to close."""
        for data in self.socket.data_to_send():
            if self.transport.is_closing():
                return
            if data:
                self.transport.write(data)
            else:
                self.transport.close()

    def close(self, code: CloseCode, reason: str = "") -> None:
        """Close the connection after what was sent."""
        if self.socket.state is State.OPEN and not self.transport.is_closing():
            self.socket.send_close(code, reason)
            self.flush()
        self.transport.close()

    # Called by the transport.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self._registry.add(self)

    def data_received(self, data: bytes) -> None:
        self.socket.receive_data(data)
        for event in self.socket.events_received():
            if isinstance(event, Frame) and event.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
                self._text = self._text if event.opcode is Opcode.CONT else event.opcode is Opcode.TEXT
                self._parts.append(bytes(event.data))
                if event.fin:
                    message = b"".join(self._parts)
                    self._parts.clear()
                    self.take(message, text=self._text)
        self.flush()
        self.read_on()

    def eof_received(self) -> None:
        self.socket.receive_eof()

    def connection_lost(self, exc: Exception | None) -> None:
        self._registry.discard(self)
        self.writable.set()
        self.gone.set()

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()

    # Called by the listener.

    def abort(self) -> None:
        self.transport.abort()

    def end_calls(self, name: str) -> None:
        if name in self._admitted_by:
            self.transport.abort()

"""Accepts a WebSocket, whose connection another protocol then takes over."""

from __future__ import annotations

import asyncio

from websockets.utils import accept_key

from fal_server.http.server.exchange import Exchange

_FIELDS = b"connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: %b\r\nx-fal-request-id: %b\r\n"


def accept_websocket(exchange: Exchange, request_id: str, protocol: asyncio.Protocol) -> None:
    """Answer a request for a WebSocket, and give its connection to a protocol, with what came early."""
    key = next((value for name, value in exchange.headers if name == b"sec-websocket-key"), b"")
    early = exchange.take_body()
    exchange.driver = None
    exchange.switch(_FIELDS % (accept_key(key.decode("latin-1")).encode(), request_id.encode()), protocol)
    if early:
        protocol.data_received(early)

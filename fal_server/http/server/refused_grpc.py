"""Answers gRPC calls on connections that may not reach the gRPC server. So their callers learn why."""

from __future__ import annotations

import asyncio
import struct
from typing import cast
from urllib.parse import quote

# RFC 9113: the preface, the header of a frame, and the types and flags needed here.
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_FRAME = struct.Struct(">BHBBI")
_DATA, _HEADERS, _SETTINGS = 0x0, 0x1, 0x4
_ACK, _END_STREAM, _END_HEADERS = 0x1, 0x1, 0x4
_STATUS_200 = b"\x88"
_MOST_BYTES = 64 * 1024
FAILED_PRECONDITION, UNAVAILABLE = 9, 14


class RefusedGrpc(asyncio.Protocol):
    """Answers every call with one status; nothing from the client is forwarded.

    Args:
        reason: for the callers.
        seconds: how long the client may keep the connection.
        status: the number of the status.
    """

    def __init__(self, reason: str, seconds: float, *, status: int = FAILED_PRECONDITION) -> None:
        fields = {
            "content-type": "application/grpc",
            "grpc-status": f"{status}",
            "grpc-message": quote(reason, safe=" "),
        }
        self._trailers = _STATUS_200 + b"".join(_literal(name) + _text(value) for name, value in fields.items())
        self._seconds = seconds
        self._data = b""
        self._received = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._timer = asyncio.get_running_loop().call_later(self._seconds, self._transport.abort)
        self._transport.write(_frame(_SETTINGS, 0, 0))

    def data_received(self, data: bytes) -> None:
        self._received += len(data)
        if self._received > _MOST_BYTES:
            self._transport.abort()
            return
        self._data += data
        if self._received == len(self._data):  # nothing was removed yet
            if len(self._data) < len(_PREFACE):
                return
            if not self._data.startswith(_PREFACE):
                self._transport.abort()
                return
            self._data = self._data[len(_PREFACE) :]
        while len(self._data) >= _FRAME.size:
            high, low, kind, flags, stream = _FRAME.unpack_from(self._data)
            end = _FRAME.size + (high << 16 | low)
            if len(self._data) < end:
                return
            self._data = self._data[end:]
            if kind == _SETTINGS and not flags & _ACK:
                self._transport.write(_frame(_SETTINGS, _ACK, 0))
            elif kind == _HEADERS:
                self._transport.write(_frame(_HEADERS, _END_STREAM | _END_HEADERS, stream, self._trailers))

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()


def _frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    size = len(payload)
    return _FRAME.pack(size >> 16, size & 0xFFFF, kind, flags, stream) + payload


def _literal(name: str) -> bytes:
    """Return a name in the form of HPACK (RFC 7541). It is for a field that is not indexed."""
    return b"\0" + _text(name)


def _text(text: str) -> bytes:
    raw = text.encode("ascii")
    return _length(len(raw)) + raw


def _length(number: int) -> bytes:
    """Return an integer with a prefix of 7 bits, in HPACK's form."""
    if number < 127:
        return bytes((number,))
    number, found = number - 127, bytearray((127,))
    while number >= 128:
        found.append(number % 128 | 128)
        number //= 128
    return bytes((*found, number))

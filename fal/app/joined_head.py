"""Sends the head of a response together with its body.

uvicorn writes both on their own, and uvloop sends each write at once. Two packets wake the controller twice, and cost a
tenth of a request in both processes.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

from uvicorn.protocols.http.auto import AutoHTTPProtocol

_HEAD = b"HTTP/1.1 "
# A copy of a longer body would cost more than a second packet.
_JOIN_LIMIT = 16 * 1024


class JoinedHeadTransport:
    """A transport that holds a head for the next write.

    It holds it until the event loop's next turn at most, so the head of a stream does not wait for its first part.
    """

    def __init__(self, plain: asyncio.Transport) -> None:
        self._plain = plain
        self._write = plain.write
        self._call_soon = asyncio.get_running_loop().call_soon
        self._head = b""
        self.is_closing = plain.is_closing

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the transport has
        self._send_head()  # what the server asks for comes after what it wrote
        return getattr(self._plain, name)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Write a head later, and anything else with the head before it."""
        head, self._head = self._head, b""
        if not head:
            if data[: len(_HEAD)] == _HEAD:
                self._head = bytes(data)
                self._call_soon(self._send_head)
            else:
                self._write(data)
        elif len(data) <= _JOIN_LIMIT:
            self._write(b"".join((head, data)))
        else:
            self._write(head)
            self._write(data)

    def _send_head(self) -> None:
        head, self._head = self._head, b""
        if head:
            self._write(head)


class JoinedHeadProtocol(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
    """uvicorn's protocol on such a transport."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        joined = JoinedHeadTransport(cast("asyncio.Transport", transport))
        super().connection_made(cast("asyncio.BaseTransport", joined))

"""The file in a multipart/form-data body (RFC 7578), in pieces as it comes in: nothing of it is kept here."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator

from fal_server.core.faults import InvalidArgument

_BOUNDARY = re.compile(r';\s*boundary=(?:"([^"]{1,70})"|([^\s;"]{1,70}))', re.IGNORECASE)
_NAME = re.compile(rb';\s*name="([^"]*)"', re.IGNORECASE)
_MOST_HEAD_BYTES = 16 * 1024


async def file_field(
    content_type: str, chunks: AsyncIterator[bytes], field: str = "file_upload"
) -> AsyncGenerator[bytes]:
    """The content of a form's file.

    Args:
        content_type: of the body, with its boundary.
        chunks: the body.
        field: the name of the form's field; others are passed over.

    Raises:
        Invalid: the body is no such form, is cut off, or has no such field.
    """
    found = _BOUNDARY.search(content_type)
    if not content_type.lower().startswith("multipart/form-data") or found is None:
        raise InvalidArgument(field, f"send the file as field {field} of a multipart/form-data body")
    delimiter = b"\r\n--" + (found[1] or found[2]).encode()
    reader = _Reader(chunks)
    async for _ in reader.until(delimiter):
        continue  # what comes before the first part means nothing
    seen = False
    while True:
        if await reader.exactly(2) == b"--":
            break
        reader.give_back(b"\r\n")  # a part without head fields is an empty line after the delimiter
        head = await reader.head()
        name = _NAME.search(head)
        wanted = name is not None and name[1] == field.encode() and not seen
        seen = seen or wanted
        async for piece in reader.until(delimiter):
            if wanted:
                yield piece
    await reader.drain()
    if not seen:
        raise InvalidArgument(field, f"the form has no field {field}: send the file under that name")


class _Reader:
    """The body so far as it was not looked at yet."""

    def __init__(self, chunks: AsyncIterator[bytes]) -> None:
        self._chunks = chunks
        # The first delimiter may be the body's first bytes.
        self._buffer = bytearray(b"\r\n")

    async def until(self, delimiter: bytes) -> AsyncGenerator[bytes]:
        """The bytes before the delimiter, which is taken too."""
        while (at := self._buffer.find(delimiter)) < 0:
            safe = len(self._buffer) - len(delimiter) + 1
            if safe > 0:
                piece = bytes(self._buffer[:safe])
                del self._buffer[:safe]
                yield piece
            await self._more()
        piece = bytes(self._buffer[:at])
        del self._buffer[: at + len(delimiter)]
        if piece:
            yield piece

    async def exactly(self, count: int) -> bytes:
        """The next bytes."""
        while len(self._buffer) < count:
            await self._more()
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken

    def give_back(self, data: bytes) -> None:
        """Look at these bytes first."""
        self._buffer[:0] = data

    async def head(self) -> bytes:
        """A part's head, up to the empty line, which is taken too."""
        while (at := self._buffer.find(b"\r\n\r\n")) < 0:
            if len(self._buffer) > _MOST_HEAD_BYTES:
                raise InvalidArgument("body", f"a part of the form has a head of more than {_MOST_HEAD_BYTES} bytes")
            await self._more()
        head = bytes(self._buffer[:at])
        del self._buffer[: at + 4]
        return head

    async def drain(self) -> None:
        """Read to the end."""
        async for _ in self._chunks:
            continue

    async def _more(self) -> None:
        async for chunk in self._chunks:
            if chunk:
                self._buffer += chunk
                return
        raise InvalidArgument("body", "the form was cut off: send it again")

"""Limits the header blocks that a client sends over HTTP/2. It acts before the gRPC server parses them."""

from __future__ import annotations

# The gRPC server accepts 32 KiB of metadata at most, but reads a longer block to its end, however long it is.
MOST_BLOCK_BYTES = 64 * 1024
_PREFACE_BYTES = 24
_FRAME_HEAD_BYTES = 9
_HEADERS, _CONTINUATION = 1, 9
_END_HEADERS = 4


class HeaderLimit:
    """Follows the frames of one connection. A block of HEADERS and CONTINUATION frames must end within the limit."""

    __slots__ = ("_block", "_head", "_skip")

    def __init__(self) -> None:
        self._skip = _PREFACE_BYTES
        self._head = b""
        self._block = 0

    def admits(self, data: bytes) -> bool:
        """Add the next bytes of the connection. Return whether they keep the limit."""
        position = 0
        while True:
            if self._skip:
                step = min(self._skip, len(data) - position)
                self._skip -= step
                position += step
            if position == len(data):
                return True
            head = self._head + data[position : position + _FRAME_HEAD_BYTES - len(self._head)]
            position += len(head) - len(self._head)
            if len(head) < _FRAME_HEAD_BYTES:
                self._head = head
                return True
            self._head = b""
            length = int.from_bytes(head[:3])
            self._skip = length
            kind = head[3]
            if kind in (_HEADERS, _CONTINUATION):
                self._block = length + _FRAME_HEAD_BYTES + (self._block if kind == _CONTINUATION else 0)
                if self._block > MOST_BLOCK_BYTES:
                    return False
                if head[4] & _END_HEADERS:
                    self._block = 0

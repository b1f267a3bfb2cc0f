"""Sends an open file, with support for ranges, HEAD and conditional requests."""

from __future__ import annotations

import os
from collections.abc import Mapping
from mimetypes import guess_type

from starlette.responses import FileResponse
from starlette.types import Receive, Scope, Send

from fal_server.ports.files import OpenFile

_CHUNK_BYTES = 256 * 1024


class OpenFileResponse(FileResponse):
    """A response from an open descriptor, which it closes in any case.

    Args:
        content_type: None guesses it from the file's name.
    """

    chunk_size = _CHUNK_BYTES

    def __init__(
        self, opened: OpenFile, *, content_type: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        self._descriptor = opened.descriptor
        kind = content_type or guess_type(opened.name)[0] or "application/octet-stream"
        super().__init__(
            f"/proc/self/fd/{opened.descriptor}",
            stat_result=os.fstat(opened.descriptor),
            # As a header, because Starlette would add an unknown charset to a `media_type`.
            headers={**(headers or {}), "content-type": kind},
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            os.close(self._descriptor)

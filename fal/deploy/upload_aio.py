"""Uploads the app files that the controller lacks, for asyncio. It sends them in parts, several at a time."""

# The source of fal/deploy/upload.py: run `make gen` after a change.

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Protocol

from fal.deploy.concurrency import async_for_each
from fal.deploy.errors import UploadError
from fal.deploy.files import AppFile
from fal.http_messages import file_form
from fal_grpc.adapter.values import JSON
from fal_grpc.errors import CallError

PART_BYTES = 10 * 1024 * 1024
_PARALLEL = 10
_TIMEOUT_SECONDS = 300.0


class AsyncSender(Protocol):
    """The part of the controller's HTTP side that an upload uses. `AsyncRest` is one."""

    async def send(self, method: str, path: str, body: bytes, content_type: str, *, timeout_seconds: float) -> JSON:
        """Send a body, and return the response's JSON; None if empty.

        Raises:
            CallError: the controller refused, or cannot be reached.
        """
        ...


class AsyncFileStore:
    """The controller's store of app files, addressed by their hashes.

    Args:
        sender: the HTTP side of the controller.
    """

    def __init__(self, sender: AsyncSender) -> None:
        self._sender = sender

    async def ensure(self, files: Sequence[AppFile]) -> list[AppFile]:
        """Send the files that the controller lacks.

        Returns:
            The files that were sent.

        Raises:
            UploadError: a file could not be sent; the message names it and says why.
        """
        by_hash = {file.hash: file for file in files}
        missing = [by_hash[name] for name in await self._missing(list(by_hash)) if name in by_hash]
        await async_for_each(self._send, missing, at_once=_PARALLEL)
        return missing

    async def _missing(self, hashes: list[str]) -> list[str]:
        if not hashes:
            return []
        answer = await self._json("/files/missing_hashes", {"hashes": list(hashes)}, "the list of files")
        if not isinstance(answer, list):
            raise UploadError("the controller did not answer with a list of missing files")
        return [str(item) for item in answer]

    async def _send(self, file: AppFile) -> None:
        what = file.relative_path
        about: dict[str, JSON] = {
            "size": str(file.size),
            "mtime": str(file.mtime),
            "mode": str(file.mode),
            "hash": file.hash,
        }
        base = f"/files/app/multipart/{file.hash}"
        initiated = await self._json(f"{base}/initiate", about, what)
        upload_id = initiated.get("upload_id") if isinstance(initiated, dict) else None
        if not isinstance(upload_id, str):
            raise UploadError(f"{what} could not be sent: the controller gave no upload id")
        upload = f"{base}/{upload_id}"
        parts: list[JSON] = []
        async with aclosing(_parts(file.path)) as chunks:
            async for number, chunk in chunks:
                parts.append(await self._part(f"{upload}/{number}", number, chunk, what))
        await self._json(f"{upload}/complete", {"parts": parts, "metadata": about}, what)

    async def _part(self, path: str, number: int, chunk: bytes, what: str) -> dict[str, JSON]:
        body, content_type = file_form(chunk, f"part{number}")
        answer = await self._call("PUT", path, body, content_type, what)
        if not isinstance(answer, dict) or "part_number" not in answer:
            raise UploadError(f"{what} could not be sent: the controller did not acknowledge part {number}")
        return {"part_number": answer["part_number"], "etag": answer.get("etag")}

    async def _json(self, path: str, body: dict[str, JSON], what: str) -> JSON:
        return await self._call("POST", path, json.dumps(body).encode(), "application/json", what)

    async def _call(self, method: str, path: str, body: bytes, content_type: str, what: str) -> JSON:
        try:
            return await self._sender.send(method, path, body, content_type, timeout_seconds=_TIMEOUT_SECONDS)
        except CallError as error:
            raise UploadError(f"{what} could not be sent: {error}") from error


async def _parts(path: Path) -> AsyncGenerator[tuple[int, bytes]]:
    """Yield the parts of a file, counted from 1. An empty file is one empty part."""
    with await asyncio.to_thread(path.open, "rb") as file:
        number, chunk = 1, await asyncio.to_thread(file.read, PART_BYTES)
        while chunk or number == 1:
            yield number, chunk
            number, chunk = number + 1, await asyncio.to_thread(file.read, PART_BYTES)

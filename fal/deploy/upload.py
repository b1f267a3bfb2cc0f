"""Uploads the app files that the controller lacks. It sends them in parts, several at a time."""

# Generated from fal/deploy/upload_aio.py by scripts/gen_blocking.py; do not edit.

from __future__ import annotations

import json
from collections.abc import Generator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Protocol

from fal.deploy.concurrency import for_each
from fal.deploy.errors import UploadError
from fal.deploy.files import AppFile
from fal.http_messages import file_form
from fal_grpc.adapter.values import JSON
from fal_grpc.errors import CallError

PART_BYTES = 10 * 1024 * 1024
_PARALLEL = 10
_TIMEOUT_SECONDS = 300.0


class Sender(Protocol):
    """The part of the controller's HTTP side that an upload uses. `Rest` is one."""

    def send(self, method: str, path: str, body: bytes, content_type: str, *, timeout_seconds: float) -> JSON:
        """Send a body, and return the response's JSON; None if empty.

        Raises:
            CallError: the controller refused, or cannot be reached.
        """
        ...


class FileStore:
    """The controller's store of app files, addressed by their hashes.

    Args:
        sender: the HTTP side of the controller.
    """

    def __init__(self, sender: Sender) -> None:
        self._sender = sender

    def ensure(self, files: Sequence[AppFile]) -> list[AppFile]:
        """Send the files that the controller lacks.

        Returns:
            The files that were sent.

        Raises:
            UploadError: a file could not be sent; the message names it and says why.
        """
        by_hash = {file.hash: file for file in files}
        missing = [by_hash[name] for name in self._missing(list(by_hash)) if name in by_hash]
        for_each(self._send, missing, at_once=_PARALLEL)
        return missing

    def _missing(self, hashes: list[str]) -> list[str]:
        if not hashes:
            return []
        answer = self._json("/files/missing_hashes", {"hashes": list(hashes)}, "the list of files")
        if not isinstance(answer, list):
            raise UploadError("the controller did not answer with a list of missing files")
        return [str(item) for item in answer]

    def _send(self, file: AppFile) -> None:
        what = file.relative_path
        about: dict[str, JSON] = {
            "size": str(file.size),
            "mtime": str(file.mtime),
            "mode": str(file.mode),
            "hash": file.hash,
        }
        base = f"/files/app/multipart/{file.hash}"
        initiated = self._json(f"{base}/initiate", about, what)
        upload_id = initiated.get("upload_id") if isinstance(initiated, dict) else None
        if not isinstance(upload_id, str):
            raise UploadError(f"{what} could not be sent: the controller gave no upload id")
        upload = f"{base}/{upload_id}"
        parts: list[JSON] = []
        with closing(_parts(file.path)) as chunks:
            for number, chunk in chunks:
                parts.append(self._part(f"{upload}/{number}", number, chunk, what))
        self._json(f"{upload}/complete", {"parts": parts, "metadata": about}, what)

    def _part(self, path: str, number: int, chunk: bytes, what: str) -> dict[str, JSON]:
        body, content_type = file_form(chunk, f"part{number}")
        answer = self._call("PUT", path, body, content_type, what)
        if not isinstance(answer, dict) or "part_number" not in answer:
            raise UploadError(f"{what} could not be sent: the controller did not acknowledge part {number}")
        return {"part_number": answer["part_number"], "etag": answer.get("etag")}

    def _json(self, path: str, body: dict[str, JSON], what: str) -> JSON:
        return self._call("POST", path, json.dumps(body).encode(), "application/json", what)

    def _call(self, method: str, path: str, body: bytes, content_type: str, what: str) -> JSON:
        try:
            return self._sender.send(method, path, body, content_type, timeout_seconds=_TIMEOUT_SECONDS)
        except CallError as error:
            raise UploadError(f"{what} could not be sent: {error}") from error


def _parts(path: Path) -> Generator[tuple[int, bytes]]:
    """Yield the parts of a file, counted from 1. An empty file is one empty part."""
    with path.open("rb") as file:
        number, chunk = 1, file.read(PART_BYTES)
        while chunk or number == 1:
            yield number, chunk
            number, chunk = number + 1, file.read(PART_BYTES)

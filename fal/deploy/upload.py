"""Sending an app's files to the controller, over HTTP: only what it does not have, in parts, several at a time."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

from fal.deploy.errors import UploadError
from fal.deploy.files import AppFile

PART_BYTES = 10 * 1024 * 1024
_PARALLEL = 10
_TIMEOUT_SECONDS = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FileStore:
    """The controller's store of app files.

    Attributes:
        url: the controller's address, such as "http://127.0.0.1:8080".
        headers: makes the headers that say who is calling.
    """

    url: str
    headers: Callable[[], Mapping[str, str]] = field(repr=False)

    def ensure(self, files: Sequence[AppFile]) -> list[AppFile]:
        """Send those files that the controller does not have.

        Returns:
            the files that were sent.

        Raises:
            UploadError: a file could not be sent; the message names it and says why.
        """
        by_hash = {file.hash: file for file in files}
        missing = [by_hash[name] for name in self._missing(list(by_hash)) if name in by_hash]
        with ThreadPoolExecutor(max_workers=_PARALLEL) as pool:
            list(pool.map(self._send, missing))
        return missing

    def _missing(self, hashes: list[str]) -> list[str]:
        if not hashes:
            return []
        answer = self._json("/files/missing_hashes", {"hashes": hashes}, "the list of files")
        if not isinstance(answer, list):
            raise UploadError(f"{self.url} answered something else than a list of missing files")
        return [str(item) for item in answer]

    def _send(self, file: AppFile) -> None:
        what = file.relative_path
        about = {"size": str(file.size), "mtime": str(file.mtime), "mode": str(file.mode), "hash": file.hash}
        base = f"/files/app/multipart/{file.hash}"
        begun = self._json(f"{base}/initiate", about, what)
        if not isinstance(begun, dict) or not isinstance(begun.get("upload_id"), str):
            raise UploadError(f"{what}: {self.url} gave no upload id")
        upload = f"{base}/{begun['upload_id']}"
        parts = [self._part(f"{upload}/{number}", number, chunk, what) for number, chunk in _parts(file.path)]
        self._json(f"{upload}/complete", {"parts": parts, "metadata": about}, what)

    def _part(self, path: str, number: int, chunk: bytes, what: str) -> dict[str, object]:
        boundary = uuid4().hex
        body = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="file_upload"; filename="part{number}"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        ).encode()
        body += chunk + f"\r\n--{boundary}--\r\n".encode()
        answer = self._call("PUT", path, body, f"multipart/form-data; boundary={boundary}", what)
        if not isinstance(answer, dict) or "part_number" not in answer:
            raise UploadError(f"{what}: {self.url} did not acknowledge part {number}")
        return {"part_number": answer["part_number"], "etag": answer.get("etag")}

    def _json(self, path: str, body: Mapping[str, object], what: str) -> object:
        return self._call("POST", path, json.dumps(body).encode(), "application/json", what)

    def _call(self, method: str, path: str, body: bytes, content_type: str, what: str) -> object:
        headers = {**self.headers(), "Content-Type": content_type, "Accept": "application/json"}
        request = urllib.request.Request(self.url + path, data=body, headers=headers, method=method)  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as response:  # noqa: S310 - http(s) of the profile
                text = response.read()
        except urllib.error.HTTPError as error:
            said = _detail(error.read())
            hint = ": this controller takes no app files" if error.code == 404 else ""
            raise UploadError(
                f"{what} could not be sent to {self.url}: {error.code} {said or error.reason}{hint}"
            ) from error
        except OSError as error:
            raise UploadError(f"{what} could not be sent to {self.url}: {error}") from error
        try:
            answer: object = json.loads(text) if text else None
        except ValueError as error:
            raise UploadError(f"{what}: {self.url} answered something that is not JSON") from error
        return answer


def _parts(path: Path) -> Iterator[tuple[int, bytes]]:
    """The parts of a file, counted from 1; an empty file is one empty part."""
    with path.open("rb") as file:
        number, chunk = 1, file.read(PART_BYTES)
        while chunk or number == 1:
            yield number, chunk
            number, chunk = number + 1, file.read(PART_BYTES)


def _detail(body: bytes) -> str:
    """What an error's body says, in its `detail` or as it is."""
    try:
        parsed = json.loads(body)
    except ValueError:
        return body.decode(errors="replace")[:200]
    return str(parsed.get("detail", parsed)) if isinstance(parsed, dict) else str(parsed)

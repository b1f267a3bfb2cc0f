"""Lists, downloads, uploads, moves and removes files in /data. All runners of the account share it."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import quote

from fal.http_messages import file_form
from fal.rest import Rest
from fal_grpc.adapter.values import JSON
from fal_grpc.errors import ArgumentError, CallError, ConfigError, NotFoundError, UnknownError

DATA = "/data"
PART_BYTES = 10 * 1024 * 1024
_PARALLEL = 4
_SECONDS = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteFile:
    """A file or directory in /data; `size` is in bytes."""

    path: str
    size: int
    is_file: bool
    updated_at: str

    @property
    def name(self) -> str:
        return PurePosixPath(self.path).name


class Files:
    """The files of an account. Paths are absolute, such as `/data/models/x`, or relative to /data."""

    def __init__(self, rest: Rest) -> None:
        self._rest = rest

    def entries(self, path: str = "/") -> list[RemoteFile]:
        """Return a directory's entries, sorted by path; `/` contains only /data.

        Raises:
            NotFoundError: there is no such directory.
        """
        whole = absolute(path)
        if whole == "/":
            return [RemoteFile(path=DATA, size=0, is_file=False, updated_at="")]
        answer = self._rest.ask("GET", f"/files/list/{quote(whole)}", {"strict": "true"}, timeout_seconds=_SECONDS)
        items = answer if isinstance(answer, list) else []
        return sorted(map(_entry, items), key=lambda entry: entry.path)

    def find(self, path: str) -> RemoteFile:
        """Return a file or directory.

        Raises:
            NotFoundError: it does not exist.
        """
        whole = absolute(path)
        parent = str(PurePosixPath(whole).parent)
        found = next((entry for entry in self.entries(parent) if entry.path == whole), None)
        if found is None:
            raise NotFoundError(f"{whole} not found: `fal files list` shows what there is")
        return found

    def download(self, remote: str, local: Path) -> list[Path]:
        """Download a file or a directory, as `cp -r` does.

        Args:
            remote: what to download.
            local: the destination; if it is a directory, the download goes into it under its own name.

        Returns:
            The files that were written.

        Raises:
            NotFoundError: there is no such file.
            CallError: the controller refused, or cannot be reached.
        """
        whole = absolute(remote)
        if whole in ("/", DATA) or self._is_directory(whole):
            root = DATA if whole == "/" else whole
            into = local / PurePosixPath(root).name if local.is_dir() and not remote.endswith("/") else local
            into.mkdir(parents=True, exist_ok=True)
            written: list[Path] = []
            for entry in self.entries(root):
                target = into / _local_name(entry)
                if entry.is_file:
                    written.append(self._download_file(entry.path, target))
                else:
                    target.mkdir(exist_ok=True)
                    written += self.download(f"{entry.path}/", target)
            return written
        return [self._download_file(whole, local / PurePosixPath(whole).name if local.is_dir() else local)]

    def upload(self, local: Path, remote: str) -> list[str]:
        """Upload a file or a directory, as `cp -r` does.

        Args:
            local: what to upload.
            remote: the destination; if it is a directory, or ends with a slash, the upload goes into it under its
                own name.

        Returns:
            The paths that were written.

        Raises:
            ConfigError: there is no such local file.
            CallError: the controller refused, or cannot be reached.
        """
        if not local.exists():
            raise ConfigError(f"there is no {local}")
        whole = absolute(remote)
        inside = remote.endswith("/") or whole == DATA or self._is_directory(whole)
        target = f"{whole}/{local.resolve().name}" if inside else whole
        if local.is_file():
            return [self._upload_file(local, target)]
        return [self._upload_file(path, f"{target}/{name}") for path, name in _files_in(local)]

    def upload_url(self, url: str, remote: str) -> None:
        """Let the controller download a file from a URL.

        Raises:
            CallError: the controller refused, or cannot reach the URL.
        """
        self._post(f"/files/file/url/{quote(absolute(remote))}", {"url": url})

    def move(self, source: str, destination: str) -> None:
        """Move a file or directory.

        Raises:
            NotFoundError: there is no such file.
        """
        self._post(f"/files/rename/{quote(absolute(source))}", {"destination": absolute(destination)})

    def remove(self, path: str) -> None:
        """Remove a file, or a directory with its content.

        Raises:
            NotFoundError: there is no such file.
        """
        self._rest.send(
            "DELETE",
            f"/files/file/{quote(absolute(path))}",
            b"",
            "application/json",
            timeout_seconds=_SECONDS,
            own=True,
        )

    def _is_directory(self, path: str) -> bool:
        try:
            return not self.find(path).is_file
        except NotFoundError:
            return False

    def _download_file(self, path: str, target: Path) -> Path:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=".fal-download-")
        temporary = Path(name)
        try:
            with (
                os.fdopen(handle, "wb") as file,
                self._rest.receive(f"/files/file/{quote(path)}", timeout_seconds=_SECONDS) as answer,
            ):
                size = answer.length
                for chunk in answer.chunks():
                    file.write(chunk)
                if size is not None and file.tell() != size:
                    raise UnknownError(f"{path} was cut off: {file.tell()} of {size} bytes arrived; try again")
            umask = os.umask(0)
            os.umask(umask)
            temporary.chmod(0o666 & ~umask)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
        return target

    def _upload_file(self, local: Path, path: str) -> str:
        if local.stat().st_size <= PART_BYTES:
            self._form("POST", f"/files/file/local/{quote(path)}", local.read_bytes(), local.name)
            return path
        base = f"/files/file/multipart/{quote(path)}"
        started = self._post(f"{base}/initiate", {})
        upload_id = started.get("upload_id") if isinstance(started, dict) else None
        if not isinstance(upload_id, str):
            raise UnknownError(f"{local} could not be uploaded: the controller gave no upload id")
        upload = f"{base}/{upload_id}"
        try:
            parts, md5 = self._upload_parts(local, upload)
            done = self._post(f"{upload}/complete", {"parts": parts})
        except BaseException:
            self._cancel(upload)
            raise
        etag = done.get("etag") if isinstance(done, dict) else None
        if etag and etag != md5:
            raise UnknownError(f"{path} arrived with another content (MD5 {etag}, not {md5}): upload it again")
        return path

    def _upload_parts(self, local: Path, upload: str) -> tuple[list[JSON], str]:
        """Send the parts, several at a time. Return the controller's answer to each, and the MD5 of the whole file."""
        md5 = hashlib.md5(usedforsecurity=False)
        said: list[JSON] = []
        with local.open("rb") as file, ThreadPoolExecutor(max_workers=_PARALLEL) as pool:
            number = 1
            while True:
                chunks: list[bytes] = []
                while len(chunks) < _PARALLEL and (chunk := file.read(PART_BYTES)):
                    md5.update(chunk)
                    chunks.append(chunk)
                if not chunks:
                    return said, md5.hexdigest()
                numbers = range(number, number + len(chunks))
                sent = [
                    pool.submit(self._form, "PUT", f"{upload}/{n}", c, local.name)
                    for n, c in zip(numbers, chunks, strict=True)
                ]
                said += [part.result() for part in sent]
                number += len(chunks)

    def _cancel(self, upload: str) -> None:
        try:
            self._post(f"{upload}/cancel", {})
        except CallError:
            return  # the controller discards the upload by itself, and only the first error matters

    def _form(self, method: str, path: str, content: bytes, name: str) -> JSON:
        body, content_type = file_form(content, name)
        return self._rest.send(method, path, body, content_type, timeout_seconds=_SECONDS, own=True)

    def _post(self, path: str, body: dict[str, JSON]) -> JSON:
        encoded = json.dumps(body).encode()
        return self._rest.send("POST", path, encoded, "application/json", timeout_seconds=_SECONDS, own=True)


def _local_name(entry: RemoteFile) -> str:
    """Return an entry's name if it is safe in a local path. The controller chose it."""
    if entry.name in {"", ".", ".."} or Path(entry.name).name != entry.name:
        raise UnknownError(f"{entry.path!r} is not a name that a file can have on this machine")
    return entry.name


def absolute(path: str) -> str:
    """Return an absolute path; a relative path is below /data.

    Raises:
        ArgumentError: it has `..` in it, which an HTTP client would resolve to another file.
    """
    if ".." in path.split("/"):
        raise ArgumentError("path", f"{path!r} has `..` in it: write the path without")
    return str(PurePosixPath(DATA) / path) if path not in ("", ".") else DATA


def _files_in(directory: Path) -> Iterator[tuple[Path, str]]:
    for path in sorted(directory.rglob("*")):
        if path.is_file():
            yield path, path.relative_to(directory).as_posix()


def _entry(item: JSON) -> RemoteFile:
    fields = item if isinstance(item, dict) else {}
    size = fields.get("size")
    return RemoteFile(
        path=str(fields.get("path", "")),
        size=size if isinstance(size, int) else 0,
        is_file=fields.get("is_file") is not False,
        updated_at=str(fields.get("updated_time", "")),
    )

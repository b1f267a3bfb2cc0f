"""Files that endpoints take and return."""

from __future__ import annotations

import asyncio
import base64
import secrets
import shutil
import weakref
from collections.abc import Iterator
from mimetypes import guess_extension, guess_type
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import Any, Self
from urllib.parse import urlsplit
from zipfile import BadZipFile, ZipFile

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, model_validator

from fal.toolkit.downloads import DownloadError, download_file, read_url
from fal.toolkit.uploading import upload

_ANY = "application/octet-stream"
# The published names of the platform's storage.
_PLATFORM = frozenset({"fal_v3", "fal_v2", "fal", "cdn"})
_MEMORY = "in_memory"


class File(BaseModel):
    """A file at an address. An input may be the address alone, also a data: URL."""

    url: str = Field(description="The URL where the file can be downloaded from.")
    content_type: str | None = Field(default=None, description="The mime type of the file.", examples=["image/png"])
    file_name: str | None = Field(default=None, description="The name of the file.", examples=["output.png"])
    file_size: int | None = Field(default=None, description="The size of the file in bytes.", examples=[4404019])

    @model_validator(mode="before")
    @classmethod
    def _from_address(cls, value: Any) -> Any:  # noqa: ANN401 - whatever a caller sent
        if not isinstance(value, str):
            return value
        if urlsplit(value).scheme not in ("http", "https", "data"):
            raise ValueError("value must be a URL that begins with http:, https: or data:")
        return {"url": value}

    @classmethod
    def from_bytes(
        cls, data: bytes, content_type: str | None = None, file_name: str | None = None, *, repository: str = "fal_v3"
    ) -> Self:
        """Store bytes.

        Args:
            data: the content.
            content_type: None guesses from the name.
            file_name: None generates one.
            repository: "fal_v3" stores it on the platform; "in_memory" puts the content into a data: URL.

        Raises:
            FileUploadException: it could not be stored.
        """
        kind = content_type or guess_type(file_name or "")[0] or _ANY
        name = file_name or f"{secrets.token_hex(16)}{guess_extension(kind) or '.bin'}"
        return cls(url=_stored(data, name, kind, repository), content_type=kind, file_name=name, file_size=len(data))

    @classmethod
    def from_path(cls, path: str | Path, content_type: str | None = None, *, repository: str = "fal_v3") -> Self:
        """Store a file, which is read in chunks.

        Args:
            path: the file.
            content_type: None guesses from the name.
            repository: as in `from_bytes`.

        Raises:
            FileNotFoundError: there is no such file.
            FileUploadException: it could not be stored.
        """
        file = Path(path)
        size = file.stat().st_size
        kind = content_type or guess_type(file.name)[0] or _ANY
        url = _stored(file, file.name, kind, repository)
        return cls(url=url, content_type=kind, file_name=file.name, file_size=size)

    def as_bytes(self) -> bytes:
        """Download the content.

        Raises:
            DownloadError: it could not be downloaded.
        """
        return read_url(self.url)

    def save(self, path: str | Path, overwrite: bool = False) -> Path:
        """Download to a path, whose directory is created if it is missing.

        Raises:
            FileExistsError: the file exists, and `overwrite` is not set.
            DownloadError: it could not be downloaded.
        """
        target = Path(path).resolve()
        if target.exists() and not overwrite:
            raise FileExistsError(f"File {target} already exists")
        target.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=target.parent, prefix=".save-") as directory:
            download_file(self.url, directory).replace(target)
        return target

    async def save_async(self, path: str | Path, overwrite: bool = False) -> Path:
        """`save`, in a thread."""
        return await asyncio.to_thread(self.save, path, overwrite)


class Audio(File):
    """A sound file."""

    model_config = ConfigDict(json_schema_extra={"ui": {"field": "audio"}})


class Video(File):
    """A video file."""

    model_config = ConfigDict(json_schema_extra={"ui": {"field": "video"}})


class CompressedFile(File):
    """A ZIP archive. It is unpacked at first use, and the unpacked files are deleted with this object."""

    _unpacked: Path | None = PrivateAttr(default=None)

    def __iter__(self) -> Iterator[Path]:  # type: ignore[override]  # the published meaning: not pydantic's fields
        """Iterate over the files and directories at the top of the archive."""
        return iter(sorted(self._directory().iterdir()))

    def glob(self, pattern: str) -> Iterator[Path]:
        """Return the files that match a pattern, such as "*.png" or "**/*.txt".

        Raises:
            DownloadError: it could not be downloaded, or is no ZIP archive.
        """
        return self._directory().glob(pattern)

    def _directory(self) -> Path:
        if self._unpacked is None:
            directory = Path(mkdtemp(prefix="fal-archive-"))
            weakref.finalize(self, shutil.rmtree, directory, ignore_errors=True)
            with TemporaryDirectory(prefix="fal-archive-") as place:
                archive = self.save(Path(place) / "archive.zip")
                try:
                    with ZipFile(archive) as opened:
                        opened.extractall(directory)
                except BadZipFile as error:
                    raise DownloadError(f"{self.url[:200]} is no ZIP archive: {error}") from error
            self._unpacked = directory
        return self._unpacked


def _stored(content: bytes | Path, name: str, kind: str, repository: str) -> str:
    if repository == _MEMORY:
        data = content.read_bytes() if isinstance(content, Path) else content
        return f"data:{kind};base64,{base64.b64encode(data).decode()}"
    if repository not in _PLATFORM:
        raise ValueError(f"there is no repository {repository!r}: use 'fal_v3' or '{_MEMORY}'")
    return upload(content, name, kind)

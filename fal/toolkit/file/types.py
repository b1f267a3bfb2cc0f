"""The interface of file repositories, and their inputs and outputs."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from mimetypes import guess_extension, guess_type
from pathlib import Path
from typing import Literal

RepositoryId = Literal["fal", "fal_v2", "fal_v3", "in_memory", "gcp_storage", "r2", "cdn"]
_ANY = "application/octet-stream"


class FileData:
    """The content of a file.

    Args:
        data: the content.
        content_type: its media type; None guesses it from the name.
        file_name: its name; None generates one.
    """

    def __init__(self, data: bytes, content_type: str | None = None, file_name: str | None = None) -> None:
        self.data = data
        self.content_type = content_type or guess_type(file_name or "")[0] or _ANY
        self.file_name = file_name or f"{secrets.token_hex(16)}{guess_extension(self.content_type) or '.bin'}"


@dataclass(frozen=True)
class Reservation:
    """A reserved address of a future file.

    Attributes:
        url: the address.
        complete: stores the content there.
        abort: releases the address.
        cdn_signing_requested: whether the platform will sign the address for its caller.
    """

    url: str
    complete: Callable[[bytes | Path], object]
    abort: Callable[[], None] = lambda: None
    cdn_signing_requested: bool = False


@dataclass
class FileRepository:
    """A store of files. Subclass it, and pass an instance as `repository`."""

    def reserve(
        self,
        file_name: str,
        content_type: str,
        object_lifecycle_preference: Mapping[str, object] | None = None,
        request: object = None,
        extra_headers: Mapping[str, str] | None = None,
    ) -> Reservation:
        """Reserve an address for a file whose content comes later.

        Raises:
            NotImplementedError: this repository knows an address only once it has the content.
        """
        raise NotImplementedError(f"{type(self).__name__} gives a file its address when it has its content")

    def save(
        self,
        data: FileData,
        multipart: bool | None = None,
        multipart_threshold: int | None = None,
        multipart_chunk_size: int | None = None,
        multipart_max_concurrency: int | None = None,
        object_lifecycle_preference: Mapping[str, object] | None = None,
    ) -> str:
        """Store a file, and return its address."""
        raise NotImplementedError(f"{type(self).__name__} has no save()")

    def save_file(
        self,
        file_path: str | Path,
        content_type: str,
        multipart: bool | None = None,
        multipart_threshold: int | None = None,
        multipart_chunk_size: int | None = None,
        multipart_max_concurrency: int | None = None,
        object_lifecycle_preference: Mapping[str, object] | None = None,
    ) -> tuple[str, FileData | None]:
        """Store a file from disk, and return its address. Its content is included if it was read completely."""
        path = Path(file_path)
        data = FileData(path.read_bytes(), content_type, path.name)
        url = self.save(
            data,
            multipart=multipart,
            multipart_threshold=multipart_threshold,
            multipart_chunk_size=multipart_chunk_size,
            multipart_max_concurrency=multipart_max_concurrency,
            object_lifecycle_preference=object_lifecycle_preference,
        )
        return url, data

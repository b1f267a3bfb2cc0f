"""Stores files on the platform, or in the address itself."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, cast

from fal.toolkit.file.types import FileData, FileRepository, Reservation
from fal.toolkit.file.uploading import HasHeaders, about_request, by_rest, reserve_by_rest
from fal.toolkit.http import Content

READ_WHOLE_BYTES = 100 * 1024 * 1024
"""Files up to this size stay in memory after they are stored, for `File.as_bytes`."""


class FalFileRepositoryBase(FileRepository):
    """Stores files on the platform over HTTPS. Each is in one piece whatever `multipart` says."""

    _storage: ClassVar[str] = "gcs"

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
            FileUploadException: the platform refused, or cannot be reached.
        """
        about = about_request(cast("HasHeaders | None", request), object_lifecycle_preference)
        return reserve_by_rest(file_name, content_type, {**about, **(extra_headers or {})}, self._storage)

    def save(
        self,
        data: FileData,
        multipart: bool | None = None,
        multipart_threshold: int | None = None,
        multipart_chunk_size: int | None = None,
        multipart_max_concurrency: int | None = None,
        object_lifecycle_preference: Mapping[str, object] | None = None,
        wait_for_completion: bool = False,
    ) -> str:
        """Store a file, and return its address once the platform has it.

        Raises:
            FileUploadException: the platform refused, or cannot be reached.
        """
        return self._store(data.data, data.file_name, data.content_type, object_lifecycle_preference)

    def save_file(
        self,
        file_path: str | Path,
        content_type: str,
        multipart: bool | None = None,
        multipart_threshold: int | None = None,
        multipart_chunk_size: int | None = None,
        multipart_max_concurrency: int | None = None,
        object_lifecycle_preference: Mapping[str, object] | None = None,
        wait_for_completion: bool = False,
    ) -> tuple[str, FileData | None]:
        """Store a file from disk. One above the threshold is read in chunks, and its content not returned.

        Raises:
            FileUploadException: the platform refused, or cannot be reached.
        """
        path = Path(file_path)
        in_chunks = path.stat().st_size > (multipart_threshold or READ_WHOLE_BYTES) if multipart is None else multipart
        if in_chunks:
            return self._store(path, path.name, content_type, object_lifecycle_preference), None
        data = FileData(path.read_bytes(), content_type, path.name)
        return self._store(data.data, path.name, content_type, object_lifecycle_preference), data

    def _store(self, content: Content, name: str, kind: str, lifecycle: Mapping[str, object] | None) -> str:
        return by_rest(content, name, kind, about_request(None, lifecycle), self._storage)


@dataclass
class FalFileRepository(FalFileRepositoryBase):
    """The platform's older storage, the fallback of the newer one."""


@dataclass
class FalFileRepositoryV3(FalFileRepositoryBase):
    """The platform's storage."""

    _storage: ClassVar[str] = "fal-cdn-v3"


FalFileRepositoryV2 = FalFileRepositoryV3
FalCDNFileRepository = FalFileRepositoryV3


@dataclass
class InMemoryRepository(FileRepository):
    """Puts the content into the address, as a data: URL."""

    def save(
        self,
        data: FileData,
        multipart: bool | None = None,
        multipart_threshold: int | None = None,
        multipart_chunk_size: int | None = None,
        multipart_max_concurrency: int | None = None,
        object_lifecycle_preference: Mapping[str, object] | None = None,
    ) -> str:
        """Return the content as a data: URL."""
        return f"data:{data.content_type};base64,{base64.b64encode(data.data).decode()}"

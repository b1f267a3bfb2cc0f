"""Stores files through the platform's socket in a runner."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import cast

from fal.toolkit.file.providers.fal import FalFileRepositoryBase
from fal.toolkit.file.types import Reservation
from fal.toolkit.file.uploading import HasHeaders, about_request, by_socket, reserve_by_socket
from fal.toolkit.http import Content


@dataclass
class LocalFileRepository(FalFileRepositoryBase):
    """The platform's storage through the runner's socket. A returned address means the file is stored."""

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
        return reserve_by_socket(file_name, content_type, {**about, **(extra_headers or {})})

    def save_stream(
        self,
        chunks: Iterable[bytes],
        file_name: str,
        content_type: str,
        object_lifecycle_preference: Mapping[str, object] | None = None,
        wait_for_completion: bool = False,
    ) -> str:
        """Store the chunks of an iterator, and return the file's address.

        Raises:
            FileUploadException: the platform refused, or cannot be reached.
        """
        return self._store(iter(chunks), file_name, content_type, object_lifecycle_preference)

    def _store(self, content: Content, name: str, kind: str, lifecycle: Mapping[str, object] | None) -> str:
        return by_socket(content, name, kind, about_request(None, lifecycle))

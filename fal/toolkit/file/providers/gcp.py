"""Stores files in a bucket of Google Cloud Storage."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from importlib import import_module

from fal.toolkit.file.providers.s3 import DEFAULT_URL_TIMEOUT, object_name
from fal.toolkit.file.types import FileData, FileRepository
from fal.toolkit.utils.retry import retry

__all__ = ["DEFAULT_URL_TIMEOUT", "GoogleStorageRepository"]


@dataclass
class GoogleStorageRepository(FileRepository):
    """A bucket of Google Cloud Storage. The app's requirements must include google-cloud-storage.

    Attributes:
        bucket_name: the bucket.
        url_expiration: minutes that a file's address is valid; None gives the public address.
        gcp_account_json: the service account's JSON; None takes GCLOUD_SA_JSON.
        folder: the folder.

    Raises:
        ImportError: google-cloud-storage is not installed.
        ValueError: there is no account.
    """

    bucket_name: str = "fal_file_storage"
    url_expiration: int | None = DEFAULT_URL_TIMEOUT
    gcp_account_json: str | None = field(default=None, repr=False)
    folder: str = ""

    def __post_init__(self) -> None:
        given = self.gcp_account_json or os.environ.get("GCLOUD_SA_JSON")
        if not given:
            raise ValueError(
                "GoogleStorageRepository needs an account: give gcp_account_json, or set GCLOUD_SA_JSON as a secret"
            )
        try:
            storage = import_module("google.cloud.storage")
        except ImportError:
            raise ImportError(
                "GoogleStorageRepository needs Google's library: add google-cloud-storage to the app's requirements"
            ) from None
        client = storage.Client.from_service_account_info(json.loads(given))
        self._client: object = client
        self._bucket: object = client.get_bucket(self.bucket_name)

    @property
    def storage_client(self) -> object:
        """The client of google-cloud-storage."""
        return self._client

    @property
    def bucket(self) -> object:
        """The bucket of google-cloud-storage."""
        return self._bucket

    @retry(max_retries=3, base_delay=1, backoff_type="exponential", jitter=True)
    def save(
        self,
        data: FileData,
        multipart: bool | None = None,
        multipart_threshold: int | None = None,
        multipart_chunk_size: int | None = None,
        multipart_max_concurrency: int | None = None,
        object_lifecycle_preference: Mapping[str, object] | None = None,
    ) -> str:
        """Store a file and return its address; `multipart` and lifecycle are ignored."""
        blob = self._bucket.blob(object_name(self.folder, data))  # type: ignore[attr-defined]
        blob.upload_from_string(data.data, content_type=data.content_type)
        if self.url_expiration is None:
            return str(blob.public_url)
        return str(
            blob.generate_signed_url(version="v4", expiration=timedelta(minutes=self.url_expiration), method="GET")
        )

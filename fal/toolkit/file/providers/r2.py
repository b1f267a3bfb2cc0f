"""Stores files in a bucket of Cloudflare R2."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module

from fal.toolkit.file.providers.s3 import DEFAULT_URL_TIMEOUT, object_name, put, s3_client
from fal.toolkit.file.types import FileData, FileRepository
from fal.toolkit.utils.retry import retry

__all__ = ["DEFAULT_URL_TIMEOUT", "R2Repository"]


@dataclass
class R2Repository(FileRepository):
    """A bucket of Cloudflare R2. The app's requirements must include boto3.

    Attributes:
        bucket_name: the bucket.
        url_expiration: seconds that a file's address is valid.
        r2_account_json: ACCOUNT_ID, ACCESS_KEY_ID and SECRET_ACCESS_KEY as JSON; None takes R2_CREDS_JSON.
        key: the folder.

    Raises:
        ImportError: boto3 is not installed.
        ValueError: there is no account, or it lacks one of the three.
    """

    bucket_name: str = "fal_file_storage"
    url_expiration: int = DEFAULT_URL_TIMEOUT
    r2_account_json: str | None = field(default=None, repr=False)
    key: str = ""

    def __post_init__(self) -> None:
        given = self.r2_account_json or os.environ.get("R2_CREDS_JSON")
        if not given:
            raise ValueError("R2Repository needs an account: give r2_account_json, or set R2_CREDS_JSON as a secret")
        account = json.loads(given)
        lacks = [name for name in ("ACCOUNT_ID", "ACCESS_KEY_ID", "SECRET_ACCESS_KEY") if not account.get(name)]
        if lacks:
            raise ValueError(f"the account of R2Repository lacks {', '.join(lacks)}")
        self._endpoint = f"https://{account['ACCOUNT_ID']}.r2.cloudflarestorage.com"
        self._key = (account["ACCESS_KEY_ID"], account["SECRET_ACCESS_KEY"])
        self._client = s3_client(*self._key, self._endpoint)

    @property
    def storage_client(self) -> object:
        """The resource of boto3."""
        key_id, secret = self._key
        resource: object = import_module("boto3").resource(
            "s3", endpoint_url=self._endpoint, aws_access_key_id=key_id, aws_secret_access_key=secret
        )
        return resource

    @property
    def bucket(self) -> object:
        """The bucket of boto3."""
        found: object = self.storage_client.Bucket(self.bucket_name)  # type: ignore[attr-defined]
        return found

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
        """Store a file, and return a temporary address; see `S3Repository.save`."""
        return put(self._client, self.bucket_name, object_name(self.key, data), data, self.url_expiration)

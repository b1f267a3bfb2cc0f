"""Stores files in a bucket of Amazon S3."""

from __future__ import annotations

import io
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module

from fal.toolkit.file.types import FileData, FileRepository
from fal.toolkit.utils.retry import retry

DEFAULT_URL_TIMEOUT = 15 * 60


@dataclass
class S3Repository(FileRepository):
    """A bucket of Amazon S3. The app's requirements must include boto3.

    Attributes:
        bucket_name: the bucket.
        url_expiration: seconds that a file's address is valid.
        aws_access_key_id, aws_secret_access_key: the key; None takes AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.

    Raises:
        ImportError: boto3 is not installed.
        ValueError: there is no key.
    """

    bucket_name: str = "fal_file_storage"
    url_expiration: int = DEFAULT_URL_TIMEOUT
    aws_access_key_id: str | None = field(default=None, repr=False)
    aws_secret_access_key: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        self.aws_access_key_id = self.aws_access_key_id or _variable("AWS_ACCESS_KEY_ID")
        self.aws_secret_access_key = self.aws_secret_access_key or _variable("AWS_SECRET_ACCESS_KEY")
        self._client = s3_client(self.aws_access_key_id, self.aws_secret_access_key)

    @property
    def storage_client(self) -> object:
        """The client of boto3."""
        return self._client

    @retry(max_retries=3, base_delay=1, backoff_type="exponential", jitter=True)
    def save(
        self,
        data: FileData,
        multipart: bool | None = None,
        multipart_threshold: int | None = None,
        multipart_chunk_size: int | None = None,
        multipart_max_concurrency: int | None = None,
        object_lifecycle_preference: Mapping[str, object] | None = None,
        key: str | None = None,
    ) -> str:
        """Store a file, and return a temporary address.

        Args:
            data: the file.
            multipart, multipart_threshold, multipart_chunk_size, multipart_max_concurrency: left to boto3.
            object_lifecycle_preference: ignored: the bucket has its own rules.
            key: the folder; None means the top.
        """
        return put(self._client, self.bucket_name, object_name(key, data), data, self.url_expiration)


def s3_client(key_id: str, secret: str, endpoint_url: str | None = None) -> object:
    """Return a client of boto3.

    Raises:
        ImportError: boto3 is not installed.
    """
    try:
        boto3, config = import_module("boto3"), import_module("botocore.client")
    except ImportError:
        raise ImportError("this repository needs boto3: add boto3 to the app's requirements") from None
    client: object = boto3.client(
        "s3",
        endpoint_url=endpoint_url,
        aws_access_key_id=key_id,
        aws_secret_access_key=secret,
        config=config.Config(signature_version="s3v4"),
    )
    return client


def put(client: object, bucket: str, name: str, data: FileData, seconds: int) -> str:
    """Store a file under a name. Return an address that is valid for `seconds`."""
    sent = {"ContentType": data.content_type}
    client.upload_fileobj(io.BytesIO(data.data), bucket, name, ExtraArgs=sent)  # type: ignore[attr-defined]
    place = {"Bucket": bucket, "Key": name}
    return str(
        client.generate_presigned_url(ClientMethod="get_object", Params=place, ExpiresIn=seconds)  # type: ignore[attr-defined]
    )


def object_name(folder: str | None, data: FileData) -> str:
    """Return a name that no other object has."""
    own = f"{secrets.token_hex(16)}_{data.file_name}"
    return f"{folder.rstrip('/')}/{own}" if folder else own


def _variable(name: str) -> str:
    value = os.environ.get(name)
    if not value:
        raise ValueError(f"S3Repository needs a key: give it, or set {name}, for instance as a secret of the app")
    return value

"""Addresses of files as field types of models. They are plain texts that can be downloaded."""

from __future__ import annotations

import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar, TypeAlias

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from fal.toolkit.image import read_image_from_url
from fal.toolkit.image.image import PillowImage
from fal.toolkit.pydantic import IS_PYDANTIC_V2
from fal.toolkit.utils.download_utils import download_file

__all__ = [
    "HTTP_URL_REGEX",
    "IS_PYDANTIC_V2",
    "MAX_DATA_URI_LENGTH",
    "MAX_HTTPS_URL_LENGTH",
    "DataUri",
    "DownloadFileMixin",
    "DownloadImageMixin",
    "FileInput",
    "HttpsUrl",
    "ImageDataUri",
    "ImageHttpsUrl",
    "ImageInput",
]

MAX_DATA_URI_LENGTH = 10 * 1024 * 1024
MAX_HTTPS_URL_LENGTH = 2048
HTTP_URL_REGEX = r"^https:\/\/(?:[a-zA-Z0-9-]+\.)+[a-zA-Z]{2,}(?::\d{1,5})?(?:\/[^\s]*)?$"


class DownloadFileMixin:
    """Adds the download to an address."""

    @contextmanager
    def as_temp_file(self) -> Generator[Path]:
        """Download the file for the duration of the block.

        Raises:
            DownloadError: it could not be downloaded.
        """
        with tempfile.TemporaryDirectory(prefix="fal-input-") as directory:
            yield download_file(str(self), directory)


class DownloadImageMixin:
    """Adds the decoded image to an address."""

    def to_pil(self) -> PillowImage:
        """Return the image, in RGB and upright; see `fal.toolkit.image.read_image_from_url`."""
        return read_image_from_url(str(self))


class _Address(DownloadFileMixin, str):
    """A text of a certain form."""

    _pattern: ClassVar[str]
    _longest: ClassVar[int]
    _format: ClassVar[str]

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: object, _handler: GetCoreSchemaHandler) -> CoreSchema:
        text = core_schema.str_schema(pattern=cls._pattern, max_length=cls._longest, strip_whitespace=True)
        return core_schema.no_info_after_validator_function(cls, text)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {**handler(schema), "format": cls._format}


class DataUri(_Address):
    """A data: address, which carries its content."""

    _pattern = "^data:"
    _longest = MAX_DATA_URI_LENGTH
    _format = "data-uri"


class HttpsUrl(_Address):
    """An address that begins with https://."""

    _pattern = HTTP_URL_REGEX
    _longest = MAX_HTTPS_URL_LENGTH
    _format = "https-url"


class ImageHttpsUrl(DownloadImageMixin, HttpsUrl):
    """The https:// address of an image."""


class ImageDataUri(DownloadImageMixin, DataUri):
    """An image as a data: address."""


FileInput: TypeAlias = HttpsUrl | DataUri
ImageInput: TypeAlias = ImageHttpsUrl | ImageDataUri

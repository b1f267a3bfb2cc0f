"""Images for endpoints' inputs and outputs."""

from __future__ import annotations

import functools
import io
from collections.abc import Iterable, Sequence
from importlib import import_module
from typing import Protocol

from fal.toolkit.image.image import (
    IMAGE_SIZE_PRESETS,
    MAX_IMAGE_DOWNLOAD_SIZE,
    Image,
    ImageField,
    ImageFormat,
    ImageSize,
    ImageSizeField,
    ImageSizeInput,
    ImageSizePreset,
    PillowImage,
    get_image_size,
)
from fal.toolkit.utils.download_utils import DownloadError, read_url

__all__ = [
    "IMAGE_SIZE_PRESETS",
    "MAX_IMAGE_DOWNLOAD_SIZE",
    "Image",
    "ImageField",
    "ImageFormat",
    "ImageSize",
    "ImageSizeField",
    "ImageSizeInput",
    "ImageSizePreset",
    "filter_by",
    "get_image_size",
    "preprocess_image",
    "read_image_from_url",
]


class Sized(Protocol):
    """The used part of a Pillow image."""

    @property
    def width(self) -> int:
        """Pixels."""
        ...

    @property
    def height(self) -> int:
        """Pixels."""
        ...


def filter_by(has_nsfw_concepts: Iterable[bool], images: Sequence[Sized]) -> list[object]:
    """Return the images. Each flagged one is replaced by a black image of the same size.

    Args:
        has_nsfw_concepts: whether each image is flagged, in the order of the images.
        images: Pillow images.
    """
    pillow = import_module("PIL.Image")
    flagged = zip(images, has_nsfw_concepts, strict=False)
    return [pillow.new("RGB", (image.width, image.height)) if hidden else image for image, hidden in flagged]


def preprocess_image(image_pil: object, convert_to_rgb: bool = True, fix_orientation: bool = True) -> PillowImage:
    """Return the first picture of a Pillow image. It is in RGB and turned upright by its EXIF data.

    Args:
        image_pil: the image; some files have several pictures.
        convert_to_rgb: whether to convert it.
        fix_orientation: whether to turn it.
    """
    first = next(iter(import_module("PIL.ImageSequence").Iterator(image_pil)))
    if fix_orientation:  # before the conversion, which drops the EXIF data of some formats
        first = import_module("PIL.ImageOps").exif_transpose(first)
    found: PillowImage = first.convert("RGB") if convert_to_rgb else first.copy()
    return found


@functools.lru_cache(maxsize=64)
def read_image_from_url(
    url: str, convert_to_rgb: bool = True, fix_orientation: bool = True, max_size: int = MAX_IMAGE_DOWNLOAD_SIZE
) -> PillowImage:
    """Download and decode an image; the last 64 are kept in memory.

    Args:
        url: http, https or data.
        convert_to_rgb, fix_orientation: as in `preprocess_image`.
        max_size: the most bytes.

    Raises:
        fastapi.HTTPException: 422 for the caller of an endpoint, if it is not an image or cannot be downloaded.
        ImportError: Pillow is not among the app's requirements.
    """
    from fastapi import HTTPException

    try:
        pillow = import_module("PIL.Image")
    except ImportError:
        raise ImportError("read_image_from_url needs Pillow: add pillow to the app's requirements") from None
    try:
        with pillow.open(io.BytesIO(read_url(url, most_bytes=max_size))) as opened:
            return preprocess_image(opened, convert_to_rgb, fix_orientation)
    except (DownloadError, OSError, ValueError) as error:
        raise HTTPException(422, f"Could not load image from url: {url[:200]}: {error}") from error

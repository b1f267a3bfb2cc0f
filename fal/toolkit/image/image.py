"""Images for endpoints' inputs and outputs."""

from __future__ import annotations

import io
from importlib import import_module
from typing import Literal, Protocol, Self, TypeAlias, cast

from pydantic import BaseModel, ConfigDict, Field

from fal.toolkit.file.file import DEFAULT_REPOSITORY, FALLBACK_REPOSITORY, File, Repositories, SaveOptions
from fal.toolkit.file.types import FileRepository, RepositoryId
from fal.toolkit.file.uploading import HasHeaders
from fal.toolkit.pydantic import ImageField, ImageSizeField
from fal.toolkit.utils.download_utils import read_url

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
    "PillowImage",
    "get_image_size",
]

ImageFormat = Literal["png", "jpeg", "jpg", "webp", "gif"]
ImageSizePreset = Literal["square_hd", "square", "portrait_4_3", "portrait_16_9", "landscape_4_3", "landscape_16_9"]
MAX_IMAGE_DOWNLOAD_SIZE = 50 * 1024 * 1024
_LONGEST_SIDE = 14142
# PNG: slightly larger files, several times as fast. JPEG: the usual quality.
_SAVING: dict[str, dict[str, int]] = {"png": {"compress_level": 1}, "jpeg": {"quality": 95}}


class PillowImage(Protocol):
    """The subset of `PIL.Image.Image` that is used here. Pillow is an app's requirement, not this project's."""

    width: int
    height: int
    format: str | None

    def save(self, fp: io.BytesIO, format: str, **params: int) -> None:  # noqa: A002 - Pillow's name
        ...

    def convert(self, mode: str) -> PillowImage: ...


class ImageSize(BaseModel):
    """Width and height in pixels."""

    width: int = Field(default=512, description="The width of the generated image.", gt=0, le=_LONGEST_SIDE)
    height: int = Field(default=512, description="The height of the generated image.", gt=0, le=_LONGEST_SIDE)


IMAGE_SIZE_PRESETS: dict[str, ImageSize] = {
    "square_hd": ImageSize(width=1024, height=1024),
    "square": ImageSize(width=512, height=512),
    "portrait_4_3": ImageSize(width=768, height=1024),
    "portrait_16_9": ImageSize(width=576, height=1024),
    "landscape_4_3": ImageSize(width=1024, height=768),
    "landscape_16_9": ImageSize(width=1024, height=576),
}
ImageSizeInput: TypeAlias = ImageSize | ImageSizePreset


def get_image_size(source: ImageSizeInput) -> ImageSize:
    """Return the size for an input: numbers or a preset's name.

    Raises:
        TypeError: it is neither.
    """
    if isinstance(source, ImageSize):
        return source
    preset = IMAGE_SIZE_PRESETS.get(str(source))  # anything else than text is not a preset
    if preset is None:
        raise TypeError(f"{source!r} is not an image size: give an ImageSize or one of {', '.join(IMAGE_SIZE_PRESETS)}")
    return preset.model_copy()


class Image(File):
    """An image file."""

    model_config = ConfigDict(json_schema_extra={"ui": {"field": "image"}})

    width: int | None = Field(default=None, description="The width of the image in pixels.", examples=[1024])
    height: int | None = Field(default=None, description="The height of the image in pixels.", examples=[1024])

    @classmethod
    def from_bytes(  # type: ignore[override]  # the published signature
        cls,
        data: bytes,
        format: ImageFormat,  # noqa: A002 - the published name
        size: ImageSize | None = None,
        file_name: str | None = None,
        repository: FileRepository | RepositoryId = DEFAULT_REPOSITORY,
        fallback_repository: Repositories = FALLBACK_REPOSITORY,
        request: HasHeaders | None = None,
        save_kwargs: SaveOptions | None = None,
        fallback_save_kwargs: SaveOptions | None = None,
    ) -> Self:
        """Store an encoded image.

        Args:
            data: the content.
            format: its encoding.
            size: the image's size, if known.
            file_name: None generates one.
            repository, fallback_repository, request, save_kwargs, fallback_save_kwargs: as in `File.from_bytes`.

        Raises:
            FileUploadException: it could not be stored.
        """
        kind = "image/jpeg" if format == "jpg" else f"image/{format}"
        image = super().from_bytes(
            data, kind, file_name, repository, fallback_repository, request, save_kwargs, fallback_save_kwargs
        )
        image.width, image.height = (size.width, size.height) if size else (None, None)
        return image

    @classmethod
    def from_pil(
        cls,
        pil_image: PillowImage,
        format: ImageFormat | None = None,  # noqa: A002 - the published name
        file_name: str | None = None,
        repository: FileRepository | RepositoryId = DEFAULT_REPOSITORY,
        fallback_repository: Repositories = FALLBACK_REPOSITORY,
        request: HasHeaders | None = None,
        save_kwargs: SaveOptions | None = None,
        fallback_save_kwargs: SaveOptions | None = None,
    ) -> Self:
        """Encode and store a Pillow image.

        Args:
            pil_image: the image.
            format: None takes the format that the image was read from, else PNG.
            file_name: None generates one.
            repository, fallback_repository, request, save_kwargs, fallback_save_kwargs: as in `File.from_bytes`.

        Raises:
            FileUploadException: it could not be stored.
        """
        chosen = str(format or pil_image.format or "png").lower()
        chosen = "jpeg" if chosen == "jpg" else chosen
        with io.BytesIO() as file:
            pil_image.save(file, format=chosen, **_SAVING.get(chosen, {}))
            data = file.getvalue()
        size = ImageSize(width=pil_image.width, height=pil_image.height)
        return cls.from_bytes(
            data,
            cast("ImageFormat", chosen),
            size,
            file_name,
            repository,
            fallback_repository,
            request,
            save_kwargs,
            fallback_save_kwargs,
        )

    def to_pil(self, mode: str = "RGB") -> PillowImage:
        """Download and decode the image, turned upright by its EXIF data.

        Raises:
            ImportError: Pillow is not among the app's requirements.
            DownloadError: it could not be downloaded, or has more than 50 MiB.
        """
        try:
            pillow, operations = import_module("PIL.Image"), import_module("PIL.ImageOps")
        except ImportError:
            raise ImportError("Image.to_pil needs Pillow: add pillow to the app's requirements") from None
        with pillow.open(io.BytesIO(read_url(self.url, most_bytes=MAX_IMAGE_DOWNLOAD_SIZE))) as opened:
            return cast("PillowImage", operations.exif_transpose(opened).convert(mode))

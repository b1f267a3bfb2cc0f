"""Files that endpoints take and return, and downloads that are kept. Names load at first use.

This package travels with every deploy, as `fal.app` does. It imports only itself, the standard library and pydantic
(and Pillow, if an app uses it).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fal.toolkit.downloads import (
        FAL_MODEL_WEIGHTS_DIR,
        FAL_PERSISTENT_DIR,
        FAL_REPOSITORY_DIR,
        DownloadError,
        clone_repository,
        download_file,
        download_model_weights,
    )
    from fal.toolkit.exceptions import FalTookitException, FileUploadException, KVStoreException
    from fal.toolkit.file import Audio, CompressedFile, File, Video
    from fal.toolkit.image import Image, ImageSize, ImageSizeInput, get_image_size
    from fal.toolkit.kv import KVStore
    from fal.toolkit.pydantic import AudioField, FalBaseModel, Field, FileField, Hidden, ImageField, VideoField

__all__ = [
    "FAL_MODEL_WEIGHTS_DIR",
    "FAL_PERSISTENT_DIR",
    "FAL_REPOSITORY_DIR",
    "Audio",
    "AudioField",
    "CompressedFile",
    "DownloadError",
    "FalBaseModel",
    "FalTookitException",
    "Field",
    "File",
    "FileField",
    "FileUploadException",
    "Hidden",
    "Image",
    "ImageField",
    "ImageSize",
    "ImageSizeInput",
    "KVStore",
    "KVStoreException",
    "Video",
    "VideoField",
    "clone_repository",
    "download_file",
    "download_model_weights",
    "get_image_size",
]

_WHERE = {
    **dict.fromkeys(("Audio", "CompressedFile", "File", "Video"), "fal.toolkit.file"),
    **dict.fromkeys(("Image", "ImageSize", "ImageSizeInput", "get_image_size"), "fal.toolkit.image"),
    **dict.fromkeys(("FalTookitException", "FileUploadException", "KVStoreException"), "fal.toolkit.exceptions"),
    **dict.fromkeys(("AudioField", "FalBaseModel", "Field", "FileField"), "fal.toolkit.pydantic"),
    **dict.fromkeys(("Hidden", "ImageField", "VideoField"), "fal.toolkit.pydantic"),
    "KVStore": "fal.toolkit.kv",
}


def __getattr__(name: str) -> object:
    if name.startswith("__"):
        raise AttributeError(name)
    if name not in __all__:
        raise ImportError(
            f"fal.toolkit.{name} is not part of this package: it has {', '.join(__all__)}; return other data from "
            "endpoints directly, or as a fastapi Response"
        )
    from importlib import import_module

    return getattr(import_module(_WHERE.get(name, "fal.toolkit.downloads")), name)

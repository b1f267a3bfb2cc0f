"""Files for endpoints' inputs and outputs, and cached downloads. Names load at first use.

This package travels with every deploy, like `fal.app`. It imports only itself, the standard library and pydantic
(and Pillow, if an app uses it).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fal.toolkit.audio import (
        Audio,
    )
    from fal.toolkit.compilation import (
        get_gpu_type,
        load_inductor_cache,
        sync_inductor_cache,
        synchronized_inductor_cache,
    )
    from fal.toolkit.constraints import (
        ImageSizeConstraints,
        ImageValidationConfig,
        ImageValidationOptions,
        VideoNormalizationConfig,
        VideoValidationConfig,
        VideoValidationOptions,
        to_xfal,
    )
    from fal.toolkit.exceptions import (
        FalTookitException,
        FileUploadException,
        KVStoreException,
    )
    from fal.toolkit.file import (
        CompressedFile,
        File,
    )
    from fal.toolkit.image import (
        Image,
        ImageSize,
        ImageSizeInput,
        get_image_size,
    )
    from fal.toolkit.kv import (
        KVStore,
    )
    from fal.toolkit.pydantic import (
        AudioField,
        FalBaseModel,
        Field,
        FileField,
        Hidden,
        ImageField,
        ImageSizeField,
        VideoField,
    )
    from fal.toolkit.utils import (
        FAL_MODEL_WEIGHTS_DIR,
        FAL_PERSISTENT_DIR,
        FAL_REPOSITORY_DIR,
        DownloadError,
        clone_repository,
        download_file,
        download_model_weights,
    )
    from fal.toolkit.video import (
        Video,
    )

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
    "ImageSizeConstraints",
    "ImageSizeField",
    "ImageSizeInput",
    "ImageValidationConfig",
    "ImageValidationOptions",
    "KVStore",
    "KVStoreException",
    "Video",
    "VideoField",
    "VideoNormalizationConfig",
    "VideoValidationConfig",
    "VideoValidationOptions",
    "clone_repository",
    "download_file",
    "download_model_weights",
    "get_gpu_type",
    "get_image_size",
    "load_inductor_cache",
    "sync_inductor_cache",
    "synchronized_inductor_cache",
    "to_xfal",
]

_MODULES = {
    "fal.toolkit.audio": [
        "Audio",
    ],
    "fal.toolkit.compilation": [
        "get_gpu_type",
        "load_inductor_cache",
        "sync_inductor_cache",
        "synchronized_inductor_cache",
    ],
    "fal.toolkit.constraints": [
        "ImageSizeConstraints",
        "ImageValidationConfig",
        "ImageValidationOptions",
        "VideoNormalizationConfig",
        "VideoValidationConfig",
        "VideoValidationOptions",
        "to_xfal",
    ],
    "fal.toolkit.exceptions": [
        "FalTookitException",
        "FileUploadException",
        "KVStoreException",
    ],
    "fal.toolkit.file": [
        "CompressedFile",
        "File",
    ],
    "fal.toolkit.image": [
        "Image",
        "ImageSize",
        "ImageSizeInput",
        "get_image_size",
    ],
    "fal.toolkit.kv": [
        "KVStore",
    ],
    "fal.toolkit.pydantic": [
        "AudioField",
        "FalBaseModel",
        "Field",
        "FileField",
        "Hidden",
        "ImageField",
        "ImageSizeField",
        "VideoField",
    ],
    "fal.toolkit.utils": [
        "FAL_MODEL_WEIGHTS_DIR",
        "FAL_PERSISTENT_DIR",
        "FAL_REPOSITORY_DIR",
        "DownloadError",
        "clone_repository",
        "download_file",
        "download_model_weights",
    ],
    "fal.toolkit.video": [
        "Video",
    ],
}
_WHERE = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> object:
    if name.startswith("__"):
        raise AttributeError(name)
    from importlib import import_module
    from importlib.util import find_spec

    if name in _WHERE:
        return getattr(import_module(_WHERE[name]), name)
    if find_spec(f"fal.toolkit.{name}") is not None:  # `from fal.toolkit import image`
        return import_module(f"fal.toolkit.{name}")
    raise ImportError(
        f"fal.toolkit.{name} is not part of this package: it has {', '.join(__all__)}; return other data from "
        "endpoints directly, or as a fastapi Response"
    )

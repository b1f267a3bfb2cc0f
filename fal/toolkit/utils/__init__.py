"""Cached downloads, and preparation of a runner. Names load at first use."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fal.toolkit.utils.download_utils import (
        FAL_MODEL_WEIGHTS_DIR,
        FAL_PERSISTENT_DIR,
        FAL_REPOSITORY_DIR,
        DownloadError,
        clone_repository,
        download_file,
        download_model_weights,
    )
    from fal.toolkit.utils.setup_utils import patch_onnx_runtime

__all__ = [
    "FAL_MODEL_WEIGHTS_DIR",
    "FAL_PERSISTENT_DIR",
    "FAL_REPOSITORY_DIR",
    "DownloadError",
    "clone_repository",
    "download_file",
    "download_model_weights",
    "patch_onnx_runtime",
]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'fal.toolkit.utils' has no attribute {name!r}")
    from importlib import import_module

    where = "setup_utils" if name == "patch_onnx_runtime" else "download_utils"
    return getattr(import_module(f"fal.toolkit.utils.{where}"), name)

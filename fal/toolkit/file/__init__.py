"""Files for endpoints' inputs and outputs, and the repositories that store them."""

from __future__ import annotations

from fal.toolkit.file.file import (
    BUILT_IN_REPOSITORIES,
    DEFAULT_REPOSITORY,
    FALLBACK_REPOSITORY,
    IS_PYDANTIC_V2,
    OBJECT_LIFECYCLE_PREFERENCE_KEY,
    CompressedFile,
    File,
    FileField,
    FileRepositoryFactory,
    PendingFile,
    get_builtin_repository,
    request_lifecycle_preference,
)

__all__ = [
    "BUILT_IN_REPOSITORIES",
    "DEFAULT_REPOSITORY",
    "FALLBACK_REPOSITORY",
    "IS_PYDANTIC_V2",
    "OBJECT_LIFECYCLE_PREFERENCE_KEY",
    "CompressedFile",
    "File",
    "FileField",
    "FileRepositoryFactory",
    "PendingFile",
    "get_builtin_repository",
    "request_lifecycle_preference",
]

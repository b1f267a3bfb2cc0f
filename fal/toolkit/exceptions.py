"""The toolkit's errors."""

from __future__ import annotations


class FalTookitException(Exception):  # the published name, as it is spelt there
    """The base of the toolkit's errors."""


class FileUploadException(FalTookitException):
    """A file could not be stored; the message says which and why."""


class FileUploadFallbackException(FileUploadException):
    """A file could be stored neither in its repository nor in those to fall back to; the message has each reason."""


class KVStoreException(FalTookitException):
    """A key or its value could not be read or written."""

"""The toolkit's errors."""

from __future__ import annotations


class FalTookitException(Exception):  # the published name, with its spelling
    """The base of the toolkit's errors."""


class FileUploadException(FalTookitException):
    """A file could not be stored; the message says which and why."""


class FileUploadFallbackException(FileUploadException):
    """No repository could store a file, not even the fallbacks. The message has each reason."""


class KVStoreException(FalTookitException):
    """A key or its value could not be read or written."""

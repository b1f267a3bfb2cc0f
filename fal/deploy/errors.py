"""The errors of deploys and runs."""

from __future__ import annotations

from fal.exceptions import FalSerializationError, InternalFalServerlessError, UserFunctionException
from fal_grpc.errors import FalError


class DeployError(FalError):
    """A deploy or a run failed; the message says why."""


class AppNotFoundError(DeployError):
    """The file, app, function or entry of pyproject.toml does not exist."""


class NoAppFileError(AppNotFoundError, FileNotFoundError):
    """The app's file does not exist."""


class AppFileError(DeployError):
    """The app's file raised an exception, or its description is invalid."""


class ProjectFileError(DeployError):
    """[tool.fal] in pyproject.toml is invalid."""


class SerializationError(DeployError, FalSerializationError):
    """The app cannot be sent. A part of it cannot be pickled."""


class UploadError(DeployError):
    """A file of the app could not be sent."""


class BuildFailedError(DeployError, InternalFalServerlessError):
    """The environment could not be built; the build's log says why."""


class UserFunctionError(DeployError, UserFunctionException):
    """The function raised an exception in its runner.

    Attributes:
        exception_type_name: the class of the exception; None if it is unknown.
        exception_message: its text; None if it was not sent.
        traceback: as text; None if it was not sent.
    """

    def __init__(
        self,
        message: str,
        *,
        exception_type_name: str | None = None,
        exception_message: str | None = None,
        traceback: str | None = None,
    ) -> None:
        super().__init__(message)
        self.exception_type_name = exception_type_name
        self.exception_message = exception_message
        self.traceback = traceback


class MissingExtraError(DeployError, ImportError):
    """A package of the extra `app` is not installed."""

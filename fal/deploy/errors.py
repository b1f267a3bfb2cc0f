"""What goes wrong on the way from an app's file to a deploy."""

from __future__ import annotations

from fal.exceptions import FalSerializationError, InternalFalServerlessError, UserFunctionException
from fal_grpc.errors import FalError


class DeployError(FalError):
    """A deploy or a run could not be made, or the controller ended it; the message says why."""


class AppNotFoundError(DeployError):
    """There is no such file, app, function or entry of pyproject.toml."""


class AppFileError(DeployError):
    """The app's file raised an exception when it was loaded, or what it describes is not acceptable."""


class ProjectFileError(DeployError):
    """pyproject.toml has something that is not acceptable in [tool.fal]."""


class SerializationError(DeployError, FalSerializationError):
    """The app cannot be sent, because something in it cannot be pickled."""


class UploadError(DeployError):
    """A file of the app could not be sent."""


class BuildFailedError(DeployError, InternalFalServerlessError):
    """The environment could not be built; the build's log says why."""


class UserFunctionError(DeployError, UserFunctionException):
    """The function that was run raised an exception there.

    Attributes:
        exception_type_name: the class of that exception; None if it was not said.
        traceback: its traceback as text; None if it was not sent.
    """

    def __init__(self, message: str, *, exception_type_name: str | None = None, traceback: str | None = None) -> None:
        super().__init__(message)
        self.exception_type_name = exception_type_name
        self.traceback = traceback


class MissingExtraError(DeployError, ImportError):
    """A package of the extra `app` is not installed."""

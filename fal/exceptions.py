"""The errors that users catch, under the published names."""

from __future__ import annotations

from contextlib import ContextDecorator
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from fal_grpc.errors import (
    AbortedError,
    AlreadyExistsError,
    ArgumentError,
    CallCancelledError,
    CallError,
    ClientClosedError,
    ConfigError,
    DataLossError,
    DeadlineExceededError,
    ExecLinkError,
    FailedPreconditionError,
    FalError,
    FieldViolation,
    InsecureChannelError,
    InternalError,
    InvalidArgumentError,
    KeyRejectedError,
    MissingCredentialsError,
    NotFoundError,
    OutOfRangeError,
    PermissionDeniedError,
    ResourceExhaustedError,
    UnauthenticatedError,
    UnavailableError,
    UnimplementedError,
    UnknownError,
    UnreachableError,
)

FalServerlessException = FalError
FalServerlessError = CallError
UnauthenticatedException = UnauthenticatedError


class InternalFalServerlessError(FalServerlessException):
    """The platform failed to run a request that it had accepted."""


class FalSerializationError(FalServerlessException):
    """Code or a value could not be serialized or deserialized."""


class FalMissingDependencyError(FalSerializationError):
    """A package is missing on the deserializing side."""


class UserFunctionException(FalServerlessException):
    """The user's function raised; the cause is its exception."""


@dataclass(eq=False)
class AppException(FalServerlessException):
    """Answers a request with an error.

    Attributes:
        message: what the caller reads.
        status_code: the HTTP status of the answer.
    """

    message: str
    status_code: int

    def __str__(self) -> str:
        return self.message


@dataclass(eq=False)
class GPUException(AppException):
    """The GPU failed. The response is 503, so that the platform replaces the runner."""

    message: str = "GPU error"
    status_code: int = 503


@dataclass(eq=False)
class GPUOutOfMemoryException(GPUException):
    """The GPU is out of memory."""


@dataclass(eq=False)
class CUDAOutOfMemoryException(GPUOutOfMemoryException):
    """CUDA reports that the GPU is out of memory."""

    message: str = "CUDA error: out of memory"


class catch_gpu_exceptions(ContextDecorator):  # noqa: N801 - the published name
    """Turn errors of a broken GPU into a `GPUException`. The response is then 503.

    Use it as a context manager or a decorator:

        with catch_gpu_exceptions():
            draw()

    Raises:
        CUDAOutOfMemoryException: the GPU is out of memory.
        GPUException: the GPU failed in another way.
    """

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        if not isinstance(exc_val, Exception) or isinstance(exc_val, GPUException):
            return
        from fal.app.gpu import gpu_fault

        fault = gpu_fault(exc_val)
        if fault is not None:
            raise fault from exc_val


@dataclass(eq=False)
class FieldException(FalServerlessException):
    """Answers a request with an error about one of its fields.

    Attributes:
        field: the field.
        message: what is wrong with the field.
        status_code: the HTTP status of the response.
        type: the kind of error, in pydantic's terms.
        billable_units: units to charge for the response.
    """

    field: str
    message: str
    status_code: int = 422
    type: str = "value_error"
    billable_units: int | float | str | None = 0

    def to_pydantic_format(self) -> dict[str, list[dict[str, object]]]:
        """Return the response's body in the form of a validation error."""
        return {"detail": [{"loc": ["body", self.field], "msg": self.message, "type": self.type}]}


@dataclass(eq=False)
class RequestCancelledException(FalServerlessException):
    """The caller disconnected."""

    message: str = "The caller cancelled the request."


@dataclass(eq=False)
class FileTooLargeError(FalServerlessException):
    """A file exceeds the size limit for uploads."""

    message: str = "The file is too large."


@dataclass(eq=False)
class AppFileUploadException(FalServerlessException):
    """A file of an app could not be uploaded.

    Attributes:
        relative_path: the file, relative to the app's directory.
    """

    message: str
    relative_path: str


__all__ = [
    "AbortedError",
    "AlreadyExistsError",
    "AppException",
    "AppFileUploadException",
    "ArgumentError",
    "CUDAOutOfMemoryException",
    "CallCancelledError",
    "CallError",
    "ClientClosedError",
    "ConfigError",
    "DataLossError",
    "DeadlineExceededError",
    "ExecLinkError",
    "FailedPreconditionError",
    "FalError",
    "FalMissingDependencyError",
    "FalSerializationError",
    "FalServerlessError",
    "FalServerlessException",
    "FieldException",
    "FieldViolation",
    "FileTooLargeError",
    "GPUException",
    "GPUOutOfMemoryException",
    "InsecureChannelError",
    "InternalError",
    "InternalFalServerlessError",
    "InvalidArgumentError",
    "KeyRejectedError",
    "MissingCredentialsError",
    "NotFoundError",
    "OutOfRangeError",
    "PermissionDeniedError",
    "RequestCancelledException",
    "ResourceExhaustedError",
    "UnauthenticatedError",
    "UnauthenticatedException",
    "UnavailableError",
    "UnimplementedError",
    "UnknownError",
    "UnreachableError",
    "UserFunctionException",
    "catch_gpu_exceptions",
]

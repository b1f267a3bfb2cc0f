"""Exceptions that an app raises to choose its answer, and those that its answer is chosen for."""

from __future__ import annotations

__all__ = [
    "AppException",
    "CUDAOutOfMemoryException",
    "FieldException",
    "GPUException",
    "GPUOutOfMemoryException",
    "RequestCancelledException",
]


class AppException(Exception):
    """Answer with a status code and a message of the app's choice.

    Args:
        message: what the caller reads, as `detail`.
        status_code: the HTTP status.
    """

    def __init__(self, message: str, status_code: int) -> None:
        super().__init__(message, status_code)
        self.message = message
        self.status_code = status_code

    def __str__(self) -> str:
        return self.message


class FieldException(Exception):
    """Answer that a field of the body is wrong, in the form of a failed validation.

    Args:
        field: the field's name.
        message: what is wrong with it.
        status_code: the HTTP status.
        type: a word for the kind of error.
        billable_units: units to bill for the request all the same; 0 or None bills none.
    """

    def __init__(
        self,
        field: str,
        message: str,
        status_code: int = 422,
        type: str = "value_error",  # noqa: A002 - the published name
        billable_units: float | str | None = 0,
    ) -> None:
        super().__init__(field, message, status_code, type, billable_units)
        self.field = field
        self.message = message
        self.status_code = status_code
        self.type = type
        self.billable_units = billable_units

    def __str__(self) -> str:
        return f"{self.field}: {self.message}"

    def to_pydantic_format(self) -> dict[str, list[dict[str, object]]]:
        """The body of the answer."""
        return {"detail": [{"loc": ["body", self.field], "msg": self.message, "type": self.type}]}


class RequestCancelledException(Exception):
    """Answer 499: the caller gave up, and the app noticed."""

    def __init__(self, message: str = "Request cancelled by the client.") -> None:
        super().__init__(message)
        self.message = message


class GPUException(AppException):
    """Answer 503: the GPU does not work, so the platform is to replace the runner."""

    def __init__(self, message: str = "GPU error", status_code: int = 503) -> None:
        super().__init__(message, status_code)


class GPUOutOfMemoryException(GPUException):
    """The GPU has no memory left."""


class CUDAOutOfMemoryException(GPUOutOfMemoryException):
    """The GPU has no memory left, says CUDA."""

    def __init__(self, message: str = "CUDA error: out of memory", status_code: int = 503) -> None:
        super().__init__(message, status_code)


_GPU_WORDS = ("cuda", "cudnn", "nvml", "nccl", "cublas", "cufft", "cusolver", "cusparse", "triton")
_MEMORY_PHRASES = (
    "NVML_SUCCESS == r INTERNAL ASSERT FAILED",
    "CUDNN_STATUS_INTERNAL_ERROR",
    "CUDNN_STATUS_NOT_SUPPORTED.",
)


def gpu_fault(error: BaseException) -> GPUException | None:
    """The GPU fault that an app's exception stands for, told by its words; None for any other exception."""
    if isinstance(error, GPUException):
        return error
    text = str(error)
    if isinstance(error, RuntimeError):
        exhausted = "CUDA" in text and "out of memory" in text
        if exhausted or any(phrase in text for phrase in _MEMORY_PHRASES):
            return CUDAOutOfMemoryException()
    return GPUException() if any(word in text.lower() for word in _GPU_WORDS) else None

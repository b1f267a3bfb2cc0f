"""GPU faults: the exceptions that mean "this runner's GPU does not work", so that the platform replaces the runner."""

from __future__ import annotations

from dataclasses import dataclass

from fal.exceptions import AppException

_GPU_WORDS = ("cuda", "cudnn", "nvml", "nccl", "cublas", "cufft", "cusolver", "cusparse", "triton")
_MEMORY_PHRASES = (
    "NVML_SUCCESS == r INTERNAL ASSERT FAILED",
    "CUDNN_STATUS_INTERNAL_ERROR",
    "CUDNN_STATUS_NOT_SUPPORTED.",
)


@dataclass
class GPUException(AppException):
    """Answer 503: the GPU does not work."""

    message: str = "GPU error"
    status_code: int = 503


@dataclass
class GPUOutOfMemoryException(GPUException):
    """The GPU has no memory left."""


@dataclass
class CUDAOutOfMemoryException(GPUOutOfMemoryException):
    """The GPU has no memory left, says CUDA."""

    message: str = "CUDA error: out of memory"


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

"""Recognizes exceptions of a broken GPU. The platform then replaces the runner."""

from __future__ import annotations

from fal.exceptions import CUDAOutOfMemoryException, GPUException

_GPU_WORDS = ("cuda", "cudnn", "nvml", "nccl", "cublas", "cufft", "cusolver", "cusparse", "triton")
_MEMORY_PHRASES = (
    "NVML_SUCCESS == r INTERNAL ASSERT FAILED",
    "CUDNN_STATUS_INTERNAL_ERROR",
    "CUDNN_STATUS_NOT_SUPPORTED.",
)


def gpu_fault(error: BaseException) -> GPUException | None:
    """Return the GPU fault that an exception's text describes, or None."""
    if isinstance(error, GPUException):
        return error
    text = str(error)
    if isinstance(error, RuntimeError):
        exhausted = "CUDA" in text and "out of memory" in text
        if exhausted or any(phrase in text for phrase in _MEMORY_PHRASES):
            return CUDAOutOfMemoryException()
    return GPUException() if any(word in text.lower() for word in _GPU_WORDS) else None

"""Prepares libraries for a runner."""

from __future__ import annotations

import os
from importlib import import_module


def patch_onnx_runtime(
    inter_op_num_threads: int = 16, intra_op_num_threads: int = 16, omp_num_threads: int = 16
) -> None:
    """Limit ONNX Runtime to these numbers of threads. By default it takes one for each core of the machine.

    Call it before anything else imports onnxruntime. It changes the options of sessions that specify none.

    Args:
        inter_op_num_threads: threads that run operators side by side.
        intra_op_num_threads: threads within one operator.
        omp_num_threads: OMP_NUM_THREADS.

    Raises:
        ImportError: onnxruntime is not among the app's requirements.
    """
    os.environ["OMP_NUM_THREADS"] = str(omp_num_threads)
    try:
        state = import_module("onnxruntime.capi._pybind_state")
    except ImportError:
        raise ImportError("patch_onnx_runtime needs ONNX Runtime: add onnxruntime to the app's requirements") from None
    options = state.get_default_session_options()

    def limited() -> object:
        options.inter_op_num_threads = inter_op_num_threads
        options.intra_op_num_threads = intra_op_num_threads
        return options

    setattr(state, "get_default_session_options", limited)  # noqa: B010 - of a module that is not here

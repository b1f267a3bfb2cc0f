"""Opens NVIDIA's management library, which reports this machine's GPUs and their users."""

from __future__ import annotations

import ctypes
import importlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, cast

LIBRARY_VARIABLE = "FAL_NVML_LIBRARY"
"""Names a replacement for libnvidia-ml.so.1 with the same symbols, for tests."""
_CONTROL = Path("/dev/nvidiactl")


class NvmlUnavailable(Exception):
    """A driver that cannot be asked. The text says why."""


class Nvml(Protocol):
    """The used part of the module `pynvml`."""

    nvmlLib: object  # noqa: N815

    @property
    def NVMLError(self) -> type[Exception]: ...  # noqa: N802
    @property
    def NVML_DEVICE_MIG_ENABLE(self) -> int: ...  # noqa: N802
    def nvmlInit(self) -> object: ...  # noqa: N802
    def nvmlDeviceGetCount(self) -> int: ...  # noqa: N802
    def nvmlDeviceGetHandleByIndex(self, index: int) -> object: ...  # noqa: N802
    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> object: ...  # noqa: N802
    def nvmlDeviceGetName(self, handle: Any) -> str | bytes: ...  # noqa: ANN401, N802
    def nvmlDeviceGetUUID(self, handle: Any) -> str | bytes: ...  # noqa: ANN401, N802
    def nvmlDeviceGetMinorNumber(self, handle: Any) -> int: ...  # noqa: ANN401, N802
    def nvmlDeviceGetMemoryInfo(self, handle: Any) -> Any: ...  # noqa: ANN401, N802
    def nvmlDeviceGetMigMode(self, handle: Any) -> Sequence[int]: ...  # noqa: ANN401, N802
    def nvmlDeviceGetMaxMigDeviceCount(self, handle: Any) -> int: ...  # noqa: ANN401, N802
    def nvmlDeviceGetMigDeviceHandleByIndex(self, device: Any, index: int) -> object: ...  # noqa: ANN401, N802
    def nvmlDeviceGetGpuInstanceId(self, device: Any) -> int: ...  # noqa: ANN401, N802
    def nvmlDeviceGetComputeInstanceId(self, device: Any) -> int: ...  # noqa: ANN401, N802
    def nvmlDeviceGetComputeRunningProcesses(self, handle: Any) -> Sequence[Any]: ...  # noqa: ANN401, N802
    def nvmlDeviceGetProcessUtilization(self, handle: Any, since: int) -> Sequence[Any]: ...  # noqa: ANN401, N802


def open_nvml() -> Nvml | None:
    """Load and initialize the library. None on a machine without an NVIDIA driver.

    Raises:
        NvmlUnavailable: there is a driver, but the library cannot be used.
    """
    library = os.environ.get(LIBRARY_VARIABLE)
    if not library and not _CONTROL.exists():
        return None
    try:
        nvml = cast("Nvml", importlib.import_module("pynvml"))  # the module has no type hints
    except ImportError as error:
        raise NvmlUnavailable("the package nvidia-ml-py is not installed") from error
    try:
        if library:
            nvml.nvmlLib = ctypes.CDLL(library)  # pynvml loads its own only if none is loaded yet
        nvml.nvmlInit()
    except (OSError, nvml.NVMLError) as error:
        raise NvmlUnavailable(str(error)) from error
    return nvml

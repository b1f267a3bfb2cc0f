"""Fake GPUs: a library with NVML's symbols, and a fake `pynvml`. The latter is for machines without a compiler."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

_SOURCE = Path(__file__).with_name("nvml.c")


def built_library(directory: Path, settings: str = "") -> Path | None:
    """Build the library with the system's C compiler, if any. Its environment variables are in nvml.c.

    Args:
        settings: for processes without the tests' environment, as `NAME=VALUE NAME=VALUE`.
    """
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        return None
    library = directory / "libfake-nvml.so"
    defined = f'-DSETTINGS="{settings}"'
    subprocess.run([compiler, defined, "-shared", "-fPIC", "-o", str(library), str(_SOURCE)], check=True)
    return library


class NvmlError(Exception):
    """A call that the driver refuses."""


class FakeNvml:
    """The library's GPUs as an object in place of the module.

    Args:
        model: the model of all GPUs.
        slices: how many slices each GPU is cut into; None for one that is whole.
        lost: the GPUs that do not answer.
        users: the processes that use each GPU.
    """

    NVMLError: type[Exception] = NvmlError
    NVML_DEVICE_MIG_ENABLE = 1

    def __init__(
        self,
        slices: Sequence[int | None],
        model: str = "NVIDIA H100 80GB HBM3",
        lost: Sequence[int] = (),
        users: Mapping[int, Sequence[int]] | None = None,
    ) -> None:
        self.nvmlLib: object = None
        self._slices = slices
        self._model = model
        self._lost = lost
        self._users = users or {}

    def nvmlInit(self) -> None:  # noqa: N802
        """Do nothing."""

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return len(self._slices)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Any:  # noqa: N802
        if index in self._lost:
            raise NvmlError("GPU is lost")
        return index, None

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> Any:  # noqa: N802
        handles = [(index, part) for index in range(len(self._slices)) for part in (None, *range(7))]
        return next(handle for handle in handles if self.nvmlDeviceGetUUID(handle) == uuid)

    def nvmlDeviceGetName(self, handle: Any) -> bytes:  # noqa: N802
        return (self._model + ("" if handle[1] is None else " MIG 1g.10gb")).encode()

    def nvmlDeviceGetUUID(self, handle: Any) -> str:  # noqa: N802
        index, part = handle
        if part is None:
            return f"GPU-00000000-0000-0000-0000-{index:012d}"
        return f"MIG-00000000-0000-0000-{part:04d}-{index:012d}"

    def nvmlDeviceGetMinorNumber(self, handle: Any) -> int:  # noqa: N802
        return int(handle[0])

    def nvmlDeviceGetMemoryInfo(self, handle: Any) -> Any:  # noqa: N802
        return SimpleNamespace(total=(80 if handle[1] is None else 10) << 30)

    def nvmlDeviceGetMigMode(self, handle: Any) -> Sequence[int]:  # noqa: N802
        if "H100" not in self._model:
            raise NvmlError("Not Supported")
        cut = int(self._slices[handle[0]] is not None)
        return cut, cut

    def nvmlDeviceGetMaxMigDeviceCount(self, handle: Any) -> int:  # noqa: N802
        return 7

    def nvmlDeviceGetMigDeviceHandleByIndex(self, device: Any, index: int) -> Any:  # noqa: N802
        if index >= (self._slices[device[0]] or 0):
            raise NvmlError("Not Found")
        return device[0], index

    def nvmlDeviceGetGpuInstanceId(self, device: Any) -> int:  # noqa: N802
        return int(device[1]) + 1

    def nvmlDeviceGetComputeInstanceId(self, device: Any) -> int:  # noqa: N802
        return 0

    def nvmlDeviceGetComputeRunningProcesses(self, handle: Any) -> Sequence[Any]:  # noqa: N802
        return [SimpleNamespace(pid=pid, usedGpuMemory=1 << 20) for pid in self._users.get(handle[0], ())]

    def nvmlDeviceGetProcessUtilization(self, handle: Any, since: int) -> Sequence[Any]:  # noqa: N802
        raise NvmlError("Not Supported")


def environment_of(library: Path, gpus: int, **more: str) -> Mapping[str, str]:
    """Return the variables by which a controller finds the library's GPUs."""
    return {"FAL_NVML_LIBRARY": str(library), "FAKE_NVML_GPUS": str(gpus), **more}

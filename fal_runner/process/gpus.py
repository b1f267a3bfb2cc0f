"""Measures what processes use of the machine's NVIDIA GPUs."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from fal_runner.process.nvml import Nvml, NvmlUnavailable, open_nvml


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuUsage:
    """What some processes use together.

    Attributes:
        cores: GPUs, as an average since the last measurement; None if the driver cannot tell processes apart.
    """

    memory_bytes: int
    cores: float | None


class GpuMeter:
    """Asks the driver about processes.

    Args:
        nvml: the library, initialised.
    """

    def __init__(self, nvml: Nvml) -> None:
        self._nvml = nvml
        self._devices = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
        self._seen = [0] * len(self._devices)

    @classmethod
    def open(cls) -> GpuMeter | None:
        """Return a meter; None if the machine has no NVIDIA driver, or it cannot be asked."""
        try:
            nvml = open_nvml()
        except NvmlUnavailable:
            return None
        if nvml is None:
            return None
        try:
            return cls(nvml)
        except nvml.NVMLError:
            return None

    def measure(self, pids: Collection[int]) -> GpuUsage | None:
        """Measure these processes; None if the driver does not answer."""
        memory, cores = 0, 0.0
        known = False
        try:
            for number, device in enumerate(self._devices):
                running = self._nvml.nvmlDeviceGetComputeRunningProcesses(device)
                memory += sum(process.usedGpuMemory or 0 for process in running if process.pid in pids)
                busy = self._busy(number, device, pids)
                known = known or busy is not None
                cores += busy or 0.0
        except self._nvml.NVMLError:
            return None
        return GpuUsage(memory_bytes=memory, cores=cores if known else None)

    def _busy(self, number: int, device: object, pids: Collection[int]) -> float | None:
        """Return how busy these processes kept a device, from 0 to 1; None if the driver cannot say."""
        try:
            samples = self._nvml.nvmlDeviceGetProcessUtilization(device, self._seen[number])
        except self._nvml.NVMLError as error:
            # With nothing to report since then, the driver says that it found nothing.
            return 0.0 if type(error).__name__ == "NVMLError_NotFound" else None
        self._seen[number] = max([self._seen[number], *(sample.timeStamp for sample in samples)])
        by_pid: dict[int, list[int]] = {}
        for sample in samples:
            if sample.pid in pids:
                by_pid.setdefault(sample.pid, []).append(sample.smUtil)
        return min(1.0, sum(sum(used) / len(used) for used in by_pid.values()) / 100)

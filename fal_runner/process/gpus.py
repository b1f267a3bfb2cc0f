"""Reports which processes use the machine's NVIDIA GPUs, and how much."""

from __future__ import annotations

import pwd
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from fal_runner.process.nvml import Nvml, NvmlUnavailable, open_nvml


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuUsage:
    """The total GPU usage of some processes.

    Attributes:
        cores: GPUs, averaged since the last measurement; None if the driver cannot distinguish processes.
    """

    memory_bytes: int
    cores: float | None


def foreign_users(gpus: Sequence[str], own: Collection[int], nvml: Nvml | None = None) -> list[str]:
    """Return, for people, which other processes use GPUs. The list is empty if the driver cannot be asked.

    Args:
        gpus: their UUIDs.
        own: the owner's processes.
        nvml: the library, initialized; None opens it.
    """
    try:
        nvml = nvml or open_nvml()
    except NvmlUnavailable:
        return []
    if nvml is None:
        return []
    found: list[str] = []
    for gpu in gpus:
        try:
            users = nvml.nvmlDeviceGetComputeRunningProcesses(nvml.nvmlDeviceGetHandleByUUID(gpu))
        except nvml.NVMLError:
            continue
        strangers = [_who(user.pid) for user in users if user.pid not in own]
        if strangers:
            found.append(f"GPU {gpu} is used by others, too: {', '.join(strangers)}")
    return found


def _who(pid: int) -> str:
    """Return a process with its program and user, if known."""
    place = Path("/proc") / str(pid)
    try:
        program, user_id = (place / "comm").read_text().strip(), place.stat().st_uid
    except OSError:  # it ended, or is in a namespace that this process cannot see
        return f"process {pid}"
    try:
        user = pwd.getpwuid(user_id).pw_name
    except KeyError:
        user = str(user_id)
    return f"process {pid} ({program}) of user {user}"


class GpuMeter:
    """Measures processes' GPU usage.

    Args:
        nvml: the library, initialized.
    """

    def __init__(self, nvml: Nvml) -> None:
        self._nvml = nvml
        self._devices = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
        self._seen = [0] * len(self._devices)

    @classmethod
    def open(cls) -> GpuMeter | None:
        """Return a meter. None if the machine has no NVIDIA driver, or it cannot be asked."""
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
        """Return how busy these processes kept a device, from 0 to 1. None if the driver cannot say."""
        try:
            samples = self._nvml.nvmlDeviceGetProcessUtilization(device, self._seen[number])
        except self._nvml.NVMLError as error:
            # The driver reports an error if there is nothing to report since the last measurement.
            return 0.0 if type(error).__name__ == "NVMLError_NotFound" else None
        self._seen[number] = max([self._seen[number], *(sample.timeStamp for sample in samples)])
        by_pid: dict[int, list[int]] = {}
        for sample in samples:
            if sample.pid in pids:
                by_pid.setdefault(sample.pid, []).append(sample.smUtil)
        return min(1.0, sum(sum(used) / len(used) for used in by_pid.values()) / 100)

"""What a runner's processes use of their machine."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceSample:
    """What an engine measured at one time.

    Attributes:
        cpu_seconds: processor time since the runner began.
        gpu_memory_bytes: None if the machine has no GPU that can be asked.
        gpu_cores: GPUs in use, averaged over the seconds before; None if that is not known.
    """

    cpu_seconds: float
    memory_bytes: int
    gpu_memory_bytes: int | None = None
    gpu_cores: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceUse:
    """What a runner used a short time ago.

    Attributes:
        cpu_cores: processors, averaged over the seconds before.
    """

    cpu_cores: float
    memory_bytes: int
    gpu_memory_bytes: int | None
    gpu_cores: float | None
    measured_at: datetime

    @property
    def rounded(self) -> tuple[float, int, int | None, float | None]:
        """Return what a watcher is told about: hundredths of a core and whole MiB."""
        gpu_memory = None if self.gpu_memory_bytes is None else self.gpu_memory_bytes // _MIB
        gpu_cores = None if self.gpu_cores is None else round(self.gpu_cores, 2)
        return round(self.cpu_cores, 2), self.memory_bytes // _MIB, gpu_memory, gpu_cores


def use_between(before: ResourceSample, after: ResourceSample, seconds: float, at: datetime) -> ResourceUse:
    """Return what was used between two samples, so many seconds apart."""
    used = max(0.0, after.cpu_seconds - before.cpu_seconds)
    return ResourceUse(
        cpu_cores=used / seconds if seconds > 0 else 0.0,
        memory_bytes=after.memory_bytes,
        gpu_memory_bytes=after.gpu_memory_bytes,
        gpu_cores=after.gpu_cores,
        measured_at=at,
    )

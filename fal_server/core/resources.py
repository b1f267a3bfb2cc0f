"""The resource usage of runners."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceSample:
    """An engine's measurement at one time.

    Attributes:
        cpu_seconds: processor time since the runner started.
        gpu_memory_bytes: None if the machine has no GPU that reports it.
        gpu_cores: GPUs in use, averaged over the preceding seconds; None if unknown.
    """

    cpu_seconds: float
    memory_bytes: int
    gpu_memory_bytes: int | None = None
    gpu_cores: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceUse:
    """A runner's recent resource usage.

    Attributes:
        cpu_cores: processors, averaged over the preceding seconds.
    """

    cpu_cores: float
    memory_bytes: int
    gpu_memory_bytes: int | None
    gpu_cores: float | None
    measured_at: datetime

    @property
    def rounded(self) -> tuple[float, int, int | None, float | None]:
        """Return the precision for watchers: hundredths of a core and whole MiB."""
        gpu_memory = None if self.gpu_memory_bytes is None else self.gpu_memory_bytes // _MIB
        gpu_cores = None if self.gpu_cores is None else round(self.gpu_cores, 2)
        return round(self.cpu_cores, 2), self.memory_bytes // _MIB, gpu_memory, gpu_cores


def use_between(before: ResourceSample, after: ResourceSample, seconds: float, at: datetime) -> ResourceUse:
    """Return the usage between two samples, `seconds` apart."""
    used = max(0.0, after.cpu_seconds - before.cpu_seconds)
    return ResourceUse(
        cpu_cores=used / seconds if seconds > 0 else 0.0,
        memory_bytes=after.memory_bytes,
        gpu_memory_bytes=after.gpu_memory_bytes,
        gpu_cores=after.gpu_cores,
        measured_at=at,
    )

"""Machine types, their resources, and what fits on a node."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from fal_server.core.faults import InvalidArgument


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """Resources of a machine type or a node: CPU in thousandths of a core, memory in MiB, GPUs by label."""

    milli_cpus: int = 0
    memory_mib: int = 0
    gpus: Mapping[str, int]

    def plus(self, other: Resources) -> Resources:
        labels = set(self.gpus) | set(other.gpus)
        return Resources(
            milli_cpus=self.milli_cpus + other.milli_cpus,
            memory_mib=self.memory_mib + other.memory_mib,
            gpus={label: self.gpus.get(label, 0) + other.gpus.get(label, 0) for label in labels},
        )

    def lacks_for(self, wanted: Resources) -> str | None:
        """Return what is missing here for `wanted`, for people; None if it fits."""
        for label, count in sorted(wanted.gpus.items()):
            if self.gpus.get(label, 0) < count:
                return f"{count} x {label} asked for, {self.gpus.get(label, 0)} free"
        if self.memory_mib < wanted.memory_mib:
            return f"{wanted.memory_mib} MiB of memory asked for, {self.memory_mib} free"
        if self.milli_cpus < wanted.milli_cpus:
            return f"{wanted.milli_cpus / 1000:g} cores asked for, {self.milli_cpus / 1000:g} free"
        return None

    def times(self, count: int) -> Resources:
        """Return the resources of `count` such things."""
        return Resources(
            milli_cpus=self.milli_cpus * count,
            memory_mib=self.memory_mib * count,
            gpus={label: each * count for label, each in self.gpus.items()},
        )

    def minus(self, other: Resources) -> Resources:
        """Return the difference, which is negative for what is over-committed."""
        negative = Resources(
            milli_cpus=-other.milli_cpus,
            memory_mib=-other.memory_mib,
            gpus={label: -count for label, count in other.gpus.items()},
        )
        return self.plus(negative)


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A machine that runs runners.

    Attributes:
        total: all that it has, used or not.
        trouble: why nothing can be started on it now, for people; empty if something can.
    """

    name: str
    total: Resources
    trouble: str = ""


# CPU is shared (a runner that waits for its GPU uses none), so CPU machine types reserve memory and a token of CPU.
_CPU_MEMORY_MIB = {"XS": 512, "S": 1024, "M": 2048, "L": 4096, "XL": 8192}


@lru_cache(maxsize=1024)
def resources_of(machine_type: str, num_gpus: int | None = None) -> Resources:
    """Return what one runner of a machine type reserves.

    Args:
        machine_type: `XS` to `XL`, or `GPU-<model>`.
        num_gpus: how many GPUs of that model; None is 1 for a GPU type.

    Raises:
        InvalidArgument: there is no such machine type.
    """
    label = machine_type.upper()
    if label in _CPU_MEMORY_MIB:
        return Resources(memory_mib=_CPU_MEMORY_MIB[label], gpus={})
    if label == "GPU" or label.startswith("GPU-"):
        return Resources(memory_mib=1024, gpus={label: max(1, num_gpus or 1)})
    known = ", ".join(_CPU_MEMORY_MIB)
    raise InvalidArgument(
        "machine_types", f"machine type {machine_type!r} is unknown: use one of {known}, or GPU-<model>"
    )


def memory_limit_of(machine_type: str) -> int | None:
    """Return the MiB that a runner may use; None for GPU types, which reserve only a token of memory."""
    return _CPU_MEMORY_MIB.get(machine_type.upper())


def choose(machine_types: Iterable[str], num_gpus: int | None, free: Resources) -> tuple[str | None, str]:
    """Return the first machine type that fits, in the app's order, and "", or None and why nothing fits."""
    reasons: list[str] = []
    for machine_type in machine_types:
        lack = free.lacks_for(resources_of(machine_type, num_gpus))
        if lack is None:
            return machine_type, ""
        reasons.append(f"{machine_type}: {lack}")
    return None, "no node has room (" + "; ".join(reasons) + ")"

"""Machine types, their resources, and which of them fit on a node."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from fal_server.core.faults import InvalidArgument
from fal_server.core.gpus import Gpu, made_up

MOST_PROCESSES = 2048
MOST_GPU_PROCESSES = 16384
MOST_DISK_MIB = 20 * 1024
MOST_GPU_DISK_MIB = 200 * 1024
_GPU_RESERVED_MIB = 1024


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
        """Return what is missing here for `wanted`, for people. None if it fits."""
        for label, count in sorted(wanted.gpus.items()):
            if self.gpus.get(label, 0) < count:
                return f"{count} x {label} asked for, {self.gpus.get(label, 0)} free"
        if self.memory_mib < wanted.memory_mib:
            return f"{wanted.memory_mib} MiB of memory asked for, {self.memory_mib} free"
        if self.milli_cpus < wanted.milli_cpus:
            return f"{wanted.milli_cpus / 1000:g} cores asked for, {self.milli_cpus / 1000:g} free"
        return None

    def times(self, count: int) -> Resources:
        """Return the resources of `count` such runners."""
        return Resources(
            milli_cpus=self.milli_cpus * count,
            memory_mib=self.memory_mib * count,
            gpus={label: each * count for label, each in self.gpus.items()},
        )

    def minus(self, other: Resources) -> Resources:
        """Return the difference, which is negative for over-committed resources."""
        negative = Resources(
            milli_cpus=-other.milli_cpus,
            memory_mib=-other.memory_mib,
            gpus={label: -count for label, count in other.gpus.items()},
        )
        return self.plus(negative)


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineType:
    """The resources of one runner.

    Attributes:
        milli_cpus: its share of a busy machine, in thousandths of a core; any runner may use idle cores.
        memory_mib: the most that it may use, which is reserved for it; None reserves a little and sets no limit.
        processes: the most processes at a time, threads included.
        disk_mib: the most that it may keep in /app and /tmp.
        gpu: the label of its GPUs; empty for none.
        gpus: how many of them.
    """

    name: str
    milli_cpus: int
    memory_mib: int | None
    processes: int = MOST_PROCESSES
    disk_mib: int = MOST_DISK_MIB
    gpu: str = ""
    gpus: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerLimits:
    """The limits of one runner. It also says what its owner can do if they are too low.

    Attributes:
        memory_mib, disk_mib: None sets no limit.
        cpu_weight: its share of a busy machine, where 100 is one core.
        larger: a machine type with more memory and the same GPUs; empty if there is none.
    """

    machine_type: str
    memory_mib: int | None
    processes: int
    cpu_weight: int
    disk_mib: int | None = None
    larger: str = ""


def _built_in() -> dict[str, MachineType]:
    sizes = {"XS": (500, 512), "S": (1000, 1024), "M": (2000, 2048), "L": (4000, 4096), "XL": (8000, 8192)}
    return {
        name: MachineType(name=name, milli_cpus=milli_cpus, memory_mib=memory_mib)
        for name, (milli_cpus, memory_mib) in sizes.items()
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineTypes:
    """The machine types of a controller, by name.

    Attributes:
        named: all types except `GPU-<model>` ones without a description, which have 8 cores per GPU and no memory
        limit.
    """

    named: Mapping[str, MachineType] = field(default_factory=_built_in)

    def with_own(self, own: Iterable[MachineType]) -> MachineTypes:
        """Return these with an operator's types. They replace those of the same name."""
        return MachineTypes(named={**self.named, **{machine_type.name: machine_type for machine_type in own}})

    def get(self, name: str) -> MachineType:
        """Return a machine type.

        Raises:
            InvalidArgument: there is no such machine type.
        """
        label = name.upper()
        found = self.named.get(label)
        if found is not None:
            return found
        if is_gpu_label(label):
            return MachineType(
                name=label,
                milli_cpus=8000,
                memory_mib=None,
                processes=MOST_GPU_PROCESSES,
                disk_mib=MOST_GPU_DISK_MIB,
                gpu=label,
                gpus=1,
            )
        known = ", ".join(self.named)
        raise InvalidArgument("machine_types", f"machine type {name!r} is unknown: use one of {known}, or GPU-<model>")

    def check(self, names: Iterable[str]) -> None:
        """Check that these machine types exist.

        Raises:
            InvalidArgument: one is unknown.
        """
        for name in names:
            self.get(name)

    def resources_of(self, name: str, num_gpus: int | None = None) -> Resources:
        """Return the resources that one runner of a machine type reserves.

        Args:
            num_gpus: the number of GPUs, instead of the type's; a type without GPUs has none.

        Raises:
            InvalidArgument: there is no such machine type.
        """
        found = self.get(name)
        return Resources(
            memory_mib=_GPU_RESERVED_MIB if found.memory_mib is None else found.memory_mib,
            gpus={found.gpu: max(1, num_gpus or found.gpus)} if found.gpu else {},
        )

    def limits_of(self, name: str) -> RunnerLimits:
        """Return the limits of a runner of a machine type.

        Raises:
            InvalidArgument: there is no such machine type.
        """
        found = self.get(name)
        memory = found.memory_mib
        larger = [
            other
            for other in self.named.values()
            if memory is not None
            and (other.gpu, other.gpus) == (found.gpu, found.gpus)
            and other.memory_mib is not None
            and other.memory_mib > memory
        ]
        best = min(larger, key=lambda other: other.memory_mib or 0, default=None)
        return RunnerLimits(
            machine_type=found.name,
            memory_mib=memory,
            processes=found.processes,
            cpu_weight=max(1, min(10_000, found.milli_cpus // 10)),
            disk_mib=found.disk_mib,
            larger="" if best is None else best.name,
        )

    def choose(self, names: Iterable[str], num_gpus: int | None, free: Resources) -> tuple[str | None, str]:
        """Return the first fitting machine type in the app's order, and "". Without one, return None and why."""
        reasons: list[str] = []
        for name in names:
            lack = free.lacks_for(self.resources_of(name, num_gpus))
            if lack is None:
                return name, ""
            reasons.append(f"{name}: {lack}")
        return None, "no node has room (" + "; ".join(reasons) + ")"


def is_gpu_label(label: str) -> bool:
    """Return whether a name is a GPU label, such as `GPU-H100`."""
    return label == "GPU" or label.startswith("GPU-")


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A machine that runs runners.

    Attributes:
        total: all its resources, used or not.
        machine_types: the types of its runners.
        gpus: each GPU of `total`; empty means simulated ones.
        bounds: what enforces memory, processes and cpu of machine types, for people; empty if nothing does.
        trouble: why nothing can be started on it now, for people; empty if something can.
        region: where it is, as its operator calls it; empty if that was not said.
        described: whether it has said what it has, so that `total` is true.
    """

    name: str
    total: Resources
    machine_types: MachineTypes = field(default_factory=MachineTypes)
    gpus: tuple[Gpu, ...] = ()
    bounds: Mapping[str, str] = field(default_factory=dict[str, str])
    trouble: str = ""
    region: str = ""
    described: bool = True

    def __post_init__(self) -> None:
        if not self.gpus:
            object.__setattr__(self, "gpus", made_up(self.total.gpus))

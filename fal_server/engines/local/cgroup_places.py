"""Finds out, by trying, where this process may create control groups. It also finds out what they can limit."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

MEMORY, PROCESSES, CPU = "memory", "pids", "cpu"
CONTROLLERS = (MEMORY, PROCESSES, CPU)
_OWN_LEAF = "fal-controller"
# The trial of each version: a file of the controller, and a limit that limits nothing.
_TRIED = {
    2: {MEMORY: ("memory.max", "max"), PROCESSES: ("pids.max", "max"), CPU: ("cpu.weight", "100")},
    1: {MEMORY: ("memory.limit_in_bytes", "-1"), PROCESSES: ("pids.max", "max"), CPU: ("cpu.shares", "1024")},
}


class GroupFiles:
    """The file system of control groups; tests replace the kernel's."""

    def make(self, group: Path) -> None:
        """Create a group if it does not exist.

        Raises:
            OSError: the kernel refuses.
        """
        group.mkdir(exist_ok=True)

    def remove(self, group: Path) -> None:
        """Remove a group.

        Raises:
            OSError: it is not empty.
        """
        group.rmdir()

    def write(self, file: Path, text: str) -> None:
        """Write to an existing file of a group. `Path.write_text` would create a missing one.

        Raises:
            OSError: there is no such file, or the kernel refuses.
        """
        descriptor = os.open(file, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(descriptor, text.encode())
        finally:
            os.close(descriptor)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A directory for groups that limit one resource.

    Attributes:
        version: of the hierarchy, 1 or 2.
    """

    base: Path
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """The directories in which groups are created.

    Attributes:
        kill: where the kernel can kill a whole group; None if it cannot.
        bounds: where memory, pids and cpu are limited, without those that cannot be.
    """

    kill: Path | None = None
    bounds: Mapping[str, Place] = field(default_factory=dict[str, Place])

    @property
    def bases(self) -> set[Path]:
        """All of these directories."""
        return {place.base for place in self.bounds.values()} | ({self.kill} if self.kill is not None else set())


def find_places(mounts: Path, own: Path, files: GroupFiles) -> Places:
    """Find the directories, by trying.

    Args:
        mounts: the file systems, as in proc(5).
        own: this process's groups, as in cgroups(7).
    """
    try:
        mounted = [line.split(" ") for line in mounts.read_text().splitlines()]
        groups = [line.split(":", 2) for line in own.read_text().splitlines()]
    except OSError:
        return Places()
    bounds: dict[str, Place] = {}
    kill: Path | None = None
    unified = next((Path(entry[1]) for entry in mounted if len(entry) > 2 and entry[2] == "cgroup2"), None)
    ours = next((group[2] for group in groups if len(group) > 2 and group[0] == "0"), None)
    if unified is not None and ours is not None:
        base = unified / ours.lstrip("/")
        kill = base if _can_kill(base, files) else None
        bounds = _bounds_of_version_2(unified, base, files)
        if bounds and kill is not None:
            kill = next(iter(bounds.values())).base
    for controller in CONTROLLERS:
        if controller not in bounds:
            place = _place_of_version_1(controller, mounted, groups, files)
            if place is not None:
                bounds[controller] = place
    return Places(kill=kill, bounds=bounds)


def _bounds_of_version_2(mount: Path, own: Path, files: GroupFiles) -> dict[str, Place]:
    """Find where version 2 limits resources. This is beside this process's group, or below it if it holds nothing else.

    A group that holds processes cannot limit groups below it, so this process moves into a new one.
    """
    if own != mount:
        beside = _tried(own.parent, 2, files)
        if MEMORY in beside:
            return beside
    try:
        alone = (own / "cgroup.procs").read_text().split() == [str(os.getpid())]
        wanted = set((own / "cgroup.controllers").read_text().split()) & set(CONTROLLERS)
    except OSError:
        return {}
    if not alone or MEMORY not in wanted:
        return {}
    leaf = own / _OWN_LEAF
    try:
        files.make(leaf)
        files.write(leaf / "cgroup.procs", "0")
        files.write(own / "cgroup.subtree_control", " ".join(f"+{name}" for name in sorted(wanted)))
    except OSError:
        with contextlib.suppress(OSError):
            files.write(own / "cgroup.procs", "0")
            files.remove(leaf)
        return {}
    return _tried(own, 2, files)


def _place_of_version_1(
    controller: str, mounted: list[list[str]], groups: list[list[str]], files: GroupFiles
) -> Place | None:
    mount = next(
        (
            Path(entry[1])
            for entry in mounted
            if len(entry) > 3 and entry[2] == "cgroup" and controller in entry[3].split(",")
        ),
        None,
    )
    ours = next((group[2] for group in groups if len(group) > 2 and controller in group[1].split(",")), None)
    if mount is None or ours is None:
        return None
    # A container sees its group as the root, but proc(5) may give the path that the machine sees.
    bases = [base for base in (mount / ours.lstrip("/"), mount) if base.is_dir()]
    return _tried(bases[0], 1, files).get(controller) if bases else None


def _tried(base: Path, version: int, files: GroupFiles) -> dict[str, Place]:
    """Return whether a group can be created, limited and removed."""
    probe = base / f"fal-probe-{os.getpid()}"
    found: dict[str, Place] = {}
    if not os.access(base / "cgroup.procs", os.W_OK):
        return found
    try:
        files.make(probe)
    except OSError:
        return found
    for controller, (name, value) in _TRIED[version].items():
        with contextlib.suppress(OSError):
            files.write(probe / name, value)
            found[controller] = Place(base=base, version=version)
    with contextlib.suppress(OSError):
        files.remove(probe)
    return found


def _can_kill(base: Path, files: GroupFiles) -> bool:
    probe = base / f"fal-probe-{os.getpid()}"
    try:
        files.make(probe)
        able = (probe / "cgroup.kill").exists() and os.access(base / "cgroup.procs", os.W_OK)
        files.remove(probe)
    except OSError:
        return False
    return able

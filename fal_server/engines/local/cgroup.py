"""Gives each runner its own control groups. They limit its resources and end its processes.

Usually a runner's processes are found by the tag in their environment, or by the shim as their subreaper. A daemon that
clears its environment, leaves its session and loses its shim has neither, but it cannot leave its control group.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import re
import signal
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from fal_server.core.machines import RunnerLimits
from fal_server.engines.local.cgroup_places import CPU, MEMORY, PROCESSES, GroupFiles, Places, find_places
from fal_server.ports import Bound

log = logging.getLogger(__name__)
_NOTE = "cgroup"
_PLACES = "control-groups"
_PAUSE_SECONDS = 0.005
_EMPTY_SECONDS = 10.0
_MIB = 1024 * 1024
_MOUNTS = Path("/proc/self/mounts")
_OWN = Path("/proc/self/cgroup")
_SHARES_OF_A_CORE = 1024
# For each controller and version, the files that hold its limit; those with a * need not exist.
_FILES = {
    (MEMORY, 2): ("memory.max", "*memory.swap.max"),
    (MEMORY, 1): ("memory.limit_in_bytes", "*memory.memsw.limit_in_bytes"),
    (PROCESSES, 2): ("pids.max",),
    (PROCESSES, 1): ("pids.max",),
    (CPU, 2): ("cpu.weight",),
    (CPU, 1): ("cpu.shares",),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerGroup:
    """The control groups of one runner.

    Attributes:
        shim: the group of the shim and, unless they enter others, its children; None if there is none.
        entered: the groups that limit the worker and commands, which enter them by themselves.
        prewarmed: all groups of a prewarmed worker, which cannot enter them by itself.
        memory: the one that limits memory.
        processes: the one that limits processes and threads.
    """

    shim: Path | None = None
    entered: tuple[Path, ...] = ()
    prewarmed: tuple[Path, ...] = ()
    memory: Path | None = None
    processes: Path | None = None

    def admit(self, shim: int, started: Sequence[int]) -> None:
        """Move a shim into its group. Also move its prewarmed worker into the worker's groups.

        Raises:
            OSError: the kernel refuses, or one of the processes has ended.
        """
        files = GroupFiles()
        if self.shim is not None:
            files.write(self.shim / "cgroup.procs", str(shim))
        for group in self.prewarmed:
            for process in started:
                files.write(group / "cgroup.procs", str(process))


class RunnerGroups:
    """Makes the groups of runners.

    Args:
        places: where groups can be created.
        record: the file that lists where this and earlier controllers of the state directory created groups.
        files: the file system of control groups.
    """

    def __init__(self, places: Places, record: Path, files: GroupFiles | None = None) -> None:
        self._places = places
        self._files = files or GroupFiles()
        # The name contains the state directory, so that no other controller's groups are swept.
        self._prefix = f"fal-{hashlib.sha256(os.fsencode(record.absolute())).hexdigest()[:8]}-"
        self._bases = _recorded(record) | places.bases
        self._bounding: set[str] = set()
        if places.bases:
            _record(record, {base for base in self._bases if base.is_dir()})

    @classmethod
    def detect(cls, state: Path, mounts: Path = _MOUNTS, own: Path = _OWN) -> RunnerGroups:
        """Find out where groups can be created, by trying.

        Args:
            state: the directory that holds the runners' directories and more.
            mounts: the file systems, as in proc(5).
            own: this process's groups, as in cgroups(7).
        """
        files = GroupFiles()
        return cls(find_places(mounts, own, files), state / _PLACES, files)

    @property
    def enforced(self) -> Mapping[str, str]:
        """What enforces the limits of memory, processes and cpu, for people. Unenforced ones are missing."""
        named = {"memory": MEMORY, "processes": PROCESSES, "cpu": CPU}
        places = {subject: self._places.bounds.get(controller) for subject, controller in named.items()}
        by_group = {subject: f"cgroup v{place.version}" for subject, place in places.items() if place is not None}
        return {"memory": "measured by each runner's shim", **by_group}

    def make(self, tag: str, directory: Path, limits: RunnerLimits | None) -> RunnerGroup:
        """Create the groups of a runner. Log and omit those that the machine refuses.

        Args:
            tag: the runner's tag.
            directory: its existing directory, which gets a note of the groups.
            limits: its limits; None if something else enforces them.
        """
        name = f"{self._prefix}{tag}"
        bounds = {} if limits is None else dict(self._places.bounds)
        version_2 = {key for key, place in bounds.items() if place.version == 2}
        home = bounds[next(iter(version_2))].base if version_2 else self._places.kill
        top = None if home is None else home / name
        inner = top / "runner" if top is not None and version_2 else None
        shim = inner.with_name("shim") if inner is not None else top
        groups = {
            key: inner if inner is not None and place.version == 2 else place.base / name
            for key, place in bounds.items()
        }
        outer = [group for group in (inner, shim, top) if group is not None]
        made = list(dict.fromkeys([*outer, *groups.values()]))
        try:
            # Before the groups, so that they are found again whenever this process ends.
            (directory / _NOTE).write_text("\n".join(map(str, made)))
            for group in reversed(made):  # from the top down
                self._files.make(group)
                if top is not None and group == top and version_2:
                    self._files.write(top / "cgroup.subtree_control", " ".join(f"+{key}" for key in sorted(version_2)))
            if limits is not None:
                for key, group in groups.items():
                    self._bound(group, key, bounds[key].version, limits)
        except OSError as error:
            log.warning("the runner in %s gets no control group: %s", directory, error)
            for left in made:
                with contextlib.suppress(OSError):
                    self._files.remove(left)
            return RunnerGroup()
        entered = tuple(dict.fromkeys(groups.values()))
        bounded = limits is not None and limits.memory_mib is not None
        return RunnerGroup(
            shim=shim,
            entered=entered,
            prewarmed=entered if inner is not None or shim is None else (shim, *entered),
            memory=groups.get(MEMORY) if bounded else None,
            processes=groups.get(PROCESSES),
        )

    @asynccontextmanager
    async def bounding(self, name: str, directory: Path, limits: RunnerLimits) -> AsyncGenerator[Bound]:
        """Implement the port Bounds."""
        self._bounding.add(name)
        try:
            group = await asyncio.to_thread(self.make, name, directory, limits)
            yield Bound(groups=group.entered, memory=group.memory)
        finally:
            await asyncio.shield(end_group(directory, name))
            self._bounding.discard(name)

    async def end_others(self, alive: Collection[str]) -> None:
        """Kill processes in groups that earlier controllers left, and remove the groups.

        Args:
            alive: the tags of runners whose groups stay.
        """
        for base in self._bases:
            for group in base.glob(f"{self._prefix}*"):
                if group.name.removeprefix(self._prefix) not in {*alive, *self._bounding}:
                    await _end([*(child for child in group.iterdir() if child.is_dir()), group])

    def _bound(self, group: Path, controller: str, version: int, limits: RunnerLimits) -> None:
        for name in _FILES[controller, version]:
            value = _value(controller, name, version, limits)
            file = group / name.removeprefix("*")
            if value is not None and (not name.startswith("*") or file.exists()):
                self._files.write(file, value)


def _value(controller: str, name: str, version: int, limits: RunnerLimits) -> str | None:
    if controller == PROCESSES:
        return str(limits.processes)
    if controller == CPU:
        return str(limits.cpu_weight if version == 2 else shares_of(limits))
    if limits.memory_mib is None:
        return None
    return "0" if name == "*memory.swap.max" else str(limits.memory_mib * _MIB)


def shares_of(limits: RunnerLimits) -> int:
    """Return a runner's share of processors in the unit of cgroup v1."""
    return max(2, limits.cpu_weight * _SHARES_OF_A_CORE // 100)


async def end_group(directory: Path, tag: str, mounts: Path = _MOUNTS) -> None:
    """Kill all in a runner's groups, and remove them. Do nothing if it has none.

    Args:
        mounts: the file systems, as in proc(5).
    """
    await _end(_noted(directory, tag, mounts))


async def _end(groups: Sequence[Path]) -> None:
    left = [group for group in groups if group.is_dir()]
    end = asyncio.get_running_loop().time() + _EMPTY_SECONDS
    while left:
        for group in left:
            _kill(group)
        # The kernel gives no notice, so read the files again for some milliseconds.
        left = [group for group in left if _populated(group) or not _removed(group)]
        if left and asyncio.get_running_loop().time() > end:
            log.warning("control groups that do not end: %s", ", ".join(map(str, left)))
            return
        if left:
            await asyncio.sleep(_PAUSE_SECONDS)


def _kill(group: Path) -> None:
    """Kill the processes of a group. Version 1 cannot kill a group, so signal each process while it is in the group."""
    if (group / "cgroup.kill").exists():
        with contextlib.suppress(OSError):
            GroupFiles().write(group / "cgroup.kill", "1")
        return
    for pid in _processes(group):
        try:
            handle = os.pidfd_open(pid)
        except OSError:
            continue  # it ended
        try:
            if pid in _processes(group):  # the pidfd is held, so no other process is signaled
                signal.pidfd_send_signal(handle, signal.SIGKILL)
        except ProcessLookupError:
            continue
        finally:
            os.close(handle)


def _processes(group: Path) -> list[int]:
    try:
        return [int(pid) for pid in (group / "cgroup.procs").read_text().split()]
    except OSError:
        return []


def _noted(directory: Path, tag: str, mounts: Path) -> list[Path]:
    """Return the note's groups that are the runner's. So a forged note cannot end other processes."""
    try:
        noted = [Path(line) for line in (directory / _NOTE).read_text().splitlines()]
        lines = mounts.read_text().splitlines()
    except (OSError, ValueError):
        return []
    kinds = (line.split(" ") for line in lines)
    places = [Path(entry[1]) for entry in kinds if len(entry) > 2 and entry[2] in {"cgroup", "cgroup2"}]
    name = re.compile(rf"fal-(?:[0-9a-f]{{8}}-)?{re.escape(tag)}")  # earlier versions wrote no state directory
    return [
        group
        for group in noted
        if any(name.fullmatch(part.name) for part in (group, group.parent))
        and any(group.is_relative_to(place) for place in places)
        and group == group.resolve()
    ]


def _populated(group: Path) -> bool:
    try:
        return "populated 1" in (group / "cgroup.events").read_text()
    except OSError:
        return False


def _removed(group: Path) -> bool:
    try:
        group.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _recorded(record: Path) -> set[Path]:
    try:
        return {Path(line) for line in record.read_text().splitlines() if line.startswith("/")}
    except (OSError, ValueError):
        return set()


def _record(record: Path, bases: Collection[Path]) -> None:
    text = "".join(f"{base}\n" for base in sorted(bases))
    try:
        if not record.exists() or record.read_text() != text:
            record.write_text(text)
    except OSError as error:
        log.warning("where control groups are made could not be noted: %s", error)

"""Finds a runner's processes in /proc, and signals exactly those."""

from __future__ import annotations

import errno
import hashlib
import os
import signal
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from fal_runner.worker.process_tag import TAG_VARIABLE

_PROC = Path("/proc")
# What reading takes is missing here; that says nothing of the process that is read.
_SHORTAGES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
WORKER_VARIABLE = "FAL_WORKER_PID"
"""Tells commands in a runner the worker's process id."""
PROFILER_VARIABLE = "FAL_PY_SPY"
"""Tells commands in a runner the py-spy of the shim's own installation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessInfo:
    """A snapshot of one process.

    Attributes:
        started_ticks: its start time since boot, in clock ticks; with the pid it identifies the process for good.
        state: the kernel's letter, such as R, S, Z.
        own_ticks: the CPU time that it has used, in clock ticks.
        waited_ticks: the CPU time of children that it has waited for, including their own.
        virtual_bytes: its address space; 0 once it is freed, while the kernel still waits for other processes of its
            room.
    """

    pid: int
    parent: int
    session: int
    state: str
    started_ticks: int
    own_ticks: int
    waited_ticks: int
    virtual_bytes: int

    @property
    def alive(self) -> bool:
        """Whether it can still run. A zombie cannot, nor a process without memory."""
        return self.state not in {"Z", "X", "x"} and self.virtual_bytes > 0


def tag_of(token: str) -> str:
    """Return the tag in the environment of a runner's processes. The token cannot be computed from it."""
    return hashlib.sha256(b"fal runner mark\0" + token.encode()).hexdigest()[:32]


def boot_id() -> str:
    """Return the id of this boot. Pids and ticks of another boot are meaningless."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def process_info(pid: int) -> ProcessInfo | None:
    """Read /proc/PID/stat, see proc(5); None if there is no such process.

    Raises:
        OSError: this process has no free descriptor, or the machine no memory, so nothing is known.
    """
    content = _read(pid, "stat")
    if content is None:
        return None
    fields = (
        content.decode(errors="replace").rpartition(")")[2].split()
    )  # the name before it may contain spaces and brackets
    return ProcessInfo(
        pid=pid,
        state=fields[0],
        parent=int(fields[1]),
        session=int(fields[3]),
        own_ticks=int(fields[11]) + int(fields[12]),
        waited_ticks=int(fields[13]) + int(fields[14]),
        started_ticks=int(fields[19]),
        virtual_bytes=int(fields[20]),
    )


def own_process() -> ProcessInfo:
    """Return the kernel's information about this process."""
    found = process_info(os.getpid())
    assert found is not None, "a process that runs is there"
    return found


def is_alive(pid: int, started_ticks: int) -> bool:
    """Return whether exactly this process is alive. A later one with its number does not count.

    Raises:
        OSError: nothing is known, as with `process_info`.
    """
    found = process_info(pid)
    return found is not None and found.started_ticks == started_ticks and found.alive


def all_processes() -> list[ProcessInfo]:
    """List every process of the machine."""
    found = (process_info(int(entry.name)) for entry in _PROC.iterdir() if entry.name.isdecimal())
    return [process for process in found if process is not None]


def children_of(pid: int) -> list[ProcessInfo]:
    """List a process's children without a look at every process. It lists none if there is no such process.

    Raises:
        OSError: nothing is known, as with `process_info`.
    """
    found: list[ProcessInfo | None] = []
    with suppress(FileNotFoundError, ProcessLookupError):  # it has ended
        for thread in (_PROC / str(pid) / "task").iterdir():
            found += [process_info(int(child)) for child in (thread / "children").read_text().split()]
    return [process for process in found if process is not None]


def descendants(roots: Iterable[int], processes: Iterable[ProcessInfo]) -> list[ProcessInfo]:
    """List the children of these processes, their children and so on. It leaves out the roots themselves."""
    children: dict[int, list[ProcessInfo]] = {}
    for process in processes:
        children.setdefault(process.parent, []).append(process)
    found: list[ProcessInfo] = []
    waiting = list(roots)
    while waiting:
        for process in children.pop(waiting.pop(), []):
            found.append(process)
            waiting.append(process.pid)
    return found


def has_variable(pid: int, variable: str, value: str) -> bool:
    """Return whether the process was started with this environment variable. False if that may not be read."""
    return variable_of(pid, variable) == value


def variable_of(pid: int, variable: str) -> str | None:
    """Return an environment variable that the process was started with. None if it may not be read.

    Raises:
        OSError: nothing is known, as with `process_info`.
    """
    environment = _read(pid, "environ")
    if environment is None:
        return None
    prefix = f"{variable}=".encode()
    found = (entry for entry in environment.split(b"\0") if entry.startswith(prefix))
    return next((entry[len(prefix) :].decode(errors="replace") for entry in found), None)


def working_directory(pid: int) -> Path | None:
    """Return a process's working directory, even a deleted one. None if it may not be read."""
    try:
        return Path(str((_PROC / str(pid) / "cwd").readlink()).removesuffix(" (deleted)"))
    except OSError:
        return None


def processes_of(tag: str) -> list[ProcessInfo]:
    """List the living processes of a runner. It finds them from outside by its tag.

    A process that cleared its environment is found by its session or its ancestors, as long as one of those has the
    tag.

    Raises:
        OSError: nothing is known, as with `process_info`.
    """
    living = [process for process in all_processes() if process.alive and process.pid != os.getpid()]
    tagged = [process for process in living if has_variable(process.pid, TAG_VARIABLE, tag)]
    sessions = {process.session for process in tagged} - {own_process().session}
    found = {process.pid: process for process in tagged}
    found.update({process.pid: process for process in living if process.session in sessions})
    found.update({process.pid: process for process in descendants(list(found), living)})
    return list(found.values())


def send_signal(process: ProcessInfo, number: int = signal.SIGKILL) -> None:
    """Signal exactly this process. Do nothing if it is gone, even if another one has its number now.

    Without a free descriptor nothing happens either, so whoever needs the end looks and signals again.
    """
    try:
        handle = os.pidfd_open(process.pid)
    except OSError:
        return
    try:
        now = process_info(process.pid)  # read while the handle is held, so that the signal reaches this process
        if now is not None and now.started_ticks == process.started_ticks:
            signal.pidfd_send_signal(handle, number)
    except OSError:
        return
    finally:
        os.close(handle)


def _read(pid: int, name: str) -> bytes | None:
    """Return a file of a process in /proc. None if the process is gone, or the file may not be read."""
    try:
        return (_PROC / str(pid) / name).read_bytes()
    except OSError as error:
        if error.errno in _SHORTAGES:
            raise
        return None

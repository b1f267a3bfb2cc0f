"""Which processes belong to a runner, read from /proc, and killing exactly those."""

from __future__ import annotations

import hashlib
import os
import signal
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from fal_runner.worker.process_tag import TAG_VARIABLE

_PROC = Path("/proc")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessInfo:
    """One process at one moment.

    Attributes:
        started_ticks: its start time since boot, in clock ticks; with the pid it names the process for good.
        state: the kernel's letter, such as R, S, Z.
    """

    pid: int
    parent: int
    session: int
    state: str
    started_ticks: int

    @property
    def alive(self) -> bool:
        """Whether it can still do anything: a zombie cannot."""
        return self.state not in {"Z", "X", "x"}


def tag_of(token: str) -> str:
    """The word that every process of a runner carries in its environment. The token cannot be got back from it."""
    return hashlib.sha256(b"fal runner mark\0" + token.encode()).hexdigest()[:32]


def boot_id() -> str:
    """Which boot of the machine this is: pids and ticks of another one mean nothing."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def process_info(pid: int) -> ProcessInfo | None:
    """The process with this number, or None. Fields as in proc(5), /proc/PID/stat."""
    try:
        text = (_PROC / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()  # the name before it may hold spaces and brackets
    return ProcessInfo(
        pid=pid, state=fields[0], parent=int(fields[1]), session=int(fields[3]), started_ticks=int(fields[19])
    )


def is_alive(pid: int, started_ticks: int) -> bool:
    """Whether this very process, not a later one with its number, is alive."""
    seen = process_info(pid)
    return seen is not None and seen.started_ticks == started_ticks and seen.alive


def all_processes() -> list[ProcessInfo]:
    """Every process of the machine."""
    found = (process_info(int(entry.name)) for entry in _PROC.iterdir() if entry.name.isdecimal())
    return [seen for seen in found if seen is not None]


def descendants(roots: Iterable[int], everything: Iterable[ProcessInfo]) -> list[ProcessInfo]:
    """The children of these processes, their children and so on; without the roots themselves."""
    children: dict[int, list[ProcessInfo]] = {}
    for seen in everything:
        children.setdefault(seen.parent, []).append(seen)
    found: list[ProcessInfo] = []
    waiting = list(roots)
    while waiting:
        for seen in children.pop(waiting.pop(), []):
            found.append(seen)
            waiting.append(seen.pid)
    return found


def has_variable(pid: int, variable: str, value: str) -> bool:
    """Whether the process was started with this environment variable; False where it may not be read."""
    return variable_of(pid, variable) == value


def variable_of(pid: int, variable: str) -> str | None:
    """The value of an environment variable that the process was started with; None where it may not be read."""
    try:
        environment = (_PROC / str(pid) / "environ").read_bytes()
    except OSError:
        return None
    prefix = f"{variable}=".encode()
    found = (entry for entry in environment.split(b"\0") if entry.startswith(prefix))
    return next((entry[len(prefix) :].decode(errors="replace") for entry in found), None)


def working_directory(pid: int) -> Path | None:
    """Where the process works, also where that was deleted; None where it may not be read."""
    try:
        return Path(str((_PROC / str(pid) / "cwd").readlink()).removesuffix(" (deleted)"))
    except OSError:
        return None


def processes_of(mark: str) -> list[ProcessInfo]:
    """The living processes of a runner, found from outside by its mark.

    A process that wiped its environment is found by its session or its ancestors, as long as one of those is marked.
    """
    everything = [seen for seen in all_processes() if seen.alive and seen.pid != os.getpid()]
    own = [seen for seen in everything if has_variable(seen.pid, TAG_VARIABLE, mark)]
    mine = process_info(os.getpid())
    sessions = {seen.session for seen in own} - {mine.session if mine else 0}
    found = {seen.pid: seen for seen in own}
    found.update({seen.pid: seen for seen in everything if seen.session in sessions})
    found.update({seen.pid: seen for seen in descendants(list(found), everything)})
    return list(found.values())


def send_signal(seen: ProcessInfo, number: int = signal.SIGKILL) -> None:
    """Signal exactly the process that was seen; nothing where it is gone, even if its number was given away since."""
    try:
        handle = os.pidfd_open(seen.pid)
    except OSError:
        return
    try:
        now = process_info(seen.pid)  # after the handle is held, so that what is looked at is what will be hit
        if now is not None and now.started_ticks == seen.started_ticks:
            signal.pidfd_send_signal(handle, number)
    except ProcessLookupError:
        return
    finally:
        os.close(handle)

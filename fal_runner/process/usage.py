"""Measures the resource usage of processes below this one, from /proc alone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fal_runner.process.proc import ProcessInfo, process_info

_PROC = Path("/proc")
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeUsage:
    """The total resource usage of some processes.

    Attributes:
        pids: the processes.
        cpu_seconds: since the first of them started, including ended ones; it never decreases.
        memory_bytes: the private memory of each, plus the shared memory of the process with the most of it.
    """

    pids: tuple[int, ...]
    cpu_seconds: float
    memory_bytes: int


def measure_descendants(root: int) -> TreeUsage:
    """Measure all descendants of a process, which is their subreaper. It leaves out the process itself.

    The kernel adds the time of a reaped process to its parent's, so no time is lost as long as the root reaps every
    orphan.
    """
    pids = tuple(_descendants(root))
    # Read the root first: a descendant reaped in between is then missing once, and never counted twice.
    itself = _info(root)
    ticks = 0 if itself is None else itself.waited_ticks
    alone = shared = 0
    for pid in pids:
        found = _info(pid)
        try:
            resident, of_files = (int(pages) for pages in (_PROC / str(pid) / "statm").read_text().split()[1:3])
        except (OSError, ValueError):
            continue  # it ended
        if found is not None:
            ticks += found.own_ticks + found.waited_ticks
        alone += resident - of_files
        shared = max(shared, of_files)
    return TreeUsage(pids=pids, cpu_seconds=ticks / _TICKS, memory_bytes=(alone + shared) * _PAGE)


def _info(pid: int) -> ProcessInfo | None:
    """Return what is known of a process. Without a free descriptor it is nothing, as if the process had ended."""
    try:
        return process_info(pid)
    except OSError:
        return None


def _descendants(root: int) -> Iterator[int]:
    waiting = [root]
    while waiting:
        for child in _children(waiting.pop()):
            yield child
            waiting.append(child)


def _children(pid: int) -> list[int]:
    """List the children of all threads of a process, see proc(5). There are none if it has ended."""
    found: list[int] = []
    try:
        threads = list((_PROC / str(pid) / "task").iterdir())
    except OSError:
        return found
    for thread in threads:
        try:
            found += map(int, (thread / "children").read_text().split())
        except OSError:
            continue  # it ended
    return found

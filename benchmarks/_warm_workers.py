"""Waits for workers that are ready for their next runner."""

from __future__ import annotations

import time
from collections.abc import Sequence

import psutil

from fal_runner.process.proc import has_variable
from fal_runner.worker.process_tag import NO_TAG, TAG_VARIABLE


def warm_workers(pid: int) -> list[psutil.Process]:
    """Return the waiting workers of the controller or node with this pid."""
    shims = [shim for shim in psutil.Process(pid).children() if has_variable(shim.pid, TAG_VARIABLE, NO_TAG)]
    return [worker for shim in shims for worker in shim.children()]


def wait_for_workers(counts: dict[int, int]) -> None:
    """Wait for workers of a controller or node that have imported everything."""
    time.sleep(2.5)  # the pool rests after a start, which is not visible from outside
    for pid, count in counts.items():
        while len(waiting := warm_workers(pid)) < count:
            time.sleep(0.1)  # the kernel notifies only parents of their children's end
        _until_idle(waiting)


def _until_idle(processes: Sequence[psutil.Process]) -> None:
    used = -1.0
    processes = [each for process in processes for each in (process, *process.children(recursive=True))]
    while used != (now := sum(process.cpu_times().user for process in processes)):
        used = now
        time.sleep(0.3)  # CPU time is counted in steps of 10 ms

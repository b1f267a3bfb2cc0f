"""Inspects a controller from outside: its runners' processes and its database."""

from __future__ import annotations

import json
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import psutil

from fal_runner.process.proc import ProcessInfo, all_processes, send_signal, variable_of, working_directory
from fal_runner.worker.process_tag import TAG_VARIABLE


def groups(state_dir: Path) -> dict[str, list[ProcessInfo]]:
    """Return every runner's living processes in a state directory, by runner id. A tag stands for a missing id.

    They are found by working directory and environment, not by files.
    """
    runners = state_dir / "runners"
    found: dict[str, list[ProcessInfo]] = {}
    marks: dict[str, str] = {}
    everything = [seen for seen in all_processes() if seen.alive]
    for seen in everything:
        place = working_directory(seen.pid)
        mark = variable_of(seen.pid, TAG_VARIABLE)
        if mark and place is not None and place != runners and place.is_relative_to(runners):
            marks.setdefault(mark, place.relative_to(runners).parts[0])
    for seen in everything:
        mark = variable_of(seen.pid, TAG_VARIABLE)
        if mark in marks:
            found.setdefault(marks[mark], []).append(seen)
    return found


def kill_everything(state_dir: Path) -> None:
    """Kill the processes that a failed test left."""
    for members in groups(state_dir).values():
        for seen in members:
            send_signal(seen, signal.SIGKILL)


def identity(state_dir: Path, runner_id: str) -> dict[str, object]:
    """Return the record of a runner's shim."""
    return dict(json.loads((state_dir / "runners" / runner_id / "shim.json").read_text()))


def worker_of(state_dir: Path, runner_id: str) -> int:
    """Return the pid of a runner's worker."""
    return psutil.Process(int(str(identity(state_dir, runner_id)["pid"]))).children()[0].pid


def rows(state_dir: Path, query: str, *values: object) -> list[tuple[object, ...]]:
    """Query the controller's database directly, even without a controller."""
    with closing(sqlite3.connect(f"file:{state_dir / 'fal.db'}?mode=ro", uri=True, timeout=10)) as database:
        return list(database.execute(query, values))


def sequence_faults(state_dir: Path) -> list[str]:
    """Return runners whose stored log has a gap. The key (runner, sequence) excludes repeated lines."""
    query = "select runner_id, count(*), min(sequence), max(sequence) from log_lines group by runner_id"
    return [
        f"{runner_id}: {count} lines from {first} to {last}"
        for runner_id, count, first, last in rows(state_dir, query)
        if (first, last) != (1, count)
    ]


def nothing_is_left(state_dir: Path) -> None:
    """Assert that no runner, directory or open row is left."""
    assert groups(state_dir) == {}
    assert list((state_dir / "runners").iterdir()) == []
    assert rows(state_dir, "select runner_id from runners where state != 'terminated'") == []

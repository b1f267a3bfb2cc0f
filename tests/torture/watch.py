"""Samples the database and /proc during the run. It reads the runners' logs at the end."""

from __future__ import annotations

import asyncio
import re
import sqlite3
import time
from collections import Counter

from tests.support.left_behind import groups, rows
from tests.torture.history import History
from tests.torture.world import World, pause

_BEGIN = re.compile(r"begin (\S+)")
_DROPPED = re.compile(r"(\d+) lines? dropped here")
_EVERY_SECONDS = 0.25


class Watch:
    """Samples until `over`."""

    def __init__(self, world: World, history: History) -> None:
        self._world = world
        self._history = history
        self._states: dict[str, str] = {}
        self.samples = 0
        self.most_alive = 0

    async def run(self, over: asyncio.Event) -> None:
        """Sample until the run is over."""
        while not over.is_set():
            await self.look()
            await pause(_EVERY_SECONDS)

    async def look(self) -> None:
        """Take a sample, rows first, then processes. Runners that had ended must then be dead."""
        query = "select runner_id, app_name, state, desired from runners order by created_at"
        try:
            found = await asyncio.to_thread(rows, self._world.state_dir, query)
        except sqlite3.Error:
            return  # during a start, or while the disk is full
        alive = await asyncio.to_thread(groups, self._world.state_dir)
        serving: Counter[str] = Counter()
        ghosts: list[str] = []
        for runner, app, state, desired in found:
            if self._states.get(str(runner)) != state:
                self._states[str(runner)] = str(state)
                self._history.note("state", runner=runner, app=app, state=state, desired=desired)
            if state == "terminated":
                # A shim waits for its release; the processes of the app must be gone.
                if len(alive.get(str(runner), ())) > 1:
                    ghosts.append(str(runner))
            elif desired == "serve":
                serving[str(app)] += 1
        self.samples += 1
        self.most_alive = max(self.most_alive, len(alive))
        self._history.note("sample", serving=dict(serving), ghosts=ghosts, alive=len(alive))

    def finish(self) -> None:
        """Record the runners, their logs, and what is left."""
        state_dir = self._world.state_dir
        query = "select runner_id, app_name, unrouted_at, stopping_at, ended_at, reason from runners"
        for runner, app, *times, reason in rows(state_dir, query):
            unrouted_at, stopping_at, ended_at = (None if m is None else int(str(m)) / 1e6 for m in times)
            self._history.note(
                "runner",
                runner=runner,
                app=app,
                unrouted_at=unrouted_at,
                stopping_at=stopping_at,
                ended_at=ended_at,
                reason=reason,
            )
        counts: dict[str, list[int]] = {}
        query = "select runner_id, sequence, message, timestamp from log_lines order by runner_id, sequence"
        for runner, sequence, message, timestamp in rows(state_dir, query):
            numbers = counts.setdefault(str(runner), [])
            # "N lines dropped" replaces N lines and has the number of the last one.
            gone = _DROPPED.match(str(message))
            numbers += range(int(str(sequence)) - (int(gone[1]) if gone else 1) + 1, int(str(sequence)) + 1)
            if gone is not None:
                self._history.note("dropped", runner=runner, lines=int(gone[1]))
            if (match := _BEGIN.fullmatch(str(message))) is not None:
                self._history.note("begin", at=int(str(timestamp)) / 1e6, tag=match[1], runner=runner)
        for runner, numbers in counts.items():
            self._history.note("lines", runner=runner, count=len(numbers), first=numbers[0], last=numbers[-1])
        open_rows = rows(state_dir, "select runner_id from runners where state != 'terminated'")
        self._history.note(
            "left",
            groups=sorted(groups(state_dir)),
            directories=sorted(path.name for path in (state_dir / "runners").iterdir()),
            rows=sorted(str(row[0]) for row in open_rows),
            at=time.time(),
        )

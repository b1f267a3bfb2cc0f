"""Keeps what an environment's build wrote until an app is deployed on it, then stores it with the app's lines."""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import replace

from fal_server.core.logs import LogEntry, LogSource
from fal_server.core.revisions import Revision
from fal_server.ports import BuildLog
from fal_server.services.logs import Logs

_MOST_ENVIRONMENTS = 32
_MOST_LINES = 5000  # the last ones of one build
_AT_ONCE = 1000


class BuildLines:
    """Hold the lines of the latest builds, because a build often ends before its app is known.

    Args:
        logs: stores an app's lines; None stores none.
    """

    def __init__(self, logs: Logs | None) -> None:
        self._logs = logs
        self._kept: OrderedDict[str, deque[LogEntry]] = OrderedDict()

    def keeping(self, env_id: str, log: BuildLog) -> BuildLog:
        """Return a build log that keeps the lines of a new build and passes them on."""
        lines: deque[LogEntry] = deque(maxlen=_MOST_LINES)

        async def keep(entry: LogEntry) -> None:
            if not lines:
                self._kept[env_id] = lines
                self._kept.move_to_end(env_id)
                while len(self._kept) > _MOST_ENVIRONMENTS:
                    self._kept.popitem(last=False)
            lines.append(entry)
            await log(entry)

        return keep

    async def store(self, env_id: str, revision: Revision) -> None:
        """Store the lines of an environment's build, once, as those of a revision.

        Lines are numbered by runner, so each build has an id that no runner can have.
        """
        lines = self._kept.pop(env_id, None)
        if self._logs is None or not lines:
            return
        runner_id = f"build-{env_id[:12]}-{revision.revision_id[:8]}"
        entries = [
            replace(
                entry,
                runner_id=runner_id,
                sequence=number,
                source=LogSource.BUILD,
                account=revision.account,
                app_name=revision.app_name,
                revision_id=revision.revision_id,
            )
            for number, entry in enumerate(lines, 1)
        ]
        for start in range(0, len(entries), _AT_ONCE):
            await self._logs.ingest(entries[start : start + _AT_ONCE])

"""Keeps a build's log lines until the build fails or is deployed. Then it stores them for the app."""

from __future__ import annotations

import logging
import uuid
from collections import OrderedDict, deque
from collections.abc import Iterable
from dataclasses import replace

from fal_server.core.faults import Unavailable
from fal_server.core.identity import AppId
from fal_server.core.logs import LogEntry, LogSource
from fal_server.core.revisions import Revision
from fal_server.ports import BuildLog
from fal_server.services.logs import Logs

_log = logging.getLogger(__name__)
_MOST_ENVIRONMENTS = 32
_MOST_LINES = 5000  # the last ones of one build
_AT_ONCE = 1000


class BuildLines:
    """Holds the lines of the latest builds. A build often ends before its app is known.

    Args:
        logs: stores an app's lines; None stores none.
    """

    def __init__(self, logs: Logs | None) -> None:
        self._logs = logs
        self._kept: OrderedDict[str, deque[LogEntry]] = OrderedDict()

    def keeping(self, env_id: str, log: BuildLog) -> BuildLog:
        """Return a build log that keeps a build's lines and forwards them."""
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
        """Store the lines of an environment's build, once, for a revision.

        Lines are numbered by runner, so each build has an id that no runner can have.
        """
        lines = self._kept.pop(env_id, ())
        build_id = f"build-{env_id[:12]}-{revision.revision_id[:8]}"
        await self._store(lines, build_id, AppId.parse(revision.account, revision.app_name), revision.revision_id)

    async def store_failed(self, env_id: str, app: AppId, fault: LogEntry) -> None:
        """Store a failed build's lines and its error for the app. There is no revision for them."""
        lines = [*self._kept.pop(env_id, ()), fault]
        try:
            await self._store(lines, f"build-{env_id[:12]}-{uuid.uuid4().hex[:8]}", app, "")
        except Unavailable as error:  # the caller must still be told about the build
            _log.warning("what a build of %s wrote before it failed is lost: %s", app, error)

    async def _store(self, lines: Iterable[LogEntry], build_id: str, app: AppId, revision_id: str) -> None:
        if self._logs is None:
            return
        entries = [
            replace(
                entry,
                runner_id=build_id,
                sequence=number,
                source=LogSource.BUILD,
                account=app.account,
                app_name=str(app),
                revision_id=revision_id,
            )
            for number, entry in enumerate(lines, 1)
        ]
        for start in range(0, len(entries), _AT_ONCE):
            await self._logs.ingest(entries[start : start + _AT_ONCE])

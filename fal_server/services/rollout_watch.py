"""Waits for a rolling deploy. It shows the output of the new revision's first runners."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

from fal_server.core.faults import Aborted, FailedPrecondition, Fault, NotFound
from fal_server.core.identity import AppId, Scope
from fal_server.core.logs import LogEntry, LogLevel, LogQuery, LogSource
from fal_server.core.runners import NO_PROCESS, Runner
from fal_server.live.catalog import Catalog
from fal_server.live.fleet import Fleet
from fal_server.ports import BuildLog, Clock
from fal_server.services.logs import Logs

_LOOK_SECONDS = 5.0
_LAST_LINES_SECONDS = 10.0


class RolloutWatcher:
    """Waits for one rollout.

    Args:
        logs: follows the lines of the new runners; None shows none.
        log: receives the lines.
    """

    def __init__(
        self, scope: Scope, catalog: Catalog, fleet: Fleet, logs: Logs | None, clock: Clock, log: BuildLog
    ) -> None:
        self._scope = scope
        self._catalog = catalog
        self._fleet = fleet
        self._logs = logs
        self._clock = clock
        self._log = log
        self._tails: dict[str, asyncio.Task[None]] = {}
        self._shown: set[str] = set()

    async def wait(self, app_id: AppId, revision_id: str) -> None:
        """Wait until the app is on the revision.

        Raises:
            FailedPrecondition: the revision was given up, because its runner failed to start or fits on no machine.
            Aborted: a newer deploy or `set-rev` replaced it.
            NotFound: the app was deleted.
        """
        try:
            while True:
                seen = self._catalog.changed.count
                if await self._settled(app_id, revision_id):
                    return
                for runner in self._fleet.of_app(app_id):
                    if runner.revision_id == revision_id:
                        await self._show(runner)
                await self._catalog.changed.wait(seen, _LOOK_SECONDS)
        finally:
            for tail in self._tails.values():
                tail.cancel()
            await asyncio.gather(*self._tails.values(), return_exceptions=True)

    async def _settled(self, app_id: AppId, revision_id: str) -> bool:
        app = self._catalog.get(app_id)
        if app is None:
            raise NotFound(f"app {str(app_id)!r}", f"it was deleted while it moved to revision {revision_id}")
        if app.revision_id == revision_id:
            return True
        if app.next_revision_id == revision_id:
            return False
        why = self._catalog.why_abandoned(revision_id)
        if why is None:
            raise Aborted(f"a newer change of app {str(app_id)!r} replaced revision {revision_id}")
        if self._tails:
            # The stream of a failed runner ends by itself after its last line.
            await asyncio.wait(self._tails.values(), timeout=_LAST_LINES_SECONDS)
        failed = self._fleet.failures(app_id, revision_id).runner_id
        hint = f". `fal runners logs {failed}` shows what it wrote" if failed else ""
        raise FailedPrecondition(
            f"revision {revision_id} did not become ready, so app {str(app_id)!r} stays on revision {app.revision_id}: "
            f"{why}{hint}"
        )

    async def _show(self, runner: Runner) -> None:
        if runner.state in NO_PROCESS and runner.reason and runner.reason not in self._shown:
            self._shown.add(runner.reason)
            await self._log(
                LogEntry(
                    runner_id=runner.runner_id,
                    sequence=0,
                    timestamp=self._clock.now(),
                    level=LogLevel.INFO,
                    source=LogSource.SYSTEM,
                    message=f"runner {runner.runner_id} is {runner.state}: {runner.reason}",
                    account=runner.account,
                    app_name=runner.app_name,
                    revision_id=runner.revision_id,
                )
            )
        if self._logs is not None and runner.runner_id not in self._tails:
            tail = asyncio.get_running_loop().create_task(self._tail(self._logs, runner.runner_id))
            self._tails[runner.runner_id] = tail

    async def _tail(self, logs: Logs, runner_id: str) -> None:
        try:
            async with aclosing(logs.follow(self._scope, LogQuery(runner_id=runner_id))) as batches:
                async for batch in batches:
                    for entry in batch.entries:
                        await self._log(entry)
        except Fault as fault:
            await self._log(
                LogEntry(
                    runner_id=runner_id,
                    sequence=0,
                    timestamp=self._clock.now(),
                    level=LogLevel.WARNING,
                    source=LogSource.SYSTEM,
                    message=f"the runner's log cannot be shown: {fault.message}",
                )
            )

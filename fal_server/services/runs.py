"""Ephemeral runs: one runner for one call, and another if it breaks."""

from __future__ import annotations

import re
import secrets
import uuid
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import replace
from functools import partial

from fal_server.aio.tasks import run_to_completion
from fal_server.core import names
from fal_server.core.apps import App, AuthMode
from fal_server.core.failures import FOUND_BROKEN
from fal_server.core.faults import Fault
from fal_server.core.identity import AppId, Scope
from fal_server.core.logs import LogEntry, LogQuery
from fal_server.core.revisions import Revision
from fal_server.core.runners import Runner
from fal_server.live.catalog import Catalog, existing_environment
from fal_server.live.events import ChangeNotifier
from fal_server.live.fleet import Fleet
from fal_server.ports import Clock, Engine, RunResult, Store
from fal_server.services.deploys import Deploys, streamed
from fal_server.services.logs import Logs
from fal_server.services.views import CodeRequest, RunEnded, RunStarted, Urls


class Runs:
    """The use case of `fal run`. It builds, starts one runner, returns its logs and result, and ends it.

    Args:
        changed: notified by the fleet at every change.
    """

    def __init__(
        self,
        store: Store,
        catalog: Catalog,
        fleet: Fleet,
        deploys: Deploys,
        engine: Engine,
        logs: Logs,
        clock: Clock,
        changed: ChangeNotifier,
        urls: Callable[[AppId], Urls],
    ) -> None:
        self._store = store
        self._catalog = catalog
        self._fleet = fleet
        self._deploys = deploys
        self._engine = engine
        self._logs = logs
        self._clock = clock
        self._changed = changed
        self._urls = urls

    async def run(self, scope: Scope, code: CodeRequest) -> AsyncGenerator[LogEntry | RunStarted | RunEnded, None]:
        """Run code once; closing the iterator ends the runner.

        Yields the build's log, RunStarted, the runner's log, and finally RunEnded.

        Raises:
            InvalidArgument, Unimplemented, FailedPrecondition: see Deploys.deploy; nothing was started.
        """
        environment = await existing_environment(self._store, scope.account, code.environment_name)
        scaling = self._deploys.scaling_of(code.scaling)
        run_id = str(uuid.uuid4())
        label = re.sub(r"[^A-Za-z0-9_]+", "-", code.application_name)[:60].strip("-_") or "run"
        name = names.app_name(f"{label}-{run_id[:8]}", environment)
        env_id = ""
        async with aclosing(streamed(partial(self._deploys.built, code))) as events:
            async for event in events:
                if isinstance(event, LogEntry):
                    yield event
                else:
                    env_id = event.env_id
        revision = await self._deploys.revision(scope.account, code, name, environment, scaling)
        now = self._clock.now()
        app = App(
            account=scope.account,
            name=name,
            environment=environment,
            revision_id=revision.revision_id,
            auth_mode=code.auth_mode or AuthMode.PUBLIC,
            scaling=scaling,
            created_at=now,
            updated_at=now,
        )
        first = Runner(
            account=scope.account,
            runner_id=run_id,
            app_name=name,
            environment=environment,
            revision_id=revision.revision_id,
            machine_type=scaling.machine_types[0],
            token=secrets.token_urlsafe(24),
            created_at=now,
            grace_seconds=revision.termination_grace_seconds,
            ephemeral=True,
            reason="fal run",
        )
        self._catalog.add_ephemeral(app, revision)
        current = first
        try:
            while True:
                await self._fleet.add([current])
                if current is first:
                    yield RunStarted(run_id=run_id, urls=self._urls(app.app_id), env_id=env_id)
                query = LogQuery(runner_id=current.runner_id)
                async with aclosing(self._logs.follow(scope, query, None)) as batches:
                    async for batch in batches:
                        for entry in batch.entries:
                            yield entry
                successor = await self._successor(current, revision)
                if successor is None:
                    break
                await run_to_completion(self._engine.release(current.runner_id))
                current = successor
            yield await self._end(run_id, current, revision)
        finally:
            try:
                await self._fleet.stop(current.runner_id, "the call that started it has ended")
                await self._ended(current.runner_id)
            finally:
                # If a second cancellation ended the wait, the reconciler ends and releases the runner.
                self._catalog.drop_ephemeral(app)
                if self._fleet.get(current.runner_id) is None:
                    # Release it only now, because its result had to be read first.
                    await run_to_completion(self._engine.release(current.runner_id))

    async def _successor(self, runner: Runner, revision: Revision) -> Runner | None:
        """Return the successor of a runner that a request found broken. None if the run is over."""
        ended = await self._fleet.find(runner.account, runner.runner_id)
        if not revision.serves_http or ended is None or ended.stop_cause not in FOUND_BROKEN:
            return None
        return replace(
            runner, runner_id=str(uuid.uuid4()), token=secrets.token_urlsafe(24), created_at=self._clock.now()
        )

    async def _end(self, run_id: str, runner: Runner, revision: Revision) -> RunEnded:
        """Return how a run ended, by its last runner."""
        ended = await self._fleet.find(runner.account, runner.runner_id) or runner
        result: RunResult | None = None
        reason = ended.reason
        if ended.started_at is not None:
            try:
                result = await self._engine.result(ended)
            except Fault as fault:
                reason = ended.reason or fault.message
        if result is not None and result.raised and revision.serves_http:
            result = None  # a server that raised has failed; that is not a result
        return RunEnded(run_id=run_id, result=result, reason=reason)

    async def _ended(self, runner_id: str) -> None:
        """Wait until the runner has ended. A second cancellation stops the wait, not the end."""
        seen = self._changed.count
        while self._fleet.get(runner_id) is not None:
            seen = await self._changed.wait(seen)

"""Builds the loops of the controller."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

from fal_server.aio.rounds import every
from fal_server.composition.execution import Execution
from fal_server.composition.files import FileServices
from fal_server.composition.live import LiveState
from fal_server.composition.nodes import JoinedNodes
from fal_server.composition.settings import Settings
from fal_server.composition.storage import Storage
from fal_server.composition.use_cases import UseCases
from fal_server.core.accounts import KnownAccounts
from fal_server.core.identity import AccountId
from fal_server.core.places import Reserve
from fal_server.core.queue import QueuedRequest
from fal_server.core.workflows import WorkflowRun
from fal_server.http.gateway.health_client import HttpHealthProber
from fal_server.http.gateway.runner_client import HttpRunnerClient
from fal_server.http.outbound.drain_formats import written
from fal_server.loops.abandoned_requests import AbandonedRequests
from fal_server.loops.drains import DrainLoop
from fal_server.loops.health import HealthLoop
from fal_server.loops.key_expiry import KeyExpiry
from fal_server.loops.log_sealer import LogSealer
from fal_server.loops.loop_lag import LoopLag
from fal_server.loops.notices import NoticeLoop
from fal_server.loops.queue import QueueWorker
from fal_server.loops.reaper import Reaper
from fal_server.loops.reconciler import Reconciler
from fal_server.loops.resources import ResourceLoop
from fal_server.loops.webhooks import WebhookSender
from fal_server.ports import Clock
from fal_server.services.account_removal import AccountRemoval
from fal_server.services.adoption import Adoption
from fal_server.services.attempts import AttemptRunner
from fal_server.services.draining import Draining
from fal_server.services.launch_spec import LaunchSpecs
from fal_server.services.request_recording import EVERY_SECONDS, RequestRecording
from fal_server.services.retention import Retention
from fal_server.services.span_export import SpanExport

if TYPE_CHECKING:
    from fal_server.composition.tls import Certificates

# docs/reference/queue.md promises that results of queued requests are kept this long.
RESULT_HOURS = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Loops:
    """Every loop of the controller."""

    reconciler: Reconciler
    health: HealthLoop
    queue: QueueWorker
    webhooks: WebhookSender[QueuedRequest]
    run_webhooks: WebhookSender[WorkflowRun]
    reaper: Reaper
    log_sealer: LogSealer
    key_expiry: KeyExpiry
    abandoned_requests: AbandonedRequests
    adoption: Adoption
    nodes: JoinedNodes
    resources: ResourceLoop
    recording: RequestRecording
    removal: AccountRemoval
    drains: DrainLoop
    notices: NoticeLoop
    spans: SpanExport | None
    loop_lag: LoopLag
    certificates: Certificates | None

    def start(self, tasks: asyncio.TaskGroup, stopping: asyncio.Event) -> list[asyncio.Task[None]]:
        """Start every loop.

        Args:
            stopping: when it is set, the loops that watch it end by themselves.

        Returns:
            The loops that run until they are cancelled.
        """
        tasks.create_task(self.reaper.run(stopping))
        tasks.create_task(self.log_sealer.run(stopping))
        tasks.create_task(self.key_expiry.run(stopping))
        tasks.create_task(self.resources.run(stopping))
        tasks.create_task(self._record_requests(stopping))
        tasks.create_task(self.loop_lag.run(stopping))
        if self.certificates is not None:
            tasks.create_task(self.certificates.run(stopping))
        tasks.create_task(self.queue.run(stopping))
        tasks.create_task(self.webhooks.run(stopping))
        tasks.create_task(self.run_webhooks.run(stopping))
        tasks.create_task(self.drains.run(stopping))
        tasks.create_task(self.notices.run(stopping))
        if self.spans is not None:
            tasks.create_task(self.spans.run(stopping))
        endless = (
            self._plan(),
            self.reconciler.watch(),
            self.health.run(),
            self.abandoned_requests.run(),
            self.removal.run(),
        )
        return [tasks.create_task(loop) for loop in endless]

    async def _plan(self) -> None:
        await self.adoption.run()
        self.nodes.adopted()
        await self.reconciler.run()

    async def _record_requests(self, stopping: asyncio.Event) -> None:
        await every("storing requests that have ended", EVERY_SECONDS, self.recording.store).run_until(stopping)
        await self.recording.store()


def build_loops(
    *,
    settings: Settings,
    storage: Storage,
    live: LiveState,
    execution: Execution,
    files: FileServices,
    use_cases: UseCases,
    variables: Callable[[AccountId], Mapping[str, str]],
    certificates: Certificates | None,
    clock: Clock,
    accounts: KnownAccounts,
    reserve: Reserve,
) -> Loops:
    """Build the loops; none runs yet.

    Args:
        variables: returns the variables of every runner of an account.
        accounts: with their quotas, which say how many runners each may have.
        reserve: decides where runners start.
    """
    store, queue = storage.store, use_cases.queue
    launch_specs = LaunchSpecs(
        live.catalog,
        use_cases.secrets.reveal_for,
        variables,
        settings.machine_types,
        files.tokens.runners.key_of,
    )
    unused = Retention(
        store,
        live.catalog,
        live.fleet,
        storage.content.blobs,
        storage.content.app_files,
        (execution.virtualenvs, execution.images),
        clock,
        settings.unused_life,
    )
    exports_spans = use_cases.spans is not None
    client = HttpRunnerClient(execution.nodes.way, lifecycle=files.objects.lifecycle, exports_spans=exports_spans)
    attempts = AttemptRunner(
        queue,
        store.queue,
        live.dispatcher,
        live.catalog,
        live.fleet,
        client,
        use_cases.cancellations,
        clock,
        exports_spans=exports_spans,
    )
    abandoned_requests = AbandonedRequests(live.catalog, live.fleet, live.dispatcher, execution.engine, clock)
    adoption = Adoption(
        live.fleet, execution.engine, hold=abandoned_requests.hold, first_word=execution.nodes.first_word
    )
    retention = timedelta(days=settings.retention_days)
    results = timedelta(hours=RESULT_HOURS)
    return Loops(
        reconciler=Reconciler(
            live.catalog,
            live.fleet,
            live.dispatcher,
            launch_specs,
            execution.engine,
            clock,
            live.changed,
            live.decisions,
            accounts.quotas,
            reserve,
        ),
        health=HealthLoop(
            live.health, live.catalog, live.fleet, HttpHealthProber(execution.nodes.door), clock, live.changed
        ),
        queue=QueueWorker(
            queue,
            live.backlog,
            attempts,
            live.catalog,
            store.queue,
            clock,
            retention=results,
            dead_retention=max(results, retention),
        ),
        webhooks=WebhookSender(use_cases.webhooks, queue.webhook_due),
        run_webhooks=WebhookSender(use_cases.run_webhooks, use_cases.workflow_runs.webhook_due),
        reaper=Reaper(
            store,
            store.logs,
            clock,
            retention,
            {
                "expired files": files.objects.forget,
                "old runs of workflows": partial(use_cases.workflow_runs.forget, results),
                "old requests of the history": partial(
                    use_cases.requests.forget, timedelta(days=settings.request_history_days)
                ),
            },
            unused,
            settings.log_bytes,
        ),
        log_sealer=LogSealer(store.logs, clock),
        key_expiry=KeyExpiry(use_cases.access),
        abandoned_requests=abandoned_requests,
        adoption=adoption,
        nodes=execution.nodes,
        resources=ResourceLoop(live.fleet, execution.engine, live.resources, clock),
        recording=use_cases.recording,
        removal=use_cases.removal,
        drains=DrainLoop(
            use_cases.drains,
            live.unsent_lines,
            lambda drain, behind: Draining(
                drain, behind, use_cases.drains, store.drains, use_cases.outbound, written, accounts, clock
            ),
        ),
        notices=NoticeLoop(use_cases.notices, store.notices, use_cases.conditions, clock),
        spans=use_cases.spans,
        loop_lag=live.loop_lag,
        certificates=certificates,
    )

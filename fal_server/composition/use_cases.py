"""The use cases that gRPC and HTTP call."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import ip_network
from typing import TYPE_CHECKING

from fal_grpc import VERSION
from fal_server.access.acting import Teams
from fal_server.access.audit import Recorder
from fal_server.access.authentication import Authenticator
from fal_server.composition.addresses import Addresses
from fal_server.composition.execution import Execution
from fal_server.composition.files import FileServices
from fal_server.composition.live import LiveState
from fal_server.composition.machine_health import MachineHealth
from fal_server.composition.settings import Settings
from fal_server.composition.state import StateDir
from fal_server.composition.storage import Storage
from fal_server.core.identity import AccountId
from fal_server.http.gateway.metrics_client import HttpMetricsReader
from fal_server.http.gateway.runner_client import HttpRunnerClient
from fal_server.http.outbound.client import HttpOutboundClient
from fal_server.http.outbound.destinations import Destinations
from fal_server.http.outbound.mail import SmtpMailClient
from fal_server.http.outbound.span_format import CONTENT_TYPE, to_otlp
from fal_server.live.delays import Delays
from fal_server.ports import Clock
from fal_server.ports.outbound import OutboundClient
from fal_server.services.account_quotas import AccountQuotas
from fal_server.services.account_removal import AccountRemoval
from fal_server.services.accounts import Accounts
from fal_server.services.analytics import Analytics
from fal_server.services.app_events import AppEvents
from fal_server.services.app_metrics import AppMetrics
from fal_server.services.apps import Apps
from fal_server.services.audit import Audit
from fal_server.services.cancellations import Cancellations
from fal_server.services.conditions import Conditions
from fal_server.services.deploy_plans import DeployPlans
from fal_server.services.deploys import Deploys
from fal_server.services.drains import Drains
from fal_server.services.environments import Environments
from fal_server.services.execs import Execs
from fal_server.services.explain import Explainer
from fal_server.services.gpus import Gpus
from fal_server.services.keys import Keys
from fal_server.services.log_bounds import LogBounds
from fal_server.services.log_search import LogSearch
from fal_server.services.logs import Logs
from fal_server.services.metrics import ControllerMetrics, Metrics
from fal_server.services.nodes import Nodes
from fal_server.services.notices import Notices
from fal_server.services.queue import Queue
from fal_server.services.request_payloads import RequestPayloads
from fal_server.services.request_recording import RequestRecording
from fal_server.services.requests import Requests
from fal_server.services.revisions import Revisions
from fal_server.services.runners import Runners
from fal_server.services.runs import Runs
from fal_server.services.secrets import Secrets
from fal_server.services.span_export import SpanExport
from fal_server.services.webhooks import RunWebhooks, SignedCalls, Webhooks
from fal_server.services.workflow_runs import WorkflowRuns
from fal_server.services.workflows import Workflows
from fal_server.store.files.durable import remove_tree

if TYPE_CHECKING:
    from fal_server.composition.tls import Certificates


@dataclass(frozen=True, slots=True, kw_only=True)
class UseCases:
    """One service for each noun.

    Attributes:
        outbound: calls addresses that callers gave.
    """

    access: Authenticator
    analytics: Analytics
    teams: Teams
    recorder: Recorder
    audit: Audit
    accounts: Accounts
    removal: AccountRemoval
    quotas: AccountQuotas
    apps: Apps
    app_events: AppEvents
    cancellations: Cancellations
    deploys: Deploys
    deploy_plans: DeployPlans
    drains: Drains
    notices: Notices
    conditions: Conditions
    environments: Environments
    execs: Execs
    explainer: Explainer
    gpus: Gpus
    keys: Keys
    logs: Logs
    log_search: LogSearch
    nodes: Nodes
    outbound: OutboundClient
    queue: Queue
    metrics: Metrics
    recording: RequestRecording
    payloads: RequestPayloads
    spans: SpanExport | None
    requests: Requests
    revisions: Revisions
    runners: Runners
    runs: Runs
    secrets: Secrets
    webhooks: Webhooks
    run_webhooks: RunWebhooks
    workflows: Workflows
    workflow_runs: WorkflowRuns


async def build_use_cases(
    *,
    state: StateDir,
    settings: Settings,
    storage: Storage,
    live: LiveState,
    logs: Logs,
    log_bounds: LogBounds,
    execution: Execution,
    files: FileServices,
    addresses: Addresses,
    certificates: Certificates | None,
    clock: Clock,
    variables: Callable[[AccountId], Mapping[str, str]],
    stack: AsyncExitStack,
) -> UseCases:
    """Build the use cases; the stack closes the client of outbound calls.

    Args:
        files: its tokens are keys of runners.
        variables: returns the variables of every runner of an account.
    """
    store, catalog, fleet, dispatcher, changed = (
        storage.store,
        live.catalog,
        live.fleet,
        live.dispatcher,
        live.changed,
    )
    access = Authenticator(store, clock, files.tokens.runners)
    keys = Keys(store, clock, access)
    recorder = Recorder(store.audit, clock, storage.master_key)
    teams = Teams(store.accounts, addresses.accounts, files.tokens, access)
    machine_types = settings.machine_types
    apps = Apps(catalog, fleet, dispatcher, clock, machine_types)
    deploys = Deploys(
        store,
        catalog,
        apps,
        execution.builder,
        storage.content.blobs,
        clock,
        addresses.of_app,
        logs=logs,
        files=storage.content.app_files,
        nodes=execution.engine.nodes,
        machine_types=machine_types,
        expect=execution.expecting(variables) if settings.engine == "local" else None,
    )
    destinations = Destinations(settings.webhook_allow)
    outbound = HttpOutboundClient(destinations)
    stack.push_async_callback(outbound.close)
    mail = SmtpMailClient(destinations)
    stack.push_async_callback(mail.close)
    calls = SignedCalls(outbound, await store.webhook_signer(), clock, addresses.accounts)
    drains = Drains(store.drains, live.unsent_lines, storage.vault, clock, client=outbound, catalog=catalog)
    notices = Notices(store.notices, storage.vault, outbound, mail, addresses.accounts, clock)
    delays = Delays(catalog, live.fleet, clock)
    queue = Queue(
        store.queue, live.backlog, catalog, store.logs, clock, changed, delays, live.ended, addresses.accounts.quotas
    )
    spans: SpanExport | None = None
    if settings.traces is not None:
        # The operator names the receiver, which usually is on this machine.
        receiver = HttpOutboundClient(Destinations([ip_network("0.0.0.0/0"), ip_network("::/0")]))
        stack.push_async_callback(receiver.close)
        spans = SpanExport(
            settings.traces,
            receiver,
            lambda found: (CONTENT_TYPE, to_otlp(found, VERSION)),
            addresses.accounts,
        )
    payloads = RequestPayloads(
        live.payloads if settings.request_payloads else None, store.requests, clock, settings.request_sample
    )
    recording = RequestRecording(
        live.ended,
        store.requests,
        catalog,
        clock,
        settings.request_sample,
        totals=live.totals,
        traced=None if spans is None else spans.add,
        payloads=payloads,
        fleet=fleet,
    )
    workflows = Workflows(store.workflows, clock)
    accounts = Accounts(store.accounts, addresses.accounts, teams, keys, clock)
    requests = Requests(store.requests, recording, catalog, clock)
    workflow_runs = WorkflowRuns(store.workflows, workflows, queue, dispatcher, clock)
    removal = AccountRemoval(
        store,
        store.accounts,
        accounts,
        access,
        catalog,
        fleet,
        dispatcher,
        queue,
        workflow_runs,
        drains,
        notices,
        recording,
        execution.engine,
        storage.content.blobs,
        (execution.virtualenvs, execution.images),
        storage.content.objects,
        lambda account: _remove_files(state, storage, execution, account),
        changed,
    )
    return UseCases(
        access=access,
        analytics=Analytics(requests, store.requests, store, catalog, clock),
        teams=teams,
        recorder=recorder,
        audit=Audit(store.audit, recorder),
        accounts=accounts,
        removal=removal,
        quotas=AccountQuotas(store.accounts, addresses.accounts, accounts, live.backlog, fleet, log_bounds, files.data),
        apps=apps,
        app_events=AppEvents(store, store.audit, catalog, clock),
        cancellations=Cancellations(catalog, HttpRunnerClient(execution.nodes.door)),
        deploys=deploys,
        deploy_plans=DeployPlans(store, catalog, fleet, dispatcher, deploys, execution.builder, clock),
        drains=drains,
        notices=notices,
        conditions=Conditions(
            catalog, fleet, dispatcher, live.totals, MachineHealth(state.root, certificates, execution.nodes), clock
        ),
        environments=Environments(store, clock),
        execs=Execs(fleet, execution.engine),
        explainer=Explainer(catalog, fleet, dispatcher, apps, live.decisions, execution.engine.nodes),
        gpus=Gpus(fleet, catalog, machine_types),
        keys=keys,
        logs=logs,
        log_search=LogSearch(logs, catalog),
        nodes=Nodes(fleet, execution.engine.nodes, machine_types),
        outbound=outbound,
        queue=queue,
        metrics=Metrics(
            catalog,
            live.fleet,
            dispatcher,
            live.resources,
            live.totals,
            recording,
            clock,
            lambda scope: addresses.accounts.of(scope.account).nickname,
            ControllerMetrics(
                VERSION,
                {
                    "fal_controller_event_loop_lag_seconds": (
                        "How late the event loop was for what was due",
                        lambda: live.loop_lag.lags,
                    ),
                    "fal_controller_store_write_seconds": (
                        "How long groups of writes to the database took",
                        lambda: store.write_durations,
                    ),
                    "fal_controller_log_lag_seconds": (
                        "How long after it was written a log line was stored",
                        lambda: logs.lags,
                    ),
                },
                live.ended,
                recording,
                spans,
            ),
            drains,
            AppMetrics(live.fleet, HttpMetricsReader(execution.nodes.door)),
        ),
        recording=recording,
        payloads=payloads,
        spans=spans,
        requests=requests,
        revisions=Revisions(store, catalog, fleet),
        runners=Runners(catalog, fleet, dispatcher, execution.engine, clock, live.resources),
        runs=Runs(store, catalog, fleet, deploys, execution.engine, logs, clock, changed, addresses.of_app),
        secrets=Secrets(store, storage.vault, clock),
        webhooks=Webhooks(store.queue, calls, clock),
        run_webhooks=RunWebhooks(store.workflows, calls, clock),
        workflows=workflows,
        workflow_runs=workflow_runs,
    )


def _remove_files(state: StateDir, storage: Storage, execution: Execution, account: AccountId) -> None:
    """Delete the files of an account's apps, and its own directories. The first account has none.

    Raises:
        Unavailable: something in them cannot be deleted.
    """
    storage.content.app_files.of(account).forget((), datetime.max.replace(tzinfo=UTC))  # whatever a bucket's clock says
    cache = execution.virtualenvs.cache_of(account)
    shared = state.content / "accounts" / account
    for directory in (state.account(account), shared, execution.host.sandboxes.home_of(account), cache):
        remove_tree(directory)

"""The composition root: builds the adapters, starts the loops in one TaskGroup, stops everything in order."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from importlib.metadata import version

import psutil
from starlette.routing import BaseRoute, Route

from fal_server.access.authentication import Access
from fal_server.builders import Builders, ContainerBuilder, VirtualenvBuilder
from fal_server.composition.files import FileServices
from fal_server.composition.options import LOOPBACK
from fal_server.composition.settings import Settings
from fal_server.composition.shutdown import Shutdown
from fal_server.composition.state import Running, StateDir, boot_id, started_ticks, write_private
from fal_server.composition.tls import Certificates
from fal_server.core.faults import Fault, Unavailable
from fal_server.core.machines import Node, Resources
from fal_server.engines.local import LocalEngine
from fal_server.grpc.interfaces import Services
from fal_server.grpc.server import GrpcServer
from fal_server.http.gateway.gateway import Gateway
from fal_server.http.gateway.health_client import HttpHealthProber
from fal_server.http.gateway.runner_client import HttpRunnerClient
from fal_server.http.outbound.webhook_client import HttpWebhookClient
from fal_server.http.routes.queue import QueueRoutes
from fal_server.http.routes.queue_admin import QueueAdminRoutes
from fal_server.http.routes.rest import Rest
from fal_server.http.routes.router import Router
from fal_server.http.server.asgi import AsgiAdapter
from fal_server.http.server.listener import Listener
from fal_server.live.backlog import Backlog
from fal_server.live.catalog import Catalog
from fal_server.live.decisions import Decisions
from fal_server.live.dispatch import Dispatcher
from fal_server.live.events import ChangeNotifier
from fal_server.live.fleet import Fleet
from fal_server.live.health import Health
from fal_server.loops.health import HealthLoop
from fal_server.loops.queue import QueueWorker
from fal_server.loops.reaper import Reaper
from fal_server.loops.reconciler import Reconciler
from fal_server.loops.webhooks import WebhookSender
from fal_server.services.adoption import reattach
from fal_server.services.apps import Apps
from fal_server.services.attempts import AttemptRunner
from fal_server.services.deploys import Deploys
from fal_server.services.environments import Environments
from fal_server.services.execs import Execs
from fal_server.services.explain import Explainer
from fal_server.services.gpus import Gpus
from fal_server.services.keys import Keys
from fal_server.services.launch_spec import Launching
from fal_server.services.logs import Logs
from fal_server.services.queue import Queue
from fal_server.services.reading import ReadLogs, ReadRunners
from fal_server.services.retention import Retention
from fal_server.services.revisions import Revisions
from fal_server.services.runners import Runners
from fal_server.services.runs import Runs
from fal_server.services.secrets import Secrets
from fal_server.services.views import Urls
from fal_server.services.webhooks import Webhooks
from fal_server.store.crypto.master_key import load_master_key
from fal_server.store.crypto.vault import AesVault
from fal_server.store.files.blobs import FileBlobs
from fal_server.store.sql.opening import open_store
from fal_server.store.sql.store import SqlStore

log = logging.getLogger(__name__)
# Results of queued requests are kept for so long; docs/reference/queue.md promises it.
RESULT_HOURS = 24
FIRST_KEY = "made by the first start of this controller"


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """The current moment in UTC."""
        return datetime.now(UTC)


class Controller:
    """A whole controller on one state directory, whose lock the caller holds."""

    def __init__(self, state: StateDir, settings: Settings) -> None:
        self._state = state
        self._settings = settings
        self._clock = SystemClock()
        self._keep_runners = False
        self._running: Running | None = None

    def announcement(self) -> str:
        """One line of JSON: where the controller answers."""
        return json.dumps(asdict(self._listening())) + "\n"

    def keep_runners(self) -> None:
        """The stop that is to come leaves runners serving, for the next controller to adopt."""
        self._keep_runners = True

    def end_at_once(self) -> None:
        """Wait for nothing any more: requests are cut off, runners are killed."""
        self._stop_order.end_at_once()

    async def run(self, stop: asyncio.Event, ready: Callable[[], None]) -> None:
        """Start, call `ready` when requests are answered, serve until `stop` is set, stop in order.

        Raises:
            Unavailable: the database, the master key or a port cannot be had; nothing was started.
        """
        async with AsyncExitStack() as stack:
            await self._build(stack)
            self._stop_order = self._stopping()
            log.info("listening on %s", self._base)
            ready()
            stopping = asyncio.Event()
            async with asyncio.TaskGroup() as tasks:
                loops = [tasks.create_task(self._reconciler.run()), tasks.create_task(self._reconciler.watch())]
                loops.append(tasks.create_task(self._health_loop.run()))
                tasks.create_task(self._reaper.run(stopping))
                tasks.create_task(self._files.run(stopping))
                if self._certificates is not None:
                    tasks.create_task(self._certificates.run(stopping))
                tasks.create_task(self._queue_worker.run(stopping))
                tasks.create_task(self._webhook_sender.run(stopping))
                await stop.wait()
                self._tell_waiting("what is under way")
                await self._stop_order.run(keep_runners=self._keep_runners)
                stopping.set()
                for loop in loops:
                    loop.cancel()
            self._state.withdraw()

    async def _build(self, stack: AsyncExitStack) -> None:
        state, clock, settings = self._state, self._clock, self._settings
        self._certificates = Certificates(state.tls, settings.tls, clock.now) if settings.tls else None
        master_key = load_master_key(state.root, os.environ)
        vault = AesVault(master_key)
        store = await open_store(settings.database or state.database, vault)
        stack.push_async_callback(store.close)
        log_store = store.logs
        blobs = FileBlobs(state.blobs)
        changed = ChangeNotifier()

        access = Access(store, clock)
        keys = Keys(store, clock, access)
        secrets = Secrets(store, vault, clock)
        logs = Logs(log_store, store, clock)
        catalog = Catalog(store, changed)
        health = Health(catalog)
        fleet = Fleet(store, clock, changed, health)
        backlog = Backlog(clock)
        last, shims, workers = log_store.last_sequence, settings.warm_shims, settings.warm_workers
        node, sink = self._node(), logs.ingest
        engine = LocalEngine(
            state.runners, node=node, sink=sink, last_sequence=last, warm_shims=shims, warm_workers=workers
        )
        stack.push_async_callback(engine.close)
        dispatcher = Dispatcher(catalog, fleet, backlog, clock, changed, settings.account.nickname)
        fleet.subscribe(ended=lambda runner: logs.runner_ended(runner.runner_id))
        self._files = files = FileServices(
            state, store, clock, master_key, lambda runner: fleet.get(runner) is not None, settings.file_life
        )
        deployed, runner_key = files.app_files, files.tokens.runner_key
        # With trust in the own authority: requirements may be files that were uploaded to this controller.
        virtualenvs = VirtualenvBuilder(state.environments, state.cache, {**os.environ, **self._trust()})
        images = ContainerBuilder(state.environments / "images", deployed, os.environ)
        builder = Builders(virtualenvs, images)
        launching = Launching(catalog, builder, blobs, secrets.reveal_for, self._variables, deployed, runner_key)
        apps = Apps(catalog, fleet, dispatcher, clock)
        decisions = Decisions(clock)
        deploys = Deploys(store, catalog, apps, builder, blobs, clock, self._urls, logs=logs, files=deployed)
        runs = Runs(store, catalog, fleet, deploys, engine, logs, clock, changed, self._urls)
        runners = Runners(catalog, fleet, dispatcher, engine, clock)

        self._fleet, self._dispatcher, self._engine, self._changed = fleet, dispatcher, engine, changed
        self._reconciler = Reconciler(catalog, fleet, dispatcher, launching, engine, clock, changed, decisions)
        self._health_loop = HealthLoop(health, catalog, fleet, HttpHealthProber(), clock, changed)
        life, built = settings.unused_life, (virtualenvs, images)
        unused = Retention(store, catalog, fleet, blobs, deployed, built, clock, life)
        self._reaper = Reaper(store, log_store, clock, timedelta(days=settings.retention_days), unused)

        queue_routes = await self._build_queue(stack, store, catalog, backlog, dispatcher, access)
        await catalog.load()
        await fleet.load()
        await self._queue.load()
        await reattach(fleet, engine)
        await self._make_admin_key(keys)
        environments = Environments(store, clock)
        await environments.bootstrap()
        self._grpc = GrpcServer(
            Services(
                access=access,
                apps=apps,
                insight=Explainer(catalog, fleet, dispatcher, apps, decisions),
                revisions=Revisions(store, catalog, fleet),
                deploys=deploys,
                runs=runs,
                runners=runners,
                execs=Execs(fleet, engine),
                keys=keys,
                secrets=secrets,
                environments=environments,
                logs=logs,
            )
        )
        # Plaintext, so on loopback wherever the other port is.
        grpc_port = await self._grpc.start(unix_socket=state.grpc_socket, host=LOOPBACK, port=settings.grpc_port)
        stack.push_async_callback(self._grpc.stop, 0)
        await files.listen(stack, access, lambda: self._url)
        gateway = Gateway(dispatcher, access, tokens=files.tokens)
        routes = [*queue_routes, *files.routes(access, settings.account, Gpus(fleet, catalog), lambda: self._url)]
        port = await self._open_door(stack, gateway, access, runners, logs, routes)
        self._running = Running(
            pid=os.getpid(),
            started_ticks=started_ticks(),
            boot_id=boot_id(),
            host=settings.host,
            port=port,
            grpc_port=grpc_port,
            version=version("fal-grpc"),
            tls=settings.tls is not None,
            local_authority=self._certificates is not None and self._certificates.ca_file is not None,
        )
        state.announce(self._running)

    async def _build_queue(
        self,
        stack: AsyncExitStack,
        store: SqlStore,
        catalog: Catalog,
        backlog: Backlog,
        dispatcher: Dispatcher,
        access: Access,
    ) -> list[Route]:
        clock, settings = self._clock, self._settings
        webhook_client = HttpWebhookClient()
        stack.push_async_callback(webhook_client.close)
        signer = await store.webhook_signer()
        self._queue = queue = Queue(store.queue, backlog, catalog, store.logs, clock, self._changed)
        carrier = AttemptRunner(queue, store.queue, dispatcher, catalog, HttpRunnerClient(), clock)
        webhooks = Webhooks(store.queue, webhook_client, signer, clock, settings.account.user_id)
        self._queue_worker = QueueWorker(
            queue,
            backlog,
            carrier,
            catalog,
            store.queue,
            clock,
            retention=timedelta(hours=RESULT_HOURS),
            dead_retention=max(timedelta(hours=RESULT_HOURS), timedelta(days=settings.retention_days)),
        )
        self._webhook_sender = WebhookSender(webhooks, queue.webhook_due)
        admin = QueueAdminRoutes(queue, access, settings.account, webhooks.key_set)
        return [*QueueRoutes(queue, dispatcher, access).routes, *admin.routes]

    async def _open_door(
        self,
        stack: AsyncExitStack,
        gateway: Gateway,
        access: Access,
        runners: Runners,
        logs: Logs,
        more: list[BaseRoute],
    ) -> int:
        rest = Rest(
            access=access,
            account=self._settings.account,
            runners=ReadRunners(runners),
            logs=ReadLogs(logs),
            version=version("fal-grpc"),
            more=more,
        )
        bridge = AsgiAdapter(rest.app)
        context = self._certificates.context if self._certificates else None
        door = Listener(Router(gateway, bridge), f"unix:{self._state.grpc_socket}", tls=context)
        try:
            port = await door.start(self._settings.host, self._settings.port)
        except OSError as error:
            address = f"{self._settings.host}:{self._settings.port}"
            raise Unavailable(
                f"{address} cannot be listened on: {error.strerror}; --port 0 picks a free one"
            ) from error
        stack.push_async_callback(bridge.close)
        stack.push_async_callback(gateway.close)
        stack.push_async_callback(door.close, 0)
        self._door = door
        return port

    async def _make_admin_key(self, keys: Keys) -> None:
        """The first key, in a file of the state directory; made anew where the file is damaged."""
        path = self._state.admin_key
        try:
            written = path.read_text(errors="replace")
        except FileNotFoundError:
            written = None
        except OSError as error:
            raise Unavailable(f"{path} cannot be read: {error.strerror}") from error
        text = await keys.replacement_for(written, FIRST_KEY)
        if text is not None:
            if written is not None:
                log.warning("what %s held is no key of this controller: another one is written there", path)
            write_private(path, f"{text}\n")

    def _stopping(self) -> Shutdown:
        return Shutdown(
            door=self._door,
            grpc=self._grpc,
            reconciler=self._reconciler,
            queue_worker=self._queue_worker,
            dispatcher=self._dispatcher,
            fleet=self._fleet,
            engine=self._engine,
            changed=self._changed,
            drain_seconds=self._settings.drain_seconds,
            tell=self._tell_waiting,
        )

    def _tell_waiting(self, words: str) -> None:
        """Say what the stop waits for: in the log, and to `fal down`, which reads what was announced."""
        log.info("waiting for %s; a second signal ends at once", words)
        try:
            self._state.announce(replace(self._listening(), stopping=words))
        except Fault as fault:
            log.warning("%s", fault.message)

    def _listening(self) -> Running:
        if self._running is None:
            raise Unavailable("the controller does not listen yet")
        return self._running

    @property
    def _base(self) -> str:
        return self._settings.address(self._listening().port)

    @property
    def _url(self) -> str:
        return f"{'http' if self._certificates is None else 'https'}://{self._base}"

    def _urls(self, app_name: str) -> Urls:
        path = f"{self._base}/{self._settings.account.nickname}/{app_name}"
        queue = f"{self._base}/queue/{self._settings.account.nickname}/{app_name}"
        s = "" if self._certificates is None else "s"
        return Urls(
            playground=f"http{s}://{path}",
            run=f"http{s}://{path}",
            queue=f"http{s}://{queue}",
            ws=f"ws{s}://{path}",
            log="",
        )

    def _variables(self) -> dict[str, str]:
        hosts = {"FAL_RUN_HOST": self._base, "FAL_QUEUE_RUN_HOST": f"{self._base}/queue"}
        return {**self._files.variables(), **self._trust(), **hosts}

    def _trust(self) -> dict[str, str]:
        """What has programs trust the local authority, beside the public ones."""
        bundle = self._certificates.bundle if self._certificates else None
        return {} if bundle is None else {"SSL_CERT_FILE": str(bundle)}

    def _node(self) -> Node:
        return Node(
            name="local",
            total=Resources(
                milli_cpus=(os.cpu_count() or 1) * 1000,
                memory_mib=psutil.virtual_memory().total // (1024 * 1024),
                gpus=dict(self._settings.gpus),
            ),
        )

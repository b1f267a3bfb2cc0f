"""A complete controller. It builds its parts, runs its loops in one TaskGroup, and stops them in order."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import secrets
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from fal_grpc import VERSION
from fal_runner.process.proc import boot_id, own_process
from fal_server.composition.addresses import Addresses, bind_addresses
from fal_server.composition.admin_key import ensure_admin_key
from fal_server.composition.clock import ClockKeeper, open_clock
from fal_server.composition.execution import Execution, build_execution
from fal_server.composition.faces import Faces, open_faces
from fal_server.composition.files import FileServices, build_files, listen_for_runners
from fal_server.composition.isolation import ChosenIsolation, choose_isolation
from fal_server.composition.live import LiveState, build_live
from fal_server.composition.loops import Loops, build_loops
from fal_server.composition.owner import listen_for_owner
from fal_server.composition.ownership import Ownership
from fal_server.composition.ray import build_ray, open_ray
from fal_server.composition.settings import Settings, TlsSettings
from fal_server.composition.shared_secrets import SharedSecrets
from fal_server.composition.shutdown import Shutdown
from fal_server.composition.standby import Standby
from fal_server.composition.state import Running, StateDir
from fal_server.composition.storage import Storage, open_storage
from fal_server.composition.use_cases import build_use_cases
from fal_server.core.faults import Fault
from fal_server.core.identity import LOCAL, AccountId
from fal_server.core.places import first_fit
from fal_server.core.runners import Runner
from fal_server.engines.local import RunnerGroups, end_all
from fal_server.engines.local.machine import few_files
from fal_server.engines.remote.epoch import Epoch
from fal_server.live.unsent_lines import UnsentLines
from fal_server.loops.state_watch import StateWatch
from fal_server.ports import Clock
from fal_server.services.log_bounds import LogBounds
from fal_server.services.logs import Logs

if TYPE_CHECKING:
    from fal_server.composition.tls import Certificates

EXIT_IN_USE = 3
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The parts of a controller that its run and its shutdown need."""

    addresses: Addresses
    live: LiveState
    isolation: ChosenIsolation
    execution: Execution
    loops: Loops
    faces: Faces
    clock_keeper: ClockKeeper
    owner_socket: Path


class Controller:
    """A controller on one state directory, whose lock the caller holds.

    Args:
        start_over: replaces this process by another one with the same options, once another controller has the
            database; it gets the port on which that one is to answer.
    """

    def __init__(self, state: StateDir, settings: Settings, start_over: Callable[[int], None]) -> None:
        self._state = state
        self._settings = settings
        self._start_over = start_over
        self._keep_runners = False
        self._shutdown: Shutdown | None = None

    def keep_runners(self) -> None:
        """Leave runners serving at shutdown, so that the next controller adopts them."""
        self._keep_runners = True

    def end_at_once(self) -> None:
        """Abort requests and kill runners, if the controller is stopping."""
        if self._shutdown is not None:
            self._shutdown.end_at_once()

    async def run(self, stop: asyncio.Event, ready: Callable[[str], None]) -> None:
        """Wait until no other controller has the database, and serve until `stop`. Then stop in order.

        Args:
            ready: called once requests are answered or passed on, with the addresses as one line of JSON.

        Raises:
            Unavailable: the database, the master key or a port is not available; nothing was started.
        """
        async with AsyncExitStack() as stack:
            addresses = await bind_addresses(self._settings)
            for bound in addresses.sockets:
                stack.callback(bound.close)
            ownership: Ownership | None = None
            if self._settings.database is not None:
                standby = Standby(
                    state=self._state, settings=self._settings, addresses=addresses, stack=stack, ready=ready
                )
                ownership = await standby.own(stop, partial(self._lost, stop, addresses.port))
                if ownership is None:
                    self._state.withdraw()
                    return
            parts = await _build(
                state=self._state, settings=self._settings, addresses=addresses, ownership=ownership, stack=stack
            )
            running = self._running(parts)
            self._state.announce(running)
            self._shutdown = self._shutdown_of(parts, running)
            log.info("listening on %s", parts.addresses.base)
            ready(json.dumps(asdict(running)) + "\n")
            stopping = asyncio.Event()
            async with asyncio.TaskGroup() as tasks:
                endless = parts.loops.start(tasks, stopping)
                endless.append(tasks.create_task(parts.execution.prepare_containers()))
                watch = StateWatch(self._state.trouble, parts.faces.router.suspend)
                tasks.create_task(watch.run(stopping))
                tasks.create_task(parts.clock_keeper.run(stopping))
                await stop.wait()
                self._report_waiting(running, "requests in flight")
                await self._shutdown.run(keeps=await self._keeps(parts, ownership))
                stopping.set()
                for loop in endless:
                    loop.cancel()
            self._state.withdraw()

    async def _keeps(self, parts: Parts, ownership: Ownership | None) -> Callable[[Runner], bool]:
        """Return which runners go on. On nodes these include those that a waiting controller takes over."""
        if self._keep_runners:
            return lambda _: True
        successors = () if ownership is None else await ownership.successors()
        if not successors:
            return lambda _: False
        log.info("%s takes over, with the runners on nodes", successors[0])
        nodes = {host.node().name for host in parts.execution.nodes.hosts}
        return lambda runner: runner.node in nodes

    async def _lost(self, stop: asyncio.Event, port: int) -> None:
        """End everything of this controller, because another one has the database."""
        try:
            self._state.withdraw()
            if self._settings.standby and not stop.is_set():
                self._start_over(port)  # which ends its runners, too
            await end_all(self._state.runners, RunnerGroups.detect(self._state.root))
        finally:
            os._exit(EXIT_IN_USE)  # whatever failed, nothing of this process may go on

    def _shutdown_of(self, parts: Parts, running: Running) -> Shutdown:
        return Shutdown(
            listener=parts.faces.listener,
            grpc=parts.faces.grpc,
            reconciler=parts.loops.reconciler,
            queue_worker=parts.loops.queue,
            dispatcher=parts.live.dispatcher,
            fleet=parts.live.fleet,
            engine=parts.execution.engine,
            changed=parts.live.changed,
            silent=parts.execution.nodes.lost,
            drain_seconds=self._settings.drain_seconds,
            report=lambda message: self._report_waiting(running, message),
        )

    def _report_waiting(self, running: Running, message: str) -> None:
        """Report what the shutdown waits for. The log gets it, and `fal down`, which reads the announcement."""
        log.info("waiting for %s; a second signal ends at once", message)
        try:
            self._state.announce(replace(running, stopping=message))
        except Fault as fault:
            log.warning("%s", fault.message)

    def _running(self, parts: Parts) -> Running:
        certificates = parts.loops.certificates
        return Running(
            pid=os.getpid(),
            started_ticks=own_process().started_ticks,
            boot_id=boot_id(),
            inode=self._state.root.stat().st_ino,
            owner_socket=str(parts.owner_socket),
            host=self._settings.host,
            port=parts.addresses.port,
            grpc_port=parts.faces.grpc_port,
            version=VERSION,
            isolation=parts.isolation.line,
            few_files=few_files(),
            shared=[str(each) for each in self._settings.shared],
            tls=parts.addresses.tls,
            local_authority=certificates is not None and certificates.ca_file is not None,
        )


async def _build(
    *, state: StateDir, settings: Settings, addresses: Addresses, ownership: Ownership | None, stack: AsyncExitStack
) -> Parts:
    """Build every part. When this returns, requests are answered, but no loop runs yet."""
    clock = open_clock(state.clock)
    clock_keeper = ClockKeeper(state.clock, clock)
    storage = await open_storage(
        state=state,
        settings=settings,
        accounts=addresses.accounts,
        epoch=None if ownership is None else ownership.epoch,
        certain=(lambda: True) if ownership is None else ownership.certain,
        stack=stack,
    )
    shared = None if ownership is None else SharedSecrets(storage.store.sealed)
    if shared is not None:
        await shared.restore(state)
    certificates = _certificates(state, settings.tls, clock)
    trust = _trust(certificates)
    number = await storage.store.next_epoch() if ownership is None else ownership.epoch
    quotas = addresses.accounts.quotas
    log_bounds = LogBounds(quotas, clock)
    unsent_lines = UnsentLines()
    logs = Logs(storage.store.logs, storage.store, clock, bounds=log_bounds, stored=unsent_lines.stored)
    isolation = await choose_isolation(settings.isolation, settings.require_isolation)
    execution = build_execution(
        state=state,
        settings=settings,
        storage=storage,
        logs=logs,
        trust=trust,
        isolation=isolation.level,
        epoch=Epoch(number=number, holder=secrets.token_hex(4)),
        now=clock.wall,
        stack=stack,
    )
    live = build_live(
        store=storage.store,
        clock=clock,
        accounts=addresses.accounts.ids_by_nickname,
        unsent_lines=unsent_lines,
        node_answers=execution.nodes.answers,
        is_owner=(lambda: True) if ownership is None else ownership.may_place,
    )
    live.fleet.subscribe(ended=logs.runner_ended)
    if ownership is not None:
        ownership.subscribe(certain=live.dispatcher.serve_waiting)
    files = build_files(
        state=state, settings=settings, storage=storage, fleet=live.fleet, clock=clock, accounts=addresses.accounts
    )
    variables = _runner_variables(storage, files, trust, addresses)
    use_cases = await build_use_cases(
        state=state,
        settings=settings,
        storage=storage,
        live=live,
        logs=logs,
        log_bounds=log_bounds,
        execution=execution,
        files=files,
        addresses=addresses,
        certificates=certificates,
        clock=clock,
        variables=variables,
        stack=stack,
    )
    ray = build_ray(settings=settings, live=live, execution=execution, ownership=ownership, clock=clock)
    loops = build_loops(
        settings=settings,
        storage=storage,
        live=live,
        execution=execution,
        files=files,
        use_cases=use_cases,
        variables=variables,
        certificates=certificates,
        clock=clock,
        accounts=addresses.accounts,
        reserve=first_fit if ray is None else ray.reserve,
    )
    await live.catalog.load()
    await live.fleet.load()
    await use_cases.queue.load()
    await use_cases.workflow_runs.load()
    stack.push_async_callback(use_cases.workflow_runs.close)
    if not settings.adopt_runners:
        # A copy would give the original's nodes orders, and end the original's runners there.
        await storage.store.nodes.forget_all()
    await execution.nodes.open(live.fleet)
    stack.push_async_callback(execution.nodes.close)
    if settings.adopt_runners:
        await loops.adoption.begin([host.node().name for host in execution.nodes.hosts])
    else:
        await loops.adoption.give_up()
    if ray is not None:
        await open_ray(ray, execution, stack)
    await ensure_admin_key(state, use_cases.keys, renew=settings.new_key)
    if shared is not None:
        await shared.keep(state)
    await use_cases.environments.bootstrap(LOCAL)
    await listen_for_runners(
        files=files,
        access=use_cases.access,
        teams=use_cases.teams,
        recorder=use_cases.recorder,
        addresses=addresses,
        former=state.former_api_socket,
        stack=stack,
    )
    owner_socket = await listen_for_owner(
        state=state,
        live=live,
        use_cases=use_cases,
        accounts=addresses.accounts,
        nodes=execution.nodes,
        ownership=ownership,
        shared=shared,
        ray=ray,
        adoption=loops.adoption,
        content=storage.content,
        request_payloads=settings.request_payloads,
        stack=stack,
    )
    faces = await open_faces(
        state=state,
        settings=settings,
        addresses=addresses,
        live=live,
        files=files,
        use_cases=use_cases,
        certificates=certificates,
        nodes=execution.nodes,
        clock=clock,
        stack=stack,
    )
    return Parts(
        addresses=addresses,
        live=live,
        isolation=isolation,
        execution=execution,
        loops=loops,
        faces=faces,
        clock_keeper=clock_keeper,
        owner_socket=owner_socket,
    )


def _certificates(state: StateDir, settings: TlsSettings | None, clock: Clock) -> Certificates | None:
    if settings is None:
        return None
    # Most controllers listen on loopback without TLS, and what reads certificates is a large library.
    from fal_server.composition.tls import Certificates

    return Certificates(state.tls, settings, clock.wall)


def _runner_variables(
    storage: Storage, files: FileServices, trust: Mapping[str, str], addresses: Addresses
) -> Callable[[AccountId], Mapping[str, str]]:
    """Return what returns the variables of an account's runners."""
    common = {
        **files.variables,
        **trust,
        # The published client rejects a FAL_HOST that does not begin with `api`, unless FAL_GRPC_HOST is set too.
        "FAL_HOST": addresses.base,
        "FAL_GRPC_HOST": addresses.base,
        "FAL_RUN_HOST": addresses.base,
        "FAL_QUEUE_RUN_HOST": addresses.queue,
        # Else a file that cannot be stored here would be offered to the cloud, with the key of this controller.
        "FAL_REST_HOST": addresses.base,
        # For our client, which otherwise uses plaintext on this machine.
        **({"FAL_GRPC_TLS": "1"} if addresses.tls else {}),
    }

    def variables(account: AccountId) -> Mapping[str, str]:
        return {**common, "FAL_DATA_DIR": str(storage.data.of(account).directory)}

    return variables


def _trust(certificates: Certificates | None) -> dict[str, str]:
    """Return variables that make programs trust the local CA besides public ones."""
    bundle = certificates.bundle if certificates else None
    return {} if bundle is None else {"SSL_CERT_FILE": str(bundle)}

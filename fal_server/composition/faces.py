"""The controller's two interfaces. These are the gRPC server, and the one port that carries gRPC and HTTP."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.routing import Route
from starlette.types import ASGIApp

from fal_grpc import VERSION
from fal_runner.shim.address import SocketPath
from fal_server.access.tokens import Tokens
from fal_server.composition.addresses import Addresses, cannot_listen
from fal_server.composition.files import FileServices
from fal_server.composition.live import LiveState
from fal_server.composition.nodes import JoinedNodes
from fal_server.composition.options import LOOPBACK
from fal_server.composition.settings import Settings
from fal_server.composition.state import StateDir
from fal_server.composition.use_cases import UseCases
from fal_server.grpc.methods import Services
from fal_server.grpc.server import GrpcServer
from fal_server.http.gateway.gateway import Gateway
from fal_server.http.routes.account import AccountRoutes
from fal_server.http.routes.connect import ConnectRoutes
from fal_server.http.routes.documentation import DocumentationRoutes
from fal_server.http.routes.files import AppFileRoutes, FileRoutes
from fal_server.http.routes.guard import Guard
from fal_server.http.routes.hosts import AllowedHosts
from fal_server.http.routes.mcp import McpRoutes
from fal_server.http.routes.metrics import MetricsRoutes
from fal_server.http.routes.platform.apps import PlatformAppRoutes
from fal_server.http.routes.platform.files import PlatformFileRoutes
from fal_server.http.routes.platform.keys import PlatformKeyRoutes
from fal_server.http.routes.platform.logs import PlatformLogRoutes
from fal_server.http.routes.platform.requests import PlatformRequestRoutes
from fal_server.http.routes.queue import QueueRoutes
from fal_server.http.routes.queue_admin import QueueAdminRoutes
from fal_server.http.routes.rest import rest_app
from fal_server.http.routes.router import Router
from fal_server.http.routes.runners import RunnerRoutes
from fal_server.http.routes.storage import StorageRoutes
from fal_server.http.routes.tokens import TokenRoutes
from fal_server.http.routes.workflows import WorkflowRoutes
from fal_server.http.server.asgi import AsgiAdapter
from fal_server.http.server.later import LaterApp
from fal_server.http.server.listener import Listener
from fal_server.live.rates import Rates
from fal_server.ports import Clock
from fal_server.ports.contract import ContractCalls

if TYPE_CHECKING:
    from fal_server.composition.tls import Certificates


@dataclass(frozen=True, slots=True, kw_only=True)
class Faces:
    """Both servers, listening.

    Attributes:
        grpc_port: gRPC alone, in plaintext on loopback.
    """

    grpc: GrpcServer
    grpc_port: int
    listener: Listener
    router: Router


async def open_faces(
    *,
    state: StateDir,
    settings: Settings,
    addresses: Addresses,
    live: LiveState,
    files: FileServices,
    use_cases: UseCases,
    certificates: Certificates | None,
    nodes: JoinedNodes,
    clock: Clock,
    stack: AsyncExitStack,
) -> Faces:
    """Listen for gRPC and HTTP until the stack is closed.

    Raises:
        Unavailable: a port or a socket cannot be listened on.
    """
    grpc = GrpcServer(_grpc_services(use_cases, files.tokens))
    grpc_socket = SocketPath(state.grpc_socket)
    stack.callback(grpc_socket.close)
    grpc_port = await grpc.start(unix_socket=Path(grpc_socket.path), host=LOOPBACK, port=settings.grpc_port)
    stack.push_async_callback(grpc.stop, 0)
    rates = Rates(addresses.accounts.quotas)
    guard = Guard(use_cases.access, files.tokens, use_cases.teams, use_cases.recorder)
    rest = rest_app(
        guard=guard,
        accounts=addresses.accounts,
        version=VERSION,
        routes=_routes(
            guard=guard,
            rates=rates,
            addresses=addresses,
            live=live,
            files=files,
            use_cases=use_cases,
            clock=clock,
            contract=grpc.unary_calls,
            mcp_writes=settings.mcp_writes,
        ),
    )
    gateway = Gateway(
        live.dispatcher,
        live.catalog,
        use_cases.access,
        use_cases.cancellations,
        nodes.way,
        tokens=files.tokens,
        lifecycle=files.objects.lifecycle,
        ended=live.ended,
        payloads=live.payloads if settings.request_payloads else None,
        rates=rates,
        exports_spans=use_cases.spans is not None,
    )
    adapter = AsgiAdapter(rest)

    def pages() -> ASGIApp:
        # Its modules, templates and routes take a tenth of a start, and many starts are for programs alone.
        from fal_server.composition.dashboard import build_dashboard

        return build_dashboard(addresses=addresses, live=live, files=files, use_cases=use_cases, clock=clock)

    dashboard = AsgiAdapter(LaterApp(pages), for_pages=False)
    hosts = AllowedHosts(settings.allowed_hosts) if settings.allowed_hosts else None
    services = {path.split("/")[1] for path in (*grpc.unary_calls.paths, *grpc.unary_calls.streaming_paths)}
    router = Router(gateway, adapter, hosts, dashboard, more=services)
    listener = Listener(
        router,
        grpc_socket.target,
        tls=certificates.context if certificates else None,
    )
    use_cases.access.open_calls.on_end(listener.registry.end_calls)
    try:
        await listener.start(addresses.sockets)
    except OSError as error:
        raise cannot_listen(settings, error) from error
    stack.push_async_callback(adapter.close)
    stack.push_async_callback(dashboard.close)
    stack.push_async_callback(gateway.close)
    stack.push_async_callback(listener.close, 0)
    return Faces(grpc=grpc, grpc_port=grpc_port, listener=listener, router=router)


def _routes(
    *,
    guard: Guard,
    rates: Rates,
    addresses: Addresses,
    live: LiveState,
    files: FileServices,
    use_cases: UseCases,
    clock: Clock,
    contract: ContractCalls,
    mcp_writes: bool,
) -> list[Route]:
    return [
        *ConnectRoutes(contract, guard).routes,
        # Before the queue, which takes all other paths below /queue as apps'.
        *WorkflowRoutes(use_cases.workflows, use_cases.workflow_runs, addresses.accounts, guard).routes,
        *QueueRoutes(use_cases.queue, live.dispatcher, guard, rates).routes,
        *QueueAdminRoutes(use_cases.queue, addresses.accounts, use_cases.webhooks.key_set, guard).routes,
        *StorageRoutes(files.objects, files.tokens, guard, addresses.url).routes,
        *TokenRoutes(files.tokens, guard).routes,
        *MetricsRoutes(use_cases.metrics, guard).routes,
        *RunnerRoutes(use_cases.runners, use_cases.logs, guard).routes,
        *AccountRoutes(
            use_cases.gpus, use_cases.revisions, use_cases.accounts, use_cases.quotas, addresses.accounts, guard
        ).routes,
        *AppFileRoutes(files.app_files, guard).routes,
        *FileRoutes(files.data, guard).routes,
        *DocumentationRoutes(guard).routes,
        *PlatformAppRoutes(
            apps=use_cases.apps,
            revisions=use_cases.revisions,
            events=use_cases.app_events,
            queue=use_cases.queue,
            keys=use_cases.keys,
            accounts=addresses.accounts,
            clock=clock,
            guard=guard,
        ).routes,
        *PlatformFileRoutes(files.data, guard).routes,
        *PlatformLogRoutes(use_cases.log_search, addresses.accounts, clock, guard).routes,
        *PlatformRequestRoutes(
            use_cases.analytics, use_cases.queue, use_cases.payloads, addresses.accounts, clock, guard
        ).routes,
        *PlatformKeyRoutes(use_cases.keys, addresses.accounts, guard).routes,
        *McpRoutes(guard, clock, VERSION, writes=mcp_writes).routes,
    ]


def _grpc_services(use_cases: UseCases, tokens: Tokens) -> Services:
    return Services(
        authenticator=use_cases.access,
        teams=use_cases.teams,
        recorder=use_cases.recorder,
        audit=use_cases.audit,
        tokens=tokens,
        accounts=use_cases.accounts,
        removal=use_cases.removal,
        quotas=use_cases.quotas,
        apps=use_cases.apps,
        explainer=use_cases.explainer,
        revisions=use_cases.revisions,
        deploys=use_cases.deploys,
        deploy_plans=use_cases.deploy_plans,
        drains=use_cases.drains,
        notices=use_cases.notices,
        requests=use_cases.requests,
        runs=use_cases.runs,
        runners=use_cases.runners,
        nodes=use_cases.nodes,
        execs=use_cases.execs,
        keys=use_cases.keys,
        secrets=use_cases.secrets,
        environments=use_cases.environments,
        logs=use_cases.logs,
    )

"""Run the two servers of the HTTP hop, each in a process. They are an app under uvicorn, and the gateway."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

import uvicorn
import uvloop
from starlette.types import Receive, Scope, Send

from fal_runner.worker.gate import Gate
from fal_server.access.authentication import Authenticator
from fal_server.aio.rounds import every
from fal_server.composition.gc_tuning import freeze_startup_objects
from fal_server.core.accounts import KnownAccounts
from fal_server.core.addresses import gate_key_of
from fal_server.core.apps import App, AuthMode
from fal_server.core.identity import LOCAL
from fal_server.core.outbound import OutboundCall, Receipt
from fal_server.core.revisions import EnvironmentSpec, Revision
from fal_server.core.runners import Runner, RunnerState
from fal_server.core.scaling import Scaling
from fal_server.http.gateway.gateway import Gateway
from fal_server.http.gateway.runner_client import HttpRunnerClient
from fal_server.http.gateway.upstream import straight
from fal_server.http.outbound.span_format import CONTENT_TYPE, to_otlp
from fal_server.http.routes.router import Router
from fal_server.http.server.asgi import AsgiAdapter
from fal_server.http.server.listener import Listener, bind
from fal_server.live.backlog import Backlog
from fal_server.live.catalog import Catalog
from fal_server.live.dispatch import Dispatcher
from fal_server.live.ended_requests import EndedRequests
from fal_server.live.events import ChangeNotifier
from fal_server.live.fleet import Fleet
from fal_server.live.health import Health
from fal_server.services.cancellations import Cancellations
from fal_server.services.environments import Environments
from fal_server.services.keys import Keys
from fal_server.services.request_recording import EVERY_SECONDS, RequestRecording
from fal_server.services.span_export import SpanExport
from fal_server.store import AesVault, open_store

_TOKEN = "-"


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Read the request, then answer 200 with a small JSON body."""
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body"):
        pass
    body = b'{"answer": 42}'
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class Clock:
    """The machine's clock."""

    def now(self) -> datetime:
        """Return the time."""
        return datetime.now(UTC)

    def wall(self) -> datetime:
        return self.now()


def _is_nobodys(*_ends: object) -> bool:
    return False


async def serve_app(*, gated: bool) -> None:
    """Print the port, then serve until stdin is closed.

    Args:
        gated: whether it has a gate, as the apps of runners have.
    """
    config = uvicorn.Config(app, host="127.0.0.1", port=0, access_log=False, log_level="warning", lifespan="off")
    server = uvicorn.Server(config)
    if gated:
        loop: Any = asyncio.get_running_loop()
        config.load()
        protocol: Any = config.http_protocol_class
        made = partial(protocol, config=config, server_state=server.server_state, app_state={})
        guarded = Gate(gate_key_of(_TOKEN), _is_nobodys).guard(made)
        async with await loop.create_server(guarded, "127.0.0.1", 0) as open_server:
            print(open_server.sockets[0].getsockname()[1], flush=True)
            await _end_of_input()
        return
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.01)
    print(server.servers[0].sockets[0].getsockname()[1], flush=True)
    await _end_of_input()
    server.should_exit = True
    await serving


class Taken:
    """An OutboundClient whose receiver takes everything at once."""

    async def post(self, call: OutboundCall) -> Receipt:
        return Receipt(status=200)

    async def why_forbidden(self, host: str, port: int) -> str:
        return ""


async def serve_gateway(port: int, *, history: bool, gated: bool, traces: bool) -> None:
    """Serve the whole gateway before an app's port. Its database is on disk.

    This prints a caller's key, too. The only runner is that port, which already listens, so nothing starts.

    Args:
        history: whether to store ended requests, as a controller does.
        gated: whether the app at the port has a gate.
        traces: whether to export the spans of every request.
    """
    clock, changed = Clock(), ChangeNotifier()
    with TemporaryDirectory() as folder:
        store = await open_store(Path(folder) / "fal.db", AesVault(bytes(32)))
        access, catalog = Authenticator(store, clock), Catalog(store, clock, changed)
        fleet = Fleet(store, clock, changed, Health(catalog))
        dispatcher = Dispatcher(catalog, fleet, Backlog(clock), clock, changed, {"me": LOCAL})
        now = clock.now()
        await Environments(store, clock).bootstrap(LOCAL)
        scaling = Scaling(max_multiplexing=1000)
        revision = Revision(
            account=LOCAL,
            revision_id="r",
            app_name="bench",
            environment="main",
            created_at=now,
            environments=(EnvironmentSpec(kind="virtualenv", configuration={}),),
            function=None,
            entrypoint="bench:app",
            exposed_port=8080,
            scaling=scaling,
        )
        bench = App(
            account=LOCAL,
            name="bench",
            environment="main",
            revision_id="r",
            auth_mode=AuthMode.PRIVATE,
            scaling=scaling,
            created_at=now,
            updated_at=now,
        )
        await catalog.register(revision, lambda _: bench)
        runner = Runner(
            account=LOCAL,
            runner_id=str(uuid4()),
            app_name="bench",
            environment="main",
            revision_id="r",
            machine_type="XS",
            token=_TOKEN,
            created_at=now,
            state=RunnerState.IDLE,
            host="127.0.0.1",
            port=port,
            gated=gated,
        )
        await fleet.add([runner])
        key = await Keys(store, clock, access).create(None)
        cancellations = Cancellations(catalog, HttpRunnerClient(straight))
        ended = EndedRequests()
        adapter, stopping = AsgiAdapter(app), asyncio.Event()
        known = KnownAccounts(await store.accounts.all())
        spans = SpanExport("http://receiver/", Taken(), lambda found: (CONTENT_TYPE, to_otlp(found, "")), known)
        recording = RequestRecording(
            ended, store.requests, catalog, clock, traced=spans.add if traces else None, fleet=fleet
        )
        gateway = Gateway(
            dispatcher,
            catalog,
            access,
            cancellations,
            straight,
            ended=ended if history else None,
            exports_spans=traces,
        )
        exporting = asyncio.create_task(spans.run(stopping))
        listener = Listener(Router(gateway, adapter), "127.0.0.1:1")
        sockets = await bind("127.0.0.1", 0)
        await listener.start(sockets)
        print(sockets[0].getsockname()[1], ":".join(key), flush=True)
        freeze_startup_objects()
        storing = asyncio.create_task(every("storing", EVERY_SECONDS, recording.store).run_until(stopping))
        await _end_of_input()
        stopping.set()
        await storing
        await exporting
        await listener.close(1)
        await gateway.close()
        await adapter.close()
        await dispatcher.close()
        await store.close()


async def _end_of_input() -> None:
    loop = asyncio.get_running_loop()
    ended = loop.create_future()

    def read() -> None:
        if not os.read(0, 64) and not ended.done():
            ended.set_result(None)

    loop.add_reader(0, read)
    await ended
    loop.remove_reader(0)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        uvloop.run(
            serve_app(gated="gated" in sys.argv)
            if sys.argv[1] == "app"
            else serve_gateway(
                int(sys.argv[2]),
                history="no-history" not in sys.argv,
                gated="gated" in sys.argv,
                traces="traces" in sys.argv,
            )
        )

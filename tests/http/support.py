"""A listener with gateway, in-memory dispatcher and keys. Real servers behind it are the runners."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, cast

from fal_server.access.open_calls import OpenCalls
from fal_server.access.permissions import CALL_APPS, EVERYTHING
from fal_server.core.addresses import RunnerAddress
from fal_server.core.faults import DeadlineExceeded, Unauthenticated
from fal_server.core.identity import LOCAL, AppId, Principal, Scope
from fal_server.core.quotas import USUAL, Quotas
from fal_server.core.requests import DirectRequest, RequestRecord
from fal_server.core.routing import Outcome, Slot
from fal_server.http.gateway.gateway import Gateway
from fal_server.http.gateway.upstream import straight
from fal_server.http.routes.hosts import AllowedHosts
from fal_server.http.routes.router import Router
from fal_server.http.server.asgi import AsgiAdapter
from fal_server.http.server.listener import Listener, bind
from fal_server.http.server.rules import Limits
from fal_server.live.dispatch import RunnerFailure
from fal_server.live.ended_payloads import EndedPayloads
from fal_server.live.ended_requests import EndedRequests
from fal_server.live.rates import Rates

PERMISSIONS_OF = {
    "good": frozenset({CALL_APPS}),
    "small": frozenset({"account:read"}),
    "admin": frozenset({EVERYTHING}),
}
KEY = b"Authorization: Key good:secret\r\n"
Reader = asyncio.StreamReader
Writer = asyncio.StreamWriter
Script = Callable[[Reader, Writer], Awaitable[None]]


@dataclass(frozen=True)
class App:
    name: str
    public: bool = True
    request_timeout: float = 60
    request_start_timeout: int | None = None

    @property
    def app_id(self) -> AppId:
        return AppId.parse(LOCAL, self.name)


@dataclass(frozen=True)
class Place:
    runner_id: str
    host: str
    port: int
    caller: str | None = None
    cold_start: bool = False

    @property
    def slot(self) -> Slot:
        return Slot(runner_id=self.runner_id, revision_id="rev", host=self.host, port=self.port)

    @property
    def address(self) -> RunnerAddress:
        return self.slot.address


class Ledger:
    """A dispatcher with one runner per app. It records what was acquired and released."""

    def __init__(self) -> None:
        self.apps: dict[str, App] = {}
        self.places: dict[str, Place] = {}
        self.described: dict[str, dict[str, Any]] = {}
        self.asked: list[dict[str, object]] = []
        self.outcomes: list[Outcome] = []
        self.told: list[tuple[str, str]] = []
        self.answers: list[tuple[str | None, bool]] = []
        self.held = 0
        self.waiting = 0
        self.changed = asyncio.Condition()
        self.fault: Exception | None = None
        self._notices: set[asyncio.Task[None]] = set()

    def add(self, app: App, port: int | None) -> None:
        self.apps[app.name] = app
        if port is not None:
            self.place(app.name, port)

    def place(self, name: str, port: int) -> None:
        self.places[name] = Place(f"runner-{port}", "127.0.0.1", port)
        self.notify()

    def notify(self) -> None:
        async def tell() -> None:
            async with self.changed:
                self.changed.notify_all()

        task = asyncio.get_running_loop().create_task(tell())
        self._notices.add(task)
        task.add_done_callback(self._notices.discard)

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(20), self.changed:
            await self.changed.wait_for(condition)

    async def ended(self, count: int = 1) -> list[Outcome]:
        await self.until(lambda: len(self.outcomes) >= count)
        assert self.held == 0
        return self.outcomes

    def find(self, owner: str, app: str) -> App | None:
        return self.apps.get(app) if owner == "me" else None

    async def metadata(self, app_id: AppId) -> dict[str, object]:
        return self.described.get(str(app_id), {})

    def try_acquire(self, app_id: AppId, *, request_id: str, caller: str | None, hint: str | None) -> Place | None:
        place = self.places.get(str(app_id))
        if place is None:
            return None
        self.asked.append({"app": str(app_id), "request_id": request_id, "caller": caller, "hint": hint})
        self.held += 1
        return replace(place, caller=caller)

    async def acquire(
        self, app_id: AppId, *, request_id: str, caller: str | None, hint: str | None, start_timeout: float | None
    ) -> Place:
        if self.fault is not None:
            raise self.fault
        self.waiting += 1
        self.notify()
        try:
            async with asyncio.timeout(start_timeout), self.changed:
                await self.changed.wait_for(lambda: str(app_id) in self.places)
        except TimeoutError:
            raise DeadlineExceeded(f"no runner of {app_id} within {start_timeout} s") from None
        finally:
            self.waiting -= 1
            self.notify()
        place = self.try_acquire(app_id, request_id=request_id, caller=caller, hint=hint)
        assert place is not None
        return place

    async def tell(self, lease: Place, request_id: str, path: str) -> None:
        """Record a cancellation, in place of `Cancellations`."""
        self.told.append((request_id, path))
        self.notify()

    def answered(self, lease: object, hints: str | None, *, health_check: bool) -> None:
        self.answers.append((hints, health_check))

    def runner_failed(self, lease: object, detail: str) -> asyncio.Future[RunnerFailure]:
        self.release(lease, Outcome.RUNNER_FAILED)
        told = asyncio.get_running_loop().create_future()
        told.set_result(RunnerFailure(detail=detail, ended_alone=False))
        return told

    def release(self, lease: object, outcome: Outcome) -> None:
        assert isinstance(lease, Place)
        self.held -= 1
        assert self.held >= 0, "released twice"
        self.outcomes.append(outcome)
        self.notify()


def principal_of(key_id: str) -> Principal:
    return Principal(key_id=key_id, scope=Scope(account=LOCAL, permissions=PERMISSIONS_OF[key_id]))


class Keys:
    """Authenticates one key of each kind; `warm` keys are cached."""

    def __init__(self) -> None:
        self.warm: set[str] = set()
        self.asked: list[str] = []
        self.open_calls = OpenCalls()

    async def authenticate(self, key_id: str, secret: str) -> Principal:
        self.asked.append(key_id)
        if key_id not in PERMISSIONS_OF or secret != "secret":
            raise Unauthenticated("this key is unknown or revoked: make one with `fal keys create`")
        self.warm.add(key_id)
        return principal_of(key_id)

    def cached(self, key_id: str, secret: str) -> Principal | None:
        return principal_of(key_id) if key_id in self.warm and secret == "secret" else None


async def _plain(scope, receive, send) -> None:
    """A minimal ASGI application. It answers with the path and the body of the request."""
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": scope["path"].encode() + b"|" + body})


class Ended(EndedRequests):
    """Receives each ended request."""

    def __init__(self) -> None:
        super().__init__()
        self.told = asyncio.Event()

    def add(self, request: DirectRequest | RequestRecord) -> None:
        super().add(request)
        self.told.set()


@dataclass
class Server:
    """A listener with everything behind it."""

    port: int
    listener: Listener
    gateway: Gateway
    ledger: Ledger
    keys: Keys
    ended: Ended
    writers: list[Writer] = field(default_factory=list)

    async def connect(self, *, limit: int = 2**16) -> tuple[Reader, Writer]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=limit)
        self.writers.append(writer)
        return reader, writer


@asynccontextmanager
async def running_server(
    *,
    rest=_plain,
    host: str = "127.0.0.1",
    grpc_address: str = "127.0.0.1:1",
    limits: Limits | None = None,
    first_byte_seconds: float = 10,
    tls=None,
    connect_seconds: float = 5,
    body_seconds: float = 60,
    hosts: AllowedHosts | None = None,
    quotas: Quotas = USUAL,
    more: Iterable[str] = (),
    exports_spans: bool = False,
    payloads: EndedPayloads | None = None,
) -> AsyncGenerator[Server, None]:
    ledger, keys, ended = Ledger(), Keys(), Ended()
    gateway = Gateway(
        *cast("tuple[Any, Any, Any, Any]", (ledger, ledger, keys, ledger)),
        straight,
        connect_seconds=connect_seconds,
        body_seconds=body_seconds,
        ended=ended,
        payloads=payloads,
        rates=Rates(lambda _: quotas),
        exports_spans=exports_spans,
    )
    adapter = AsgiAdapter(rest, body_seconds=body_seconds)
    listener = Listener(
        Router(gateway, adapter, hosts, more=more),
        grpc_address,
        limits=limits,
        first_byte_seconds=first_byte_seconds,
        tls=tls,
    )
    sockets = await bind(host, 0)
    await listener.start(sockets)
    port = sockets[0].getsockname()[1]
    built = Server(port, listener, gateway, ledger, keys, ended)
    try:
        async with asyncio.timeout(50):
            yield built
    finally:
        for writer in built.writers:
            writer.close()
        await listener.close(0)
        await gateway.close()
        await adapter.close()
        for writer in built.writers:
            await asyncio.gather(writer.wait_closed(), return_exceptions=True)


@asynccontextmanager
async def runner(script: Script) -> AsyncGenerator[int, None]:
    """Run a server that plays the script on each connection. Yield its port."""
    tasks: set[asyncio.Task[None]] = set()
    failures: list[Exception] = []

    async def serve(reader: Reader, writer: Writer) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await script(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        except Exception as error:  # noqa: BLE001 - raised when the test ends
            failures.append(error)
        finally:
            writer.close()
            await asyncio.gather(writer.wait_closed(), return_exceptions=True)
            tasks.discard(task)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tuple(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert not failures, failures


async def read_head(reader: Reader) -> tuple[bytes, dict[bytes, bytes]]:
    """Read a message's first line and fields. Of a repeated field, the last one counts."""
    head = await reader.readuntil(b"\r\n\r\n")
    first, *lines = head[:-4].split(b"\r\n")
    return first, {name.lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines)}


async def read_chunks(reader: Reader) -> AsyncIterator[bytes]:
    """Read the parts of a chunked body."""
    while size := int(await reader.readline(), 16):
        yield await reader.readexactly(size)
        assert await reader.readexactly(2) == b"\r\n"
    assert await reader.readexactly(2) == b"\r\n"


async def read_message(reader: Reader, *, head_only: bool = False) -> tuple[bytes, dict[bytes, bytes], bytes]:
    """Read a whole message: first line, fields, body."""
    first, fields = await read_head(reader)
    if head_only:
        return first, fields, b""
    if b"content-length" in fields:
        return first, fields, await reader.readexactly(int(fields[b"content-length"]))
    if fields.get(b"transfer-encoding") == b"chunked":
        return first, fields, b"".join([part async for part in read_chunks(reader)])
    if first.startswith(b"HTTP/"):
        return first, fields, await reader.read()
    return first, fields, b""


async def echo(reader: Reader, writer: Writer) -> None:
    """Answer each request with its own head and body."""
    while True:
        first, fields, body = await read_message(reader)
        head = first + b"\n" + b"".join(b"%b: %b\n" % pair for pair in fields.items())
        answer = head + b"\n" + body
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nX-App: yes\r\n\r\n" % len(answer) + answer)
        await writer.drain()


def answering(raw: bytes, *, close: bool = False) -> Script:
    """Return a script that answers each request with these bytes."""

    async def script(reader: Reader, writer: Writer) -> None:
        while True:
            await read_message(reader)
            writer.write(raw)
            await writer.drain()
            if close:
                return

    return script


async def ask(server: Server, request: bytes) -> tuple[int, dict[bytes, bytes], bytes]:
    """Send a request on a new connection; return status, fields and body."""
    reader, writer = await server.connect()
    writer.write(request)
    first, fields, body = await read_message(reader, head_only=request.startswith(b"HEAD"))
    return int(first.split()[1]), fields, body


def error_of(fields: dict[bytes, bytes], body: bytes) -> str:
    """Return the error type. It must be the same in body and header."""
    content = json.loads(body)
    assert content["error_type"].encode() == fields[b"x-fal-error-type"]
    assert content["detail"]
    return content["error_type"]

"""The queue on the in-memory platform. Store, attempts and loop are real, and runners and receivers are fake."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

from fal_server.core.accounts import Account, KnownAccounts
from fal_server.core.addresses import RunnerAddress
from fal_server.core.faults import Unavailable
from fal_server.core.outbound import OutboundCall, Receipt
from fal_server.core.queue import Answer, Condition, Content, Failure, QueuedRequest, State
from fal_server.core.quotas import USUAL
from fal_server.live.delays import Delays
from fal_server.live.ended_requests import EndedRequests
from fal_server.loops.queue import QueueWorker
from fal_server.loops.webhooks import WebhookSender
from fal_server.services.attempts import AttemptRunner
from fal_server.services.cancellations import Cancellations
from fal_server.services.queue import Queue, QueueStatus
from fal_server.services.submission import Submission
from fal_server.services.webhooks import SignedCalls, Webhooks
from fal_server.store.crypto.signing import EdSigner
from fal_server.store.sql.queue import SqlQueueStore
from tests.fakes.domain import app_id
from tests.fakes.platform import HANG_SECONDS, Platform

BROKEN = Failure(condition=Condition.CONNECTION_ERROR, error_type="runner_disconnected", detail="it went away")


class FakeRunners:
    """A RunnerClient that answers as set.

    Attributes:
        answers: the next answers, in order, then `usual`; a function gets the request.
        held: set this to release requests that wait for an answer.
        sent: every request that was sent, with its content.
        told: id and path of each request whose cancellation was reported to the app.
        on_cancel: what the app does then; None means an app without an endpoint for it.
    """

    def __init__(self) -> None:
        self.answers: list[Answer | Failure | Exception] = []
        self.usual: Answer | Failure = Answer(status=200, headers=(("content-type", "application/json"),), body=b"{}")
        self.held = asyncio.Event()
        self.held.set()
        self.sent: list[tuple[QueuedRequest, Content]] = []
        self.cut_off: list[str] = []
        self.told: list[tuple[str, str]] = []
        self.on_cancel: Callable[[], None] | None = None
        self.under_way = 0
        self.most_at_once = 0
        self.alive = True
        self.probes = 0

    async def send(
        self,
        address: RunnerAddress,
        request: QueuedRequest,
        content: Content,
        timeout_seconds: float,
        sent: asyncio.Event,
    ) -> Answer | Failure:
        sent.set()
        self.sent.append((request, content))
        self.under_way += 1
        self.most_at_once = max(self.most_at_once, self.under_way)
        answer = self.answers.pop(0) if self.answers else None
        try:
            await self.held.wait()
        except asyncio.CancelledError:
            self.cut_off.append(request.request_id)
            raise
        finally:
            self.under_way -= 1
        if isinstance(answer, Exception):
            raise answer
        return answer or self.usual

    async def cancel(self, address: RunnerAddress, request_id: str, path: str) -> int | None:
        self.told.append((request_id, path))
        if self.on_cancel is None:
            return 404
        self.on_cancel()
        return 200

    async def accepts(self, address: RunnerAddress) -> bool:
        self.probes += 1
        return self.alive


class FakeReceivers:
    """An OutboundClient that answers with these statuses, then 200. It raises an OSError among them."""

    def __init__(self) -> None:
        self.calls: list[OutboundCall] = []
        self.answers: list[int | OSError] = []

    async def post(self, call: OutboundCall) -> Receipt:
        if "poison" in call.url:
            raise RuntimeError(call.url)
        self.calls.append(call)
        answer = self.answers.pop(0) if self.answers else 200
        if isinstance(answer, OSError):
            raise answer
        return Receipt(status=answer)

    async def why_forbidden(self, host: str, port: int) -> str:
        return ""


class FailingQueueStore:
    """The real store. The test can make the next calls of a method fail.

    Attributes:
        failures: how many calls fail as on a full disk, by method.
        broken: how many calls raise an unexpected error, by method.
        gates: calls of these methods wait for an event.
    """

    def __init__(self, store: SqlQueueStore) -> None:
        self._store = store
        self.failures: dict[str, int] = {}
        self.broken: dict[str, int] = {}
        self.gates: dict[str, asyncio.Event] = {}

    def __getattr__(self, name: str) -> object:
        method = getattr(self._store, name)

        async def call(*arguments: object) -> object:
            if self.failures.get(name, 0):
                self.failures[name] -= 1
                raise Unavailable("the disk is full")
            if self.broken.get(name, 0):
                self.broken[name] -= 1
                raise RuntimeError("nobody foresaw this")
            if name in self.gates:
                await self.gates[name].wait()
            return await method(*arguments)

        return call


class Queueing:
    """The parts of the queue, wired as in the controller.

    Attributes:
        quotas: of every account.
    """

    def __init__(self, platform: Platform, signer: EdSigner) -> None:
        self.platform = platform
        self.clock = platform.clock
        self.client = FakeRunners()
        self.receivers = FakeReceivers()
        self.store: Any = FailingQueueStore(platform.store.queue)
        self.backlog = platform.backlog
        delays = Delays(platform.catalog, platform.fleet, platform.clock)
        self.ended = EndedRequests()
        self.quotas = USUAL
        self.queue = Queue(
            self.store,
            self.backlog,
            platform.catalog,
            platform.log_store,
            self.clock,
            platform.changed,
            delays,
            self.ended,
            lambda _: self.quotas,
        )
        cancellations = Cancellations(platform.catalog, self.client)
        attempts = AttemptRunner(
            self.queue,
            self.store,
            platform.dispatcher,
            platform.catalog,
            platform.fleet,
            self.client,
            cancellations,
            self.clock,
        )
        self.worker = QueueWorker(
            self.queue,
            self.backlog,
            attempts,
            platform.catalog,
            self.store,
            self.clock,
            retention=timedelta(hours=24),
            dead_retention=timedelta(days=7),
        )
        self.signer = signer
        self.calls = SignedCalls(self.receivers, signer, self.clock, KnownAccounts([Account()]))
        self.webhooks = Webhooks(self.store, self.calls, self.clock)
        self.sender = WebhookSender(self.webhooks, self.queue.webhook_due)

    async def submit(self, app: str = "a", **changes: Any) -> str:
        """Submit a request; return its id."""
        return (await self.hand_in(app, **changes)).request.request_id

    async def hand_in(self, app: str = "a", **changes: Any) -> QueueStatus:
        return await self.queue.submit(Submission(app_id=app_id(app), path=changes.pop("path", "/"), **changes))

    async def get(self, request_id: str, app: str = "a") -> QueuedRequest:
        return (await self.queue.status(app_id(app), request_id)).request

    async def until(self, true: Callable[[], object]) -> None:
        """Wait until a condition holds. Look at every change of the queue or of the runners."""
        async with asyncio.timeout(HANG_SECONDS):
            while not true():
                waits = [
                    asyncio.ensure_future(signal.wait(signal.count))
                    for signal in (self.queue.requests_changed, self.platform.changed)
                ]
                try:
                    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED, timeout=0.05)
                finally:
                    for wait in waits:
                        wait.cancel()

    async def completed(self, request_id: str, app: str = "a") -> QueuedRequest:
        """Wait for the end of a request; return it."""
        live = self.backlog.get(request_id)
        if live is not None:
            async with asyncio.timeout(HANG_SECONDS):
                await live.finished.wait()
        found = await self.get(request_id, app)
        assert found.state is State.COMPLETED
        return found

    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.worker.pump()


@asynccontextmanager
async def queueing(platform: Platform) -> AsyncGenerator[Queueing, None]:
    """Run a queue with its loops."""
    found = Queueing(platform, await platform.store.webhook_signer())
    await found.queue.load()
    stopping = asyncio.Event()
    loops = [asyncio.create_task(found.worker.run(stopping)), asyncio.create_task(found.sender.run(stopping))]
    try:
        yield found
        assert not any(loop.done() for loop in loops), "a loop has ended"
    finally:
        stopping.set()
        await asyncio.gather(*loops)

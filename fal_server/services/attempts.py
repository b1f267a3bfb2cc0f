"""Makes an attempt at a queued request. It gets a slot, sends the request, and decides what follows."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from dataclasses import dataclass, replace
from datetime import timedelta

from fal_grpc.backoff import Backoff
from fal_server.core.apps import App
from fal_server.core.faults import CONTROLLER_FAILED, DeadlineExceeded, Fault, NodeTrouble, NotFound
from fal_server.core.identity import EVERY_ACCOUNT
from fal_server.core.queue import (
    Answer,
    Condition,
    Content,
    Failure,
    Policy,
    QueuedRequest,
    RetryDecision,
    State,
    decide_retry,
    lease_until,
    policy_of,
)
from fal_server.core.routing import HEALTH_CHECK, RUNNER_HINTS, Outcome
from fal_server.core.tracing import traceparent_among
from fal_server.live.backlog import LiveRequest
from fal_server.live.catalog import Catalog
from fal_server.live.delays import Delays
from fal_server.live.dispatch import Dispatcher, Lease
from fal_server.live.fleet import Fleet
from fal_server.ports import Clock
from fal_server.ports.queue import AnswerTooLarge, QueueStore, RunnerClient
from fal_server.services.cancellations import Cancellations
from fal_server.services.queue import Queue, QueueStatus
from fal_server.services.submission import CANCELLED, WAS_CANCELLED, error_answer

log = logging.getLogger(__name__)
# How long to wait before trying again to get a runner or write the database. Does not count as a retry.
_AGAIN_SECONDS = 2.0
# The longest that a slot is kept for a request while that is stored. Direct calls need slots, and no database.
_STORE_SECONDS = 0.5
# The pause after each attempt; docs/reference/queue.md promises these numbers, so there is no jitter.
RETRIES = Backoff(first_seconds=0.5, longest_seconds=60.0, jitter=0)
# The status of requests that the app did not answer.
_STATUS = {Condition.TIMEOUT: 504, Condition.SERVER_ERROR: 503, Condition.CONNECTION_ERROR: 503}


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """The request is completed."""

    answer: Answer
    error: str | None = None
    error_type: str | None = None
    dead: bool = False


# An unexpected error completes a request, so that it does not hang.
_FAILED = Done(
    answer=error_answer(500, "internal_error", CONTROLLER_FAILED),
    error=CONTROLLER_FAILED,
    error_type="internal_error",
    dead=True,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """The request waits for another attempt."""

    request: QueuedRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Requeue:
    """The request keeps waiting, because no attempt was made."""

    request: QueuedRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """A new request that has a slot before it is stored.

    Attributes:
        request: as it was submitted.
        live: as its first attempt starts, which is stored with its acceptance.
    """

    request: QueuedRequest
    live: LiveRequest
    app: App
    lease: Lease


class AttemptRunner:
    """Makes attempts at requests. They are from the queue, or new if a slot is free.

    Args:
        store: records the start of an attempt before a byte goes to the runner.
    """

    def __init__(
        self,
        queue: Queue,
        store: QueueStore,
        dispatcher: Dispatcher,
        catalog: Catalog,
        fleet: Fleet,
        client: RunnerClient,
        cancellations: Cancellations,
        clock: Clock,
        *,
        exports_spans: bool = False,
    ) -> None:
        self._queue = queue
        self._exports_spans = exports_spans
        self._store = store
        self._dispatcher = dispatcher
        self._catalog = catalog
        self._delays = Delays(catalog, fleet, clock)
        self._client = client
        self._cancellations = cancellations
        self._clock = clock

    async def run_attempt(self, live: LiveRequest) -> None:
        """Make one attempt and store its result. If interrupted, leave the request to the next controller."""
        if not live.cancelled:  # the canceller writes its end
            await self._follow(live, self._attempt(live))

    def place(self, request: QueuedRequest) -> Placed | None:
        """Take a slot for a new request. None if none is free, or if it is too late."""
        app = self._catalog.get(request.app_id)
        if app is None or (request.start_deadline is not None and request.start_deadline <= self._clock.now()):
            return None
        lease = self._dispatcher.try_acquire(
            app.app_id, request_id=request.request_id, caller=request.caller, hint=request.hint
        )
        if lease is None:
            return None
        return Placed(request=request, live=LiveRequest(self._started(request, app, lease)), app=app, lease=lease)

    async def start(self, placed: Placed, content: Content, accepted: asyncio.Future[QueueStatus]) -> None:
        """Make the first attempt at a request. Its start is stored with the request.

        Args:
            accepted: gets the request's status once it is stored, or the reason why it is not.
        """
        new = False
        slow = asyncio.get_running_loop().call_later(_STORE_SECONDS, self.give_back, placed)
        try:
            status = await self._queue.accept(placed.request, content, placed.live)
            new = status.request is placed.request
        except Exception as refused:  # noqa: BLE001 - raised to the caller
            if not accepted.done():
                accepted.set_exception(refused)
            return
        finally:
            slow.cancel()
            if not new:
                self.give_back(placed)
        if not accepted.done():
            accepted.set_result(status)
        if new:
            await self._follow(placed.live, self._send(placed, content))

    def give_back(self, placed: Placed) -> None:
        """Release the slot of a request that was not sent."""
        self._dispatcher.release(placed.lease, Outcome.UNUSED)

    async def _send(self, placed: Placed, content: Content) -> Done | Retry | Requeue:
        """Make the first attempt at a stored request, if it still can."""
        live, waiting = placed.live, placed.request
        if waiting.start_deadline is not None and waiting.start_deadline <= self._clock.now():
            self.give_back(placed)
            return self._too_late(waiting)
        if not self._dispatcher.send(placed.lease):
            return Retry(request=waiting)  # the runner ended meanwhile, or the slot was needed: no attempt is used up
        return await self._on_lease(placed.lease, self._run(live, waiting, placed.app, placed.lease, content))

    async def _follow(self, live: LiveRequest, attempt: Coroutine[None, None, Done | Retry | Requeue]) -> None:
        """Make an attempt, and store what follows from it."""
        task = live.attempt = asyncio.current_task()
        result: Done | Retry | Requeue = Requeue(request=live.request)
        try:
            result = await attempt
        except (Exception, asyncio.CancelledError):
            if task is None or not task.cancelling():
                log.exception("attempt %d of request %s failed", live.request.attempt, live.request.request_id)
                result = _FAILED
            elif not live.cancelled or live.request.state is not State.IN_QUEUE:
                raise  # the controller is stopping
            while task is not None and task.uncancel():
                pass  # each canceller counts
        match result:
            case Done(answer=answer, error=error, error_type=error_type, dead=dead):
                # Even if it was cancelled meanwhile: the app's response decides the outcome of the request.
                if live.cancelled and answer.status == CANCELLED.status:
                    error, error_type = error or WAS_CANCELLED, CANCELLED.header("x-fal-error-type")
                await self._queue.end(live, answer, error=error, error_type=error_type, dead=dead)
            case _ if live.cancelled:
                await self._queue.end_cancelled(live)
            case Retry(request=request):
                await self._queue.put_back(live, request)
            case Requeue(request=request):
                self._queue.requeue(request, _AGAIN_SECONDS)

    async def expire(self, live: LiveRequest) -> None:
        """Complete a request whose start deadline passed while it was queued."""
        late = self._too_late(live.request)
        await self._queue.end(live, late.answer, error=late.error, error_type=late.error_type)

    async def _attempt(self, live: LiveRequest) -> Done | Retry | Requeue:
        request = live.request
        app = self._catalog.get(request.app_id)
        if app is None:
            return _gone(f"app {request.app_name!r} was deleted while the request waited")
        left = None
        if request.start_deadline is not None:
            left = (request.start_deadline - self._clock.now()).total_seconds()
            if left <= 0:
                return self._too_late(request)
        try:
            lease = await self._dispatcher.acquire(
                app.app_id,
                request_id=request.request_id,
                caller=request.caller,
                hint=request.hint,
                start_timeout=left,
                since=request.created_at,
                patient=True,
            )
        except DeadlineExceeded:
            return self._too_late(request)
        except NotFound as fault:
            return _gone(fault.message)
        except Fault as fault:
            # No runner can start: the request keeps its position, and this does not count as a retry.
            return _requeued(request, fault)
        return await self._on_lease(lease, self._begin(live, request, app, lease))

    async def _on_lease(
        self, lease: Lease, attempt: Coroutine[None, None, tuple[Done | Retry | Requeue, Outcome | None]]
    ) -> Done | Retry | Requeue:
        """Make an attempt on a runner's slot, and release the slot."""
        outcome: Outcome | None = Outcome.CLIENT_GONE
        try:
            result, outcome = await attempt
            return result
        finally:
            if outcome is not None:
                self._dispatcher.release(lease, outcome)

    def _started(self, waiting: QueuedRequest, app: App, lease: Lease) -> QueuedRequest:
        """Return a request as its next attempt starts."""
        now = self._clock.now()
        return replace(
            waiting,
            state=State.IN_PROGRESS,
            attempt=waiting.attempt + 1,
            started_at=now,
            not_before=None,
            lease_until=lease_until(now, app.scaling.request_timeout),
            runner_id=lease.runner_id,
            alone=app.scaling.max_multiplexing == 1,
        )

    async def _begin(
        self, live: LiveRequest, waiting: QueuedRequest, app: App, lease: Lease
    ) -> tuple[Done | Retry | Requeue, Outcome | None]:
        """Store the start of an attempt and make it; see `_run`."""
        started = self._started(waiting, app, lease)
        # Set this before the write: if the write is interrupted, the request may be stored as started and must be ended
        # as such.
        live.request, live.starting = started, True
        try:
            content = await self._store.begin(started)
        except Fault as fault:
            live.request = waiting
            return _requeued(waiting, fault), Outcome.UNUSED
        finally:
            live.starting = False
        self._queue.requests_changed.notify()
        if content is None:
            live.request = waiting
            return _gone("the request was changed by another caller"), Outcome.UNUSED
        if live.cancelled:
            return Requeue(request=waiting), Outcome.UNUSED  # nothing was sent
        return await self._run(live, waiting, app, lease, content)

    async def _run(
        self, live: LiveRequest, waiting: QueuedRequest, app: App, lease: Lease, content: Content
    ) -> tuple[Done | Retry | Requeue, Outcome | None]:
        """Send the request; return what follows, and how to release the slot: None if it is already released."""
        started = live.request
        live.revision_id, live.cold_start, live.bytes_in = lease.slot.revision_id, lease.cold_start, len(content.body)
        live.trace = traceparent_among(content.headers) if self._exports_spans else None
        sent = asyncio.Event()
        cancellation: asyncio.Task[None] | None = None

        def tell() -> None:
            nonlocal cancellation
            cancellation = asyncio.create_task(self._tell(live, lease, sent))

        live.on_cancel = tell
        seconds = float(app.scaling.request_timeout)
        try:
            seen = await self._client.send(lease.address, started, content, seconds, sent)
        except NodeTrouble as fault:
            log.warning("request %s waits: %s", waiting.request_id, fault.message)
            later = self._clock.now() + timedelta(seconds=_AGAIN_SECONDS)
            return Retry(request=replace(waiting, not_before=later)), Outcome.UNUSED  # no attempt is used up
        except AnswerTooLarge as error:
            answer = error_answer(502, "internal_error", str(error))
            return Done(answer=answer, error=str(error), error_type="internal_error"), Outcome.DONE
        finally:
            live.on_cancel = None
            if cancellation is not None:
                cancellation.cancel()
        broken = isinstance(seen, Failure) and seen.condition is Condition.CONNECTION_ERROR
        if isinstance(seen, Failure) and broken:
            failure = await self._dispatcher.runner_failed(lease, seen.detail)
            seen = replace(seen, detail=failure.detail, ended_runner=failure.ended_alone)
        if isinstance(seen, Answer):
            fields = dict(seen.headers)
            asked = fields.get(HEALTH_CHECK, "0") != "0"
            self._dispatcher.answered(lease, fields.get(RUNNER_HINTS), health_check=asked)
        decision = decide_retry(started, seen, await self._policy(lease.slot.revision_id))
        outcome = decision.outcome
        if decision.probe and outcome is Outcome.DONE and not await self._client.accepts(lease.address):
            outcome = Outcome.RUNNER_FAILED
        return self._decided(started, seen, decision), None if broken else outcome

    async def _tell(self, live: LiveRequest, lease: Lease, sent: asyncio.Event) -> None:
        await sent.wait()
        await self._cancellations.tell(lease, live.request.request_id, live.request.path)

    def _decided(self, started: QueuedRequest, seen: Answer | Failure, decision: RetryDecision) -> Done | Retry:
        if decision.retry is None:
            answer = (
                seen
                if isinstance(seen, Answer)
                else error_answer(_STATUS[seen.condition], seen.error_type, decision.error or seen.detail)
            )
            return Done(answer=answer, error=decision.error, error_type=decision.error_type, dead=decision.dead)
        condition = decision.retry.value
        log.info(
            "request %s is tried again after attempt %d (%s): %s",
            started.request_id, started.attempt, condition, decision.error,
        )  # fmt: skip
        again = replace(
            started,
            state=State.IN_QUEUE,
            retries={**started.retries, condition: started.retries.get(condition, 0) + 1},
            not_before=self._clock.now() + timedelta(seconds=RETRIES.pause(started.attempt)),
            lease_until=None,
            ended_runners=decision.ended_runners,
            error=decision.error,
            error_type=decision.error_type,
        )
        return Retry(request=again)

    def _too_late(self, request: QueuedRequest) -> Done:
        assert request.start_deadline is not None
        seconds = (request.start_deadline - request.created_at).total_seconds()
        detail = self._delays.not_in_time(request.app_id, seconds)
        answer = error_answer(504, "request_timeout", detail, ("x-fal-request-timeout-type", "user"))
        return Done(answer=answer, error=detail, error_type="request_timeout")

    async def _policy(self, revision_id: str) -> Policy:
        try:
            revision = await self._catalog.find_revision(EVERY_ACCOUNT, revision_id)
        except Fault:
            revision = self._catalog.known_revision(revision_id)
        if revision is None:
            return Policy()
        return policy_of(revision.retry_config, revision.skip_retry_conditions)


def _requeued(request: QueuedRequest, fault: Fault) -> Requeue:
    log.info("request %s waits on: %s", request.request_id, fault.message)
    return Requeue(request=request)


def _gone(detail: str) -> Done:
    return Done(answer=error_answer(404, "bad_request", detail), error=detail, error_type="bad_request", dead=True)

"""The durable queue: accepts, shows, cancels, lists and requeues requests."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import ExitStack, aclosing
from dataclasses import dataclass, replace
from datetime import timedelta

from fal_server.aio.retry import until_stored
from fal_server.aio.slices import in_slices
from fal_server.aio.tasks import run_to_completion
from fal_server.core.faults import (
    CONTROLLER_FAILED,
    FailedPrecondition,
    NotFound,
    ResourceExhausted,
    UnusableIdempotencyKey,
)
from fal_server.core.identity import AccountId, AppId
from fal_server.core.logs import LogEntry, LogQuery
from fal_server.core.outbound import checked_url
from fal_server.core.queue import (
    MOST_ATTEMPTS,
    Answer,
    Content,
    Policy,
    QueuedRequest,
    State,
    WebhookState,
    policy_of,
)
from fal_server.core.quotas import QuotasOf, usual_quotas
from fal_server.core.requests import QueuedTrace, RequestRecord
from fal_server.core.webhooks import Delivery
from fal_server.live.backlog import Backlog, LiveRequest
from fal_server.live.catalog import Catalog
from fal_server.live.delays import Delay, Delays
from fal_server.live.ended_requests import EndedRequests
from fal_server.live.events import ChangeNotifier
from fal_server.ports import Clock, LogStore
from fal_server.ports.queue import QueueStore, RequestFilter
from fal_server.services.submission import CANCELLED, WAS_CANCELLED, Submission, error_answer, fingerprint, idempotency

log = logging.getLogger(__name__)
_MOST_LOG_LINES = 1000
# The most requests that one transaction changes; other writers wait for it, and the loop prepares its rows without a
# pause.
_GROUP = 100
# Stands for callers without a key.
PUBLIC = "public"


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueStatus:
    """A request, how many are ahead of it, and why it waits."""

    request: QueuedRequest
    position: int = 0
    delay: Delay | None = None


class Queue:
    """The use cases of the queue. Everything that a call returns is stored.

    Args:
        changed: notified when the number of runners may have to change.
        ended: receives requests at their end.
        quotas: how much an account may queue.

    Attributes:
        requests_changed: notified at every change of a request.
        webhook_due: notified when a webhook is due.
        start: starts a new request at once if it can, and sets the status when that is stored; returns None if the
            request must wait.
    """

    def __init__(
        self,
        store: QueueStore,
        backlog: Backlog,
        catalog: Catalog,
        logs: LogStore,
        clock: Clock,
        changed: ChangeNotifier,
        delays: Delays,
        ended: EndedRequests,
        quotas: QuotasOf = usual_quotas,
    ) -> None:
        self._store = store
        self._backlog = backlog
        self._catalog = catalog
        self._logs = logs
        self._clock = clock
        self._changed = changed
        self._delays = delays
        self._ended_requests = ended
        self._quotas = quotas
        self.requests_changed = ChangeNotifier()
        self.webhook_due = ChangeNotifier()
        self.start: Callable[[QueuedRequest, Content], asyncio.Future[QueueStatus] | None] = _start_nothing

    async def load(self) -> None:
        """Read the requests of an earlier controller, once at startup. Interrupted attempts start again.

        Only one controller uses the database, so nobody works on an attempt that it has in progress.
        """
        sizes = await self._store.body_sizes()
        for request in await self._store.load():
            size = sizes.get(request.request_id, 0)
            if request.state is State.IN_QUEUE:
                self._backlog.add(request, size)
                continue
            live = LiveRequest(request)
            if request.attempt >= MOST_ATTEMPTS:
                detail = f"the controller ended during the last of {MOST_ATTEMPTS} attempts"
                await self.end(live, error_answer(503, "internal_error", detail), error=detail, dead=True)
                continue
            waiting = replace(request, state=State.IN_QUEUE, lease_until=None, not_before=None)
            if await self._store.put_back(waiting, waiting.attempt):
                self._backlog.add(waiting, size)

    async def submit(self, submission: Submission) -> QueueStatus:
        """Accept a request. When this returns, it is stored and will be completed.

        Raises:
            NotFound: there is no such app, or it has no port.
            InvalidArgument: the webhook's URL or the Idempotency-Key is not valid, or the key was used for another
                request.
            ResourceExhausted: the app's account has used up its quotas for the queue.
        """
        app = self._catalog.get(submission.app_id)
        if app is None:
            raise NotFound(f"app {str(submission.app_id)!r}", "`fal apps list` shows which exist")
        revision = self._catalog.known_revision(app.revision_id)
        if revision is not None and not revision.serves_http:
            raise NotFound(f"port of app {app.name!r}", "a function without a port cannot be called over HTTP")
        if submission.webhook_url is not None:
            checked_url("fal_webhook", submission.webhook_url)
        start_seconds = submission.start_seconds
        if start_seconds is None:
            start_seconds = app.scaling.request_start_timeout or None
        now = self._clock.now()
        request = QueuedRequest(
            account=app.account,
            request_id=str(uuid.uuid4()),
            app_name=app.name,
            path=submission.path,
            method=submission.method,
            caller=submission.caller,
            priority=submission.priority,
            hint=submission.hint,
            no_retry=submission.no_retry,
            idempotency=idempotency(submission),
            fingerprint=fingerprint(submission),
            created_at=now,
            start_deadline=None if start_seconds is None else now + timedelta(seconds=start_seconds),
            webhook=WebhookState.WAITING if submission.webhook_url else WebhookState.NONE,
        )
        content = Content(headers=submission.headers, body=submission.body, webhook_url=submission.webhook_url)
        self._require_room(app.account, len(content.body))
        with self._backlog.reserved(app.account, len(content.body)):  # other requests arrive while it is stored
            if (accepted := self.start(request, content)) is not None:
                return await accepted
            self._backlog.set_out(app.app_id)
            return await run_to_completion(self._queue(request, content))

    async def _queue(self, request: QueuedRequest, content: Content) -> QueueStatus:
        try:
            return await self.accept(request, content)
        finally:
            self._backlog.arrive(request.app_id)

    def _require_room(self, account: AccountId, size: int, count: int = 1) -> None:
        """Refuse requests that have no room, before any is stored."""
        held, quotas = self._backlog.held(account), self._quotas(account)
        if quotas.queued_requests and held.requests + count > quotas.queued_requests:
            more = "" if count == 1 else f" and cannot take {count} more"
            what = f"{held.requests} requests that are not completed{more}, of the {quotas.queued_requests}"
        elif quotas.queued_bytes and held.size + size > quotas.queued_bytes:
            what = f"{held.size} bytes of requests and cannot take {size} more, of the {quotas.queued_bytes}"
        else:
            return
        raise ResourceExhausted(
            f"the queue of this account holds {what} that its quota allows: wait until some are completed, or cancel "
            "some"
        )

    async def status(self, app_id: AppId, request_id: str) -> QueueStatus:
        """Return the status of a request.

        Raises:
            NotFound: the app has no such request, or it has expired.
        """
        live = self._backlog.get(request_id)
        if live is not None and live.request.app_id == app_id:
            # A caller that cancels a request in progress may rely on the app having it.
            shown = replace(live.request, state=State.IN_QUEUE) if live.starting else live.request
            position = self._backlog.position(live)
            return QueueStatus(request=shown, position=position, delay=self._delay(live.request))
        request = await self._store.get(app_id.account, request_id)
        if request is None or request.app_id != app_id:
            raise unknown_request(app_id, request_id)
        return QueueStatus(request=request)

    def _delay(self, request: QueuedRequest) -> Delay | None:
        if request.state is not State.IN_QUEUE:
            return None
        failed: Delay | None = None
        if request.attempt and request.error:
            app = self._catalog.get(request.app_id)
            revision = None if app is None else self._catalog.known_revision(app.revision_id)
            policy = Policy() if revision is None else policy_of(revision.retry_config, revision.skip_retry_conditions)
            most = max(policy.most_attempts(no_retry=request.no_retry), request.attempt + 1)
            reason = f"attempt {request.attempt} of {most} failed: {request.error}"
            failed = Delay(reason=reason, next_try_at=request.not_before)
            if request.not_before is not None and request.not_before > self._clock.now():
                return failed
        return self._delays.of(request.app_id) or failed or self._delays.of_setup(request.app_id)

    async def result(self, app_id: AppId, request_id: str) -> tuple[QueuedRequest, Answer | None]:
        """Return a request and its response. The response is None until the request is completed.

        Raises:
            NotFound: the app has no such request, or it has expired.
        """
        request = (await self.status(app_id, request_id)).request
        completed = request.state is State.COMPLETED
        return request, await self._store.answer(app_id.account, request_id) if completed else None

    async def payloads(self, app_id: AppId, request_id: str) -> tuple[bytes | None, Answer | None]:
        """Return a queued request's body and its response. Each is None if the queue has it no more, or not yet."""
        content = await self._store.content(app_id.account, request_id)
        return None if content is None else content.body, await self._store.answer(app_id.account, request_id)

    async def finished(self, request_id: str) -> None:
        """Wait until a request is completed. Return at once if it is, or is unknown."""
        live = self._backlog.get(request_id)
        if live is not None:
            await live.finished.wait()

    def by_idempotency(self) -> Mapping[str, QueuedRequest]:
        """Return the requests in progress with an Idempotency-Key, by their `idempotency`."""
        return {live.request.idempotency: live.request for live in self._backlog if live.request.idempotency}

    async def lines(self, request: QueuedRequest) -> Sequence[LogEntry]:
        """Return the log lines of the last attempt. They are the request's, or all if the runner had no other one."""
        if request.runner_id is None or request.started_at is None:
            return ()
        query = LogQuery(
            runner_id=request.runner_id,
            since=request.started_at,
            until=request.completed_at,
            limit=_MOST_LOG_LINES,
        )
        page = await self._logs.page(request.account, query)
        own = (request.request_id, None) if request.alone else (request.request_id,)
        return [entry for entry in page.entries if entry.request_id in own]

    async def cancel(self, app_id: AppId, request_id: str) -> QueuedRequest:
        """Cancel a waiting request. Ask the app to cancel one in progress.

        An app is asked at the request's path followed by /cancel. Its response to the request is then kept; an app
        without such an endpoint finishes as if nothing had happened.

        Raises:
            NotFound: the app has no such request, or it has expired.
            FailedPrecondition: it is completed.
        """
        live = self._backlog.get(request_id)
        mine = live is not None and live.request.app_id == app_id
        if live is None or not mine or live.finishing:
            request = (await self.status(app_id, request_id)).request
            raise FailedPrecondition(f"request {request.request_id} is completed: there is nothing to cancel")
        live.cancel()
        if live.request.state is State.IN_PROGRESS:
            return live.request
        if live.attempt is not None:
            live.attempt.cancel()
            await live.finished.wait()
        else:
            await run_to_completion(self._cancel_waiting(live))
        return live.request

    async def flush(self, app_id: AppId, caller: str | None = None, limit: int | None = None) -> int:
        """Cancel the waiting requests of an app; return how many.

        They are cancelled in groups, so that other writers get their turn. If the caller leaves, it stops between two
        groups; the caller can repeat it.

        Args:
            caller: only those of this key, or PUBLIC; None means all.
            limit: at most this many, oldest first; None means all.

        Raises:
            NotFound: there is no such app.
        """
        self._catalog.require(app_id)
        chosen: deque[LiveRequest] = deque()
        async with aclosing(in_slices(list(self._backlog))) as every:
            async for live in every:
                if len(chosen) == limit:
                    break
                request = live.request
                of_caller = caller is None or (request.caller or PUBLIC) == caller
                if of_caller and request.state is State.IN_QUEUE and request.app_id == app_id:
                    chosen.append(live)
        flushed = 0
        # Those that a runner got meanwhile continue. Those that left the queue and wait for a runner come last, because
        # the next in the queue would take the place of each. Each group is let go of at once: freeing all of them
        # together would hold the event loop.
        last: list[LiveRequest] = []
        while chosen:
            group: list[LiveRequest] = []
            for live in [chosen.popleft() for _ in range(min(_GROUP, len(chosen)))]:
                (group if live.attempt is None and _is_waiting(live) else last).append(live)
            if group:
                flushed += await run_to_completion(self._cancel_group(group))
        async for live in in_slices(last):
            if _is_waiting(live):
                await self.cancel(app_id, live.request.request_id)
                flushed += 1
        return flushed

    async def end_account(self, account: AccountId) -> None:
        """Cancel every request of an account, even on runners. Return when none is left.

        A request on a runner ends with the runner, so the runners must end meanwhile.
        """
        while mine := [live for live in self._backlog if live.request.account == account]:
            for live in mine:
                live.cancel()
                if not _is_waiting(live):
                    continue
                if live.attempt is None:
                    await run_to_completion(self._cancel_waiting(live))
                else:
                    live.attempt.cancel()
            await asyncio.gather(*(live.finished.wait() for live in mine))

    def size(self, app_id: AppId) -> Mapping[str, int]:
        """Return an app's number of waiting requests, by caller key or PUBLIC.

        Raises:
            NotFound: there is no such app.
        """
        self._catalog.require(app_id)
        return Counter(live.request.caller or PUBLIC for live in self._backlog.of_app(app_id, State.IN_QUEUE))

    async def find(self, account: AccountId, query: RequestFilter) -> list[QueuedRequest]:
        """Return requests, newest first, including those of a deleted app.

        Raises:
            NotFound: neither the app nor any request of it exists.
        """
        found = await self._store.find(account, query)
        if not found:
            self._catalog.require(AppId.parse(account, query.app_name))
        return found

    async def deliveries(self, account: AccountId, request_id: str) -> list[Delivery]:
        """Return the attempts to deliver a request's webhook."""
        return await self._store.deliveries(account, request_id)

    async def redrive(self, app_id: AppId, request_id: str) -> QueuedRequest:
        """Queue a given-up request again as a new one. Its id stays the same.

        Raises:
            NotFound: the app has no such request, it has expired, or the app was deleted.
            FailedPrecondition: it was not given up.
            ResourceExhausted: the app's account has queued as much as its quotas allow.
        """
        self._catalog.require(app_id)
        request = (await self.status(app_id, request_id)).request
        if not request.dead:
            state = "is not completed" if request.state is not State.COMPLETED else "was not given up"
            raise FailedPrecondition(
                f"request {request_id} {state}: only requests that were given up can be queued again"
            )
        again = _as_new(request)
        if not await self._put_in_line(app_id.account, [again]):
            raise FailedPrecondition(f"request {request_id} was queued again by another caller meanwhile")
        return again

    async def redrive_all(self, app_id: AppId, request_ids: Sequence[str]) -> list[str]:
        """Queue given requests again if they were given up. Return their ids.

        Raises:
            NotFound: there is no such app.
            ResourceExhausted: with all of them the app's account would have more queued than its quotas allow; none
                was put in line.
        """
        self._catalog.require(app_id)
        named, again = list(dict.fromkeys(request_ids)), list[QueuedRequest]()
        for start in range(0, len(named), _GROUP):
            ids = named[start : start + _GROUP]
            query = RequestFilter(app_name=str(app_id), dead=True, request_ids=ids, limit=len(ids))
            again += [_as_new(request) for request in reversed(await self._store.find(app_id.account, query))]
        return await self._put_in_line(app_id.account, again)

    async def _put_in_line(self, account: AccountId, requests: Sequence[QueuedRequest]) -> list[str]:
        """Queue given-up requests again in groups. Return the ids of those that still were."""
        if not requests:
            return []
        groups = [requests[start : start + _GROUP] for start in range(0, len(requests), _GROUP)]
        sizes = [await self._size(account, group) for group in groups]
        self._require_room(account, sum(sizes), len(requests))
        revived: list[str] = []
        with ExitStack() as kept:
            # Room for all groups is kept at once, and that of each is given back when the group is in the queue.
            rooms = [kept.enter_context(ExitStack()) for _ in groups]
            for group, size, room in zip(groups, sizes, rooms, strict=True):
                room.enter_context(self._backlog.reserved(account, size, len(group)))
            for group, room in zip(groups, rooms, strict=True):
                revived += await run_to_completion(self._revive(group))
                room.close()
        return revived

    async def _size(self, account: AccountId, group: Sequence[QueuedRequest]) -> int:
        """Return how many bytes the bodies of requests have together."""
        return sum((await self._store.sizes_of(account, [request.request_id for request in group])).values())

    # Called by the attempts.

    async def accept(self, request: QueuedRequest, content: Content, started: LiveRequest | None = None) -> QueueStatus:
        """Store a new request and return its status. One with its Idempotency-Key is returned instead.

        Args:
            started: the request as its first attempt starts; None to queue it.

        Raises:
            UnusableIdempotencyKey: the key was used for another request.
        """
        accepted = await self._store.add(request if started is None else started.request, content)
        if accepted.request_id != request.request_id:
            if accepted.fingerprint != request.fingerprint:
                raise UnusableIdempotencyKey("this Idempotency-Key was used for another request: choose a new one")
            return await self.status(accepted.app_id, accepted.request_id)
        if started is None:
            started = self._backlog.add(request, len(content.body))
        else:
            self._backlog.admit(started, len(content.body))
        self._notify()
        return QueueStatus(request=request, position=self._backlog.position(started))

    def requeue(self, request: QueuedRequest, pause_seconds: float) -> None:
        """Return a request to its position and pause its app. It can get no runner."""
        self._backlog.add(request)
        self._backlog.pause(request.app_id, self._clock.now() + timedelta(seconds=pause_seconds))
        self.requests_changed.notify()

    async def end(
        self,
        live: LiveRequest,
        answer: Answer,
        *,
        error: str | None = None,
        error_type: str | None = None,
        dead: bool = False,
    ) -> None:
        """Write the end of a request; see `until_stored`.

        If an end cannot be written for an unexpected reason, the request ends with an error instead, because its
        waiting callers would otherwise never learn of an end.
        """
        live.finishing = True
        live.bytes_out = len(answer.body)

        def write() -> Awaitable[QueuedRequest]:
            return self._write_end(live, answer, error=error, error_type=error_type, dead=dead)

        def unforeseen() -> None:
            nonlocal answer, error, error_type, dead
            error, error_type, dead = CONTROLLER_FAILED, "internal_error", True
            answer = error_answer(500, error_type, error)

        ended = await until_stored(f"the end of request {live.request.request_id}", write, unforeseen=unforeseen)
        self._forget([(live, ended)])

    async def end_cancelled(self, live: LiveRequest) -> None:
        """Complete a request that its caller cancelled."""
        await self.end(live, CANCELLED, error=WAS_CANCELLED)

    async def put_back(self, live: LiveRequest, request: QueuedRequest) -> None:
        """Record that a request waits again after its attempt, and queue it."""
        what, attempt = f"the return of request {request.request_id}", live.request.attempt
        written = await until_stored(what, lambda: self._store.put_back(request, attempt), unforeseen=lambda: None)
        if written and live.cancelled:
            live.request = request
            await self.end_cancelled(live)
        elif written:
            self._backlog.add(request)
            self._notify()
        else:
            log.error("request %s was changed by another caller, who decides about it", request.request_id)
            self._backlog.forget(live)

    async def _cancel_waiting(self, live: LiveRequest) -> None:
        self._backlog.withdraw(live)
        await self.end_cancelled(live)

    async def _cancel_group(self, group: Sequence[LiveRequest]) -> int:
        for live in group:
            live.cancel()
            live.finishing = True
            self._backlog.withdraw(live)
        ended = [self._ended(live.request, CANCELLED, error=WAS_CANCELLED) for live in group]
        together = True

        async def write() -> Collection[str]:
            return await self._store.complete_all(ended, CANCELLED) if together else ()

        def unforeseen() -> None:
            nonlocal together
            # each is written alone instead, so that one that breaks the write does not fail the others
            together = False

        written = await until_stored(f"the end of {len(group)} requests", write, unforeseen=unforeseen)
        self._forget([pair for pair in zip(group, ended, strict=True) if pair[1].request_id in written])
        for live in group:
            if live.request.request_id not in written:
                await self.end_cancelled(live)
        return len(group)

    async def _revive(self, requests: Sequence[QueuedRequest]) -> list[str]:
        written = await self._store.revive(requests)
        revived = [request for request in requests if request.request_id in written]
        for request in revived:
            self._backlog.add(request, written[request.request_id])
        self._notify()
        return [request.request_id for request in revived]

    async def _write_end(
        self, live: LiveRequest, answer: Answer, *, error: str | None, error_type: str | None, dead: bool
    ) -> QueuedRequest:
        while True:
            ended = self._ended(live.request, answer, error=error, error_type=error_type, dead=dead)
            if await self._store.complete(ended, answer):
                return ended
            stored = await self._store.get(ended.account, ended.request_id)
            if stored is None or stored.state is State.COMPLETED or stored.attempt == ended.attempt:
                return ended
            # The write that started the attempt was interrupted, and only now its outcome is known.
            live.request = replace(live.request, attempt=stored.attempt)

    def _ended(
        self,
        request: QueuedRequest,
        answer: Answer,
        *,
        error: str | None = None,
        error_type: str | None = None,
        dead: bool = False,
    ) -> QueuedRequest:
        now = self._clock.now()
        waits = request.webhook is WebhookState.WAITING
        return replace(
            request,
            state=State.COMPLETED,
            completed_at=now,
            not_before=None,
            lease_until=None,
            status=answer.status,
            error=error,
            error_type=error_type or answer.header("x-fal-error-type"),
            dead=dead,
            webhook=WebhookState.PENDING if waits else request.webhook,
            webhook_at=now if waits else None,
        )

    def _forget(self, ended: Sequence[tuple[LiveRequest, QueuedRequest]]) -> None:
        """Drop requests whose end is stored."""
        for live, request in ended:
            live.request = request
            self._backlog.forget(live)
            record = self._record(live)
            self._ended_requests.add(record if live.trace is None else QueuedTrace(record, live.trace))
        self._notify()
        if any(request.webhook is WebhookState.PENDING for _, request in ended):
            self.webhook_due.notify()

    def _record(self, live: LiveRequest) -> RequestRecord:
        """Return the record of an ended request."""
        request = live.request
        app = self._catalog.get(request.app_id)
        at = request.completed_at or self._clock.now()
        return RequestRecord(
            account=request.account,
            request_id=request.request_id,
            app_name=request.app_name,
            revision_id=live.revision_id or ("" if app is None else app.revision_id),
            runner_id=request.runner_id,
            endpoint=request.path,
            method=request.method,
            key_id=request.caller,
            queued=True,
            received_at=request.created_at,
            started_at=request.started_at,
            ended_at=at,
            code=request.status,
            error_type=request.error_type,
            bytes_in=live.bytes_in,
            bytes_out=live.bytes_out,
            attempt=request.attempt,
            cold_start=live.cold_start,
        )

    def _notify(self) -> None:
        self.requests_changed.notify()
        self._changed.notify()


def _start_nothing(_request: QueuedRequest, _content: Content) -> None:
    """Queue every request: nothing takes new ones yet."""


def _is_waiting(live: LiveRequest) -> bool:
    return live.request.state is State.IN_QUEUE and not live.finishing


def _as_new(request: QueuedRequest) -> QueuedRequest:
    """Return a completed request as a new one. Its id and its position in time stay."""
    return replace(
        request,
        state=State.IN_QUEUE,
        attempt=0,
        retries={},
        ended_runners=0,
        dead=False,
        not_before=None,
        start_deadline=None,
        started_at=None,
        completed_at=None,
        lease_until=None,
        runner_id=None,
        status=None,
        error=None,
        error_type=None,
        webhook=WebhookState.NONE if request.webhook is WebhookState.NONE else WebhookState.WAITING,
        webhook_attempts=0,
        webhook_at=None,
    )


def unknown_request(app_id: AppId, request_id: str) -> NotFound:
    """Return the error for a request that does not exist. It may exist for another caller."""
    return NotFound(
        f"request {request_id[:80]!r} of app {str(app_id)!r}",
        f"it never existed or has expired; `fal queue list {app_id}` shows which exist",
    )

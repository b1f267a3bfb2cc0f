"""Webhooks: a signed call for each completed request that asked for one, repeated until it succeeds or is given up."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from fal_grpc.backoff import Backoff
from fal_server.core.accounts import KnownAccounts
from fal_server.core.faults import Fault
from fal_server.core.identity import AccountId
from fal_server.core.queue import Answer, QueuedRequest, WebhookState
from fal_server.core.webhooks import MOST_TRIES, Delivery, SignedCall, message, payload, signature_headers
from fal_server.core.workflows import WorkflowRun
from fal_server.ports import Clock
from fal_server.ports.queue import QueueStore, WebhookClient, WebhookSigner
from fal_server.ports.workflows import WorkflowStore

log = logging.getLogger(__name__)
# Ten tries within two hours; docs/reference/queue.md promises these numbers, so there is no jitter.
RETRIES = Backoff(first_seconds=14.0, longest_seconds=7200.0, jitter=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Attempted:
    """What one try brought.

    Attributes:
        state: of the webhook after it.
        again: when to try next; None never.
    """

    delivery: Delivery
    state: WebhookState
    again: datetime | None


class SignedCalls:
    """Calls receivers, with a signature.

    Args:
        accounts: an owner's user id is part of the signed text.
    """

    def __init__(self, client: WebhookClient, signer: WebhookSigner, clock: Clock, accounts: KnownAccounts) -> None:
        self._client = client
        self._signer = signer
        self._clock = clock
        self._accounts = accounts

    async def post(
        self, account: AccountId, url: str, request_id: str, answer: Answer, error: str | None
    ) -> tuple[int | None, str | None]:
        """Send a completed request's answer; return the receiver's status, and what went wrong."""
        body = payload(request_id, answer, error)
        user_id = self._accounts.of(account).user_id
        timestamp = int(self._clock.wall().timestamp())  # receivers compare it with their own clocks
        signature = self._signer.sign(message(request_id, user_id, timestamp, body))
        headers = signature_headers(request_id, user_id, timestamp, signature)
        call = SignedCall(url=url, headers=(("content-type", "application/json"), *headers), body=body)
        try:
            status = await self._client.post(call)
        except OSError as failure:
            return None, str(failure) or type(failure).__name__
        return status, None if 200 <= status < 300 else f"the receiver answered {status}"

    def key_set(self) -> Mapping[str, Sequence[Mapping[str, str]]]:
        """Return the public key with which receivers check signatures."""
        return self._signer.key_set()


class Webhooks:
    """The use cases of webhooks of queued requests."""

    def __init__(self, store: QueueStore, calls: SignedCalls, clock: Clock) -> None:
        self._store = store
        self._calls = calls
        self._clock = clock

    def key_set(self) -> Mapping[str, Sequence[Mapping[str, str]]]:
        """Return the public key with which receivers check signatures."""
        return self._calls.key_set()

    async def due(self, limit: int) -> Sequence[QueuedRequest]:
        """Return requests whose webhook is due."""
        return await self._store.due_webhooks(self._clock.now(), limit)

    async def seconds_to_next(self) -> float | None:
        """Return the seconds until the next webhook is due, or None."""
        return _seconds_to(await self._store.next_webhook_at(), self._clock.now())

    def id_of(self, request: QueuedRequest) -> str:
        """Return the id of what a webhook is about."""
        return request.request_id

    async def deliver(self, request: QueuedRequest) -> Delivery:
        """Try to deliver once, and store the result.

        Raises:
            Fault: the store cannot be used; the try does not count.
        """
        number = request.webhook_attempts + 1
        try:
            status, error = await self._call(request)
        except Fault:
            raise
        except Exception as failure:
            log.exception("the webhook of request %s failed unexpectedly", request.request_id)
            status, error = None, _unforeseen(failure)
        outcome = _outcome(request.request_id, number, self._clock.now(), status, error)
        after = replace(request, webhook=outcome.state, webhook_attempts=number, webhook_at=outcome.again)
        await self._store.delivered(after, outcome.delivery)
        return outcome.delivery

    async def _call(self, request: QueuedRequest) -> tuple[int | None, str | None]:
        content = await self._store.content(request.account, request.request_id)
        answer = await self._store.answer(request.account, request.request_id)
        if content is None or content.webhook_url is None or answer is None:
            return None, "the request is gone"
        return await self._calls.post(request.account, content.webhook_url, request.request_id, answer, request.error)


class RunWebhooks:
    """The use cases of webhooks of runs of workflows."""

    def __init__(self, store: WorkflowStore, calls: SignedCalls, clock: Clock) -> None:
        self._store = store
        self._calls = calls
        self._clock = clock

    async def due(self, limit: int) -> Sequence[WorkflowRun]:
        """Return runs whose webhook is due."""
        return await self._store.due_webhooks(self._clock.now(), limit)

    async def seconds_to_next(self) -> float | None:
        """Return the seconds until the next webhook is due, or None."""
        return _seconds_to(await self._store.next_webhook_at(), self._clock.now())

    def id_of(self, run: WorkflowRun) -> str:
        """Return the id of what a webhook is about."""
        return run.run_id

    async def deliver(self, run: WorkflowRun) -> Delivery:
        """Try to deliver once, and store the result.

        Raises:
            Fault: the store cannot be used; the try does not count.
        """
        number = run.webhook_attempts + 1
        assert run.webhook_url is not None
        assert run.answer is not None
        try:
            status, error = await self._calls.post(run.account, run.webhook_url, run.run_id, run.answer, run.error)
        except Exception as failure:
            log.exception("the webhook of workflow run %s failed unexpectedly", run.run_id)
            status, error = None, _unforeseen(failure)
        outcome = _outcome(run.run_id, number, self._clock.now(), status, error)
        after = replace(run, webhook=outcome.state, webhook_attempts=number, webhook_at=outcome.again)
        await self._store.delivered(after)
        return outcome.delivery


def _seconds_to(at: datetime | None, now: datetime) -> float | None:
    return None if at is None else max((at - now).total_seconds(), 0.0)


def _unforeseen(failure: Exception) -> str:
    """Describe a failure that counts, because otherwise its webhook would stay the first that is due forever."""
    return f"the webhook cannot be sent: {type(failure).__name__}"


def _outcome(request_id: str, number: int, now: datetime, status: int | None, error: str | None) -> _Attempted:
    final = error is None or number >= MOST_TRIES
    again = None if final else now + timedelta(seconds=RETRIES.pause(number))
    state = WebhookState.DELIVERED if error is None else WebhookState.PENDING if again else WebhookState.FAILED
    delivery = Delivery(request_id=request_id, number=number, at=now, status=status, error=error)
    return _Attempted(delivery=delivery, state=state, again=again)

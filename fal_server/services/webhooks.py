"""Webhooks: signed calls for completed requests that asked for them. Each repeats until it succeeds or is given up."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Generic, Protocol, TypeVar

from fal_grpc.backoff import Backoff
from fal_server.core.accounts import KnownAccounts
from fal_server.core.faults import Fault
from fal_server.core.identity import AccountId
from fal_server.core.outbound import OutboundCall
from fal_server.core.queue import Answer, QueuedRequest, WebhookState
from fal_server.core.webhooks import MOST_TRIES, Delivery, message, payload, signature_headers
from fal_server.core.workflows import WorkflowRun
from fal_server.ports import Clock
from fal_server.ports.outbound import OutboundClient
from fal_server.ports.queue import QueueStore, WebhookSigner
from fal_server.ports.workflows import WorkflowStore

log = logging.getLogger(__name__)
# Ten attempts within two hours; docs/reference/queue.md promises these numbers, so there is no jitter.
RETRIES = Backoff(first_seconds=14.0, longest_seconds=7200.0, jitter=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Attempted:
    """The outcome of one attempt.

    Attributes:
        state: the webhook's state after it.
        again: when to try next; None means never.
    """

    delivery: Delivery
    state: WebhookState
    again: datetime | None


class SignedCalls:
    """Calls receivers, with a signature.

    Args:
        accounts: provide an owner's user id, which is part of the signed text.
    """

    def __init__(self, client: OutboundClient, signer: WebhookSigner, clock: Clock, accounts: KnownAccounts) -> None:
        self._client = client
        self._signer = signer
        self._clock = clock
        self._accounts = accounts

    async def post(
        self, account: AccountId, url: str, request_id: str, answer: Answer, error: str | None
    ) -> tuple[int | None, str | None]:
        """Send a completed request's response. Return the receiver's status, and the error, if any."""
        body = payload(request_id, answer, error)
        user_id = self._accounts.of(account).user_id
        timestamp = int(self._clock.wall().timestamp())  # receivers compare it with their own clocks
        signature = self._signer.sign(message(request_id, user_id, timestamp, body))
        headers = signature_headers(request_id, user_id, timestamp, signature)
        call = OutboundCall(url=url, headers=(("content-type", "application/json"), *headers), body=body)
        try:
            receipt = await self._client.post(call)
        except OSError as failure:
            return None, str(failure) or type(failure).__name__
        return receipt.status, None if receipt.taken else f"the receiver answered {receipt.status}"

    def key_set(self) -> Mapping[str, Sequence[Mapping[str, str]]]:
        """Return the public key with which receivers check signatures."""
        return self._signer.key_set()


class Completed(Protocol):
    """A request or run that asked for a webhook."""

    @property
    def webhook_attempts(self) -> int:
        """Return the number of attempts."""
        ...


T = TypeVar("T", bound=Completed)
T_co = TypeVar("T_co", bound=Completed, covariant=True)


class _DueStore(Protocol[T_co]):
    """The store of due webhooks; see the ports."""

    async def due_webhooks(self, now: datetime, limit: int) -> Sequence[T_co]: ...

    async def next_webhook_at(self) -> datetime | None: ...


class Deliveries(ABC, Generic[T]):
    """Webhooks of one kind: of queued requests, or of runs of workflows."""

    def __init__(self, due: _DueStore[T], calls: SignedCalls, clock: Clock) -> None:
        self._due = due
        self._calls = calls
        self._clock = clock

    async def due(self, limit: int) -> Sequence[T]:
        """Return the items whose webhook is due."""
        return await self._due.due_webhooks(self._clock.now(), limit)

    async def seconds_to_next(self) -> float | None:
        """Return the seconds until the next webhook is due, or None."""
        at = await self._due.next_webhook_at()
        return None if at is None else max((at - self._clock.now()).total_seconds(), 0.0)

    async def deliver(self, item: T) -> Delivery:
        """Try once to deliver, and store the outcome.

        Raises:
            Fault: the store cannot be used; the attempt does not count.
        """
        try:
            status, error = await self._call(item)
        except Fault:
            raise
        except Exception as failure:
            log.exception("the webhook of request %s failed unexpectedly", self.id_of(item))
            # Count it, because otherwise this webhook would be the first due one forever.
            status, error = None, f"the webhook cannot be sent: {type(failure).__name__}"
        outcome = _outcome(self.id_of(item), item.webhook_attempts + 1, self._clock.now(), status, error)
        await self._save(item, outcome)
        return outcome.delivery

    @abstractmethod
    def id_of(self, item: T) -> str:
        """Return the id of a webhook's item."""

    @abstractmethod
    async def _call(self, item: T) -> tuple[int | None, str | None]:
        """Call the receiver; return its status, and the error, if any."""

    @abstractmethod
    async def _save(self, item: T, outcome: _Attempted) -> None: ...


class Webhooks(Deliveries[QueuedRequest]):
    """The use cases of queued requests' webhooks."""

    def __init__(self, store: QueueStore, calls: SignedCalls, clock: Clock) -> None:
        super().__init__(store, calls, clock)
        self._store = store

    def key_set(self) -> Mapping[str, Sequence[Mapping[str, str]]]:
        """Return the public key with which receivers check signatures."""
        return self._calls.key_set()

    def id_of(self, item: QueuedRequest) -> str:
        return item.request_id

    async def _call(self, item: QueuedRequest) -> tuple[int | None, str | None]:
        content = await self._store.content(item.account, item.request_id)
        answer = await self._store.answer(item.account, item.request_id)
        if content is None or content.webhook_url is None or answer is None:
            return None, "the request is gone"
        return await self._calls.post(item.account, content.webhook_url, item.request_id, answer, item.error)

    async def _save(self, item: QueuedRequest, outcome: _Attempted) -> None:
        tries = outcome.delivery.number
        after = replace(item, webhook=outcome.state, webhook_attempts=tries, webhook_at=outcome.again)
        await self._store.delivered(after, outcome.delivery)


class RunWebhooks(Deliveries[WorkflowRun]):
    """The use cases of workflow runs' webhooks."""

    def __init__(self, store: WorkflowStore, calls: SignedCalls, clock: Clock) -> None:
        super().__init__(store, calls, clock)
        self._store = store

    def id_of(self, item: WorkflowRun) -> str:
        return item.run_id

    async def _call(self, item: WorkflowRun) -> tuple[int | None, str | None]:
        assert item.webhook_url is not None
        assert item.answer is not None
        return await self._calls.post(item.account, item.webhook_url, item.run_id, item.answer, item.error)

    async def _save(self, item: WorkflowRun, outcome: _Attempted) -> None:
        tries = outcome.delivery.number
        await self._store.delivered(
            replace(item, webhook=outcome.state, webhook_attempts=tries, webhook_at=outcome.again)
        )


def _outcome(request_id: str, number: int, now: datetime, status: int | None, error: str | None) -> _Attempted:
    final = error is None or number >= MOST_TRIES
    again = None if final else now + timedelta(seconds=RETRIES.pause(number))
    state = WebhookState.DELIVERED if error is None else WebhookState.PENDING if again else WebhookState.FAILED
    delivery = Delivery(request_id=request_id, number=number, at=now, status=status, error=error)
    return _Attempted(delivery=delivery, state=state, again=again)

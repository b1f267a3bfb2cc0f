"""The Protocols of the queue: its database, calls to runners, and webhooks."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from fal_server.core.addresses import RunnerAddress
from fal_server.core.identity import AccountId, Accounts
from fal_server.core.queue import Answer, Content, Failure, QueuedRequest, State
from fal_server.core.webhooks import Delivery


class AnswerTooLarge(Exception):
    """An app's response is larger than the queue stores."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestFilter:
    """Selects requests; None means no restriction.

    Attributes:
        request_ids: only these.
        limit: at most this many, the newest.
    """

    app_name: str
    state: State | None = None
    dead: bool | None = None
    caller: str | None = None
    request_ids: Sequence[str] | None = None
    limit: int = 100


class QueueStore(Protocol):
    """The queue's requests. Each call is one transaction, which is durable when it returns.

    Every method raises Unavailable if the database cannot be used.
    """

    async def add(self, request: QueuedRequest, content: Content) -> QueuedRequest:
        """Store a request and return it. If another has the same `idempotency`, return that one instead.

        Args:
            request: waiting, or with its first attempt started, for which `begin` is then not called.
        """
        ...

    async def load(self) -> list[QueuedRequest]:
        """Return the requests of every account that are not completed, oldest first."""
        ...

    async def body_sizes(self) -> Mapping[str, int]:
        """Return the body sizes of all uncompleted requests, by request id."""
        ...

    async def sizes_of(self, account: AccountId, request_ids: Sequence[str]) -> Mapping[str, int]:
        """Return the body sizes of an account's requests, in bytes, by id."""
        ...

    async def get(self, account: Accounts, request_id: str) -> QueuedRequest | None:
        """Return one request, or None."""
        ...

    async def content(self, account: AccountId, request_id: str) -> Content | None:
        """Return a request's headers and body, or None."""
        ...

    async def answer(self, account: AccountId, request_id: str) -> Answer | None:
        """Return the response to a completed request, or None."""
        ...

    async def find(self, account: AccountId, query: RequestFilter) -> list[QueuedRequest]:
        """Return requests, newest first."""
        ...

    async def begin(self, request: QueuedRequest) -> Content | None:
        """Record the start of an attempt and return the request's content. None if it no longer waits."""
        ...

    async def put_back(self, request: QueuedRequest, attempt: int) -> bool:
        """Record that the request waits again after an attempt. Return False if another attempt has started.

        Args:
            attempt: the stored number of that attempt. The one of the request is less if the attempt does not count.
        """
        ...

    async def complete(self, request: QueuedRequest, answer: Answer) -> bool:
        """Record the end of a request. Return False if it is already completed or another attempt has started."""
        ...

    async def complete_all(self, requests: Sequence[QueuedRequest], answer: Answer) -> set[str]:
        """Record the end of some hundred requests in one transaction. All get one response.

        Returns:
            The ids of those for which `complete` would have returned True.
        """
        ...

    async def revive(self, requests: Sequence[QueuedRequest]) -> Mapping[str, int]:
        """Queue some hundred completed requests again and delete their responses. It uses one transaction.

        Returns:
            The body sizes of those that were completed until now, by id; the others stay unchanged.
        """
        ...

    async def forget(self, completed_before: datetime, dead_before: datetime) -> int:
        """Delete the completed requests of every account that are older than this. Return how many were deleted.

        Args:
            completed_before: for requests that got a response.
            dead_before: for requests that were given up.
        """
        ...

    async def due_webhooks(self, now: datetime, limit: int) -> list[QueuedRequest]:
        """Return the requests of every account with due webhooks, most overdue first."""
        ...

    async def next_webhook_at(self) -> datetime | None:
        """Return when the next webhook of any account is due. None if there is none."""
        ...

    async def delivered(self, request: QueuedRequest, delivery: Delivery) -> None:
        """Record an attempt to deliver a webhook, and the webhook's new state."""
        ...

    async def deliveries(self, account: AccountId, request_id: str) -> list[Delivery]:
        """Return the attempts to deliver a request's webhook, in order."""
        ...


class RunnerClient(Protocol):
    """Sends queued requests to runners."""

    async def send(
        self,
        address: RunnerAddress,
        request: QueuedRequest,
        content: Content,
        timeout_seconds: float,
        sent: asyncio.Event,
    ) -> Answer | Failure:
        """Send a request and return the complete response. Cancelling closes the connection, which the app notices.

        Args:
            sent: set when the complete request is on its way; anything sent from then on arrives after it.

        Raises:
            AnswerTooLarge: the response is larger than the queue stores.
            NodeTrouble: this machine cannot connect now; the runner got nothing.
        """
        ...

    async def cancel(self, address: RunnerAddress, request_id: str, path: str) -> int | None:
        """Tell an app that a request to a path is cancelled. Return its response's status, or None.

        Call it once the request is on its way. Our worker delays the cancellation until the app's endpoint has started
        on the request, so that the app knows which one is meant.

        Raises:
            AnswerTooLarge, NodeTrouble: see `send`.
        """
        ...

    async def accepts(self, address: RunnerAddress) -> bool:
        """Return whether a runner still accepts connections."""
        ...


class WebhookSigner(Protocol):
    """Signs webhooks with a key that lives as long as the database."""

    def sign(self, message: bytes) -> str:
        """Return the ED25519 signature in hex."""
        ...

    def key_set(self) -> Mapping[str, Sequence[Mapping[str, str]]]:
        """Return the public key as a JSON Web Key Set. The formats are those of RFC 7517 and RFC 8037."""
        ...

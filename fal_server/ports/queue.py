"""The Protocols of the queue: its requests in the database, and the calls to runners and webhooks."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from fal_server.core.addresses import RunnerAddress
from fal_server.core.identity import AccountId, Accounts
from fal_server.core.queue import Answer, Content, Failure, QueuedRequest, State
from fal_server.core.webhooks import Delivery, SignedCall


class AnswerTooLarge(Exception):
    """An app's answer is larger than the queue keeps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestFilter:
    """Which requests to return; None does not restrict.

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
    """The queue's requests. Each call is one transaction; its effect is durable when it returns.

    Every method raises Unavailable if the database cannot be used.
    """

    async def add(self, request: QueuedRequest, content: Content) -> QueuedRequest:
        """Accept a request and return it; if another has the same `idempotency`, return that one instead."""
        ...

    async def load(self) -> list[QueuedRequest]:
        """Return the requests of every account that are not completed, oldest first."""
        ...

    async def body_sizes(self) -> Mapping[str, int]:
        """Return how many bytes the body of each request has that is not completed, by the request's id."""
        ...

    async def get(self, account: Accounts, request_id: str) -> QueuedRequest | None:
        """Return one request, or None."""
        ...

    async def content(self, account: AccountId, request_id: str) -> Content | None:
        """Return a request's headers and body, or None."""
        ...

    async def answer(self, account: AccountId, request_id: str) -> Answer | None:
        """Return the answer of a completed request, or None."""
        ...

    async def find(self, account: AccountId, query: RequestFilter) -> list[QueuedRequest]:
        """Return requests, newest first."""
        ...

    async def begin(self, request: QueuedRequest) -> Content | None:
        """Record the start of an attempt and return the request's content; None if it no longer waits."""
        ...

    async def put_back(self, request: QueuedRequest) -> bool:
        """Record that the request waits again after this attempt; False if another attempt has started."""
        ...

    async def complete(self, request: QueuedRequest, answer: Answer) -> bool:
        """Record the end of a request; False if it is completed already or another attempt has started."""
        ...

    async def complete_all(self, requests: Sequence[QueuedRequest], answer: Answer) -> set[str]:
        """Record the end of some hundred requests, all with one answer, in one transaction.

        Returns:
            The ids of those that `complete` would have returned True for.
        """
        ...

    async def revive(self, requests: Sequence[QueuedRequest]) -> Mapping[str, int]:
        """Queue some hundred completed requests again and delete their answers, in one transaction.

        Returns:
            How many bytes the bodies of those have that were completed until now, by id; the others stay as they are.
        """
        ...

    async def forget(self, completed_before: datetime, dead_before: datetime) -> int:
        """Delete the completed requests of every account that are older than this, and return how many.

        Args:
            completed_before: for requests that were answered.
            dead_before: for requests that were given up.
        """
        ...

    async def due_webhooks(self, now: datetime, limit: int) -> list[QueuedRequest]:
        """Return the requests of every account whose webhook is due, the most overdue first."""
        ...

    async def next_webhook_at(self) -> datetime | None:
        """Return when the next webhook of any account is due; None if there is none."""
        ...

    async def delivered(self, request: QueuedRequest, delivery: Delivery) -> None:
        """Record an attempt to deliver a webhook, and the webhook's state after it."""
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
        """Send a request and return the whole answer. Cancelling closes the connection, which the app sees.

        Args:
            sent: set when all of the request is on its way: what is sent from then on follows it.

        Raises:
            AnswerTooLarge: the answer is larger than the queue keeps.
            NodeTrouble: this machine cannot connect now; the runner got nothing.
        """
        ...

    async def cancel(self, address: RunnerAddress, request_id: str, path: str) -> int | None:
        """Tell an app that a request to a path is cancelled; return the status of its answer, None without one.

        To be called when the request is on its way. A worker of ours lets the word wait until the app's endpoint has
        started on the request, so the app knows which one is meant.

        Raises:
            AnswerTooLarge, NodeTrouble: as `send`.
        """
        ...

    async def accepts(self, address: RunnerAddress) -> bool:
        """Return whether a runner still accepts connections."""
        ...


class WebhookClient(Protocol):
    """Calls receivers of webhooks."""

    async def post(self, call: SignedCall) -> int:
        """Send a POST and return the status of the answer. Redirects are not followed.

        Raises:
            OSError: the receiver cannot be reached, or did not answer in time.
        """
        ...


class WebhookSigner(Protocol):
    """Signs webhooks with a key that lives as long as the database."""

    def sign(self, message: bytes) -> str:
        """Return the ED25519 signature in hex."""
        ...

    def key_set(self) -> Mapping[str, Sequence[Mapping[str, str]]]:
        """Return the public key as a JSON Web Key Set (RFC 7517, RFC 8037)."""
        ...

"""The Protocols of the queue: where its requests are kept, and how runners and webhooks are called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from fal_server.core.identity import AccountId, Accounts
from fal_server.core.queue import Answer, Content, Failure, QueuedRequest, State
from fal_server.core.webhooks import Delivery, SignedCall


class AnswerTooLarge(Exception):
    """An app's answer is larger than what is kept of one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestFilter:
    """Which requests are asked for; what is None does not restrict.

    Attributes:
        limit: at most so many, the newest.
    """

    app_name: str
    state: State | None = None
    dead: bool | None = None
    caller: str | None = None
    limit: int = 100


class QueueStore(Protocol):
    """The queue's requests. Each call is one transaction; when it returns, its effect is durable."""

    async def add(self, request: QueuedRequest, content: Content) -> QueuedRequest:
        """Accept a request; where its `idempotency` is taken, the request that has it is returned instead."""
        ...

    async def load(self) -> list[QueuedRequest]:
        """All requests that are not completed, oldest first."""
        ...

    async def get(self, account: Accounts, request_id: str) -> QueuedRequest | None:
        """One request, or None."""
        ...

    async def content(self, account: AccountId, request_id: str) -> Content | None:
        """What a request carries, or None."""
        ...

    async def answer(self, account: AccountId, request_id: str) -> Answer | None:
        """The answer of a completed request, or None."""
        ...

    async def find(self, account: AccountId, query: RequestFilter) -> list[QueuedRequest]:
        """Requests, newest first."""
        ...

    async def begin(self, request: QueuedRequest) -> Content | None:
        """Write that an attempt begins; what the request carries, or None where it is not waiting any more."""
        ...

    async def put_back(self, request: QueuedRequest) -> bool:
        """Write that the attempt of this number is over and the request waits again; False where it is another's."""
        ...

    async def complete(self, request: QueuedRequest, answer: Answer) -> bool:
        """Write the end of a request; False where it was completed before, or another attempt has begun."""
        ...

    async def revive(self, request: QueuedRequest) -> bool:
        """Put a completed request in line again, its answer forgotten; False where it is not completed."""
        ...

    async def forget(self, completed_before: datetime, dead_before: datetime) -> int:
        """Delete completed requests that are older than this; how many."""
        ...

    async def due_webhooks(self, now: datetime, limit: int) -> list[QueuedRequest]:
        """Completed requests whose webhook is due, the most overdue first."""
        ...

    async def next_webhook_at(self) -> datetime | None:
        """When the next webhook is due; None where there is none."""
        ...

    async def delivered(self, request: QueuedRequest, delivery: Delivery) -> None:
        """Keep a try to deliver, and how the webhook stands after it."""
        ...

    async def deliveries(self, account: AccountId, request_id: str) -> list[Delivery]:
        """The tries to deliver a request's webhook, in order."""
        ...


class RunnerClient(Protocol):
    """Sends queued requests to runners."""

    async def send(
        self, host: str, port: int, request: QueuedRequest, content: Content, timeout_seconds: float
    ) -> Answer | Failure:
        """Send, and wait for the whole answer. Cancelling breaks the connection, so that the app sees it.

        Raises:
            AnswerTooLarge: the answer is larger than what is kept.
            NodeTrouble: this machine cannot connect now; the runner got nothing.
        """
        ...

    async def accepts(self, host: str, port: int) -> bool:
        """Whether a runner still accepts connections."""
        ...


class WebhookClient(Protocol):
    """Calls receivers of webhooks."""

    async def post(self, call: SignedCall) -> int:
        """POST; the status that was answered. Redirects are not followed.

        Raises:
            OSError: the receiver cannot be reached, or did not answer in time.
        """
        ...


class WebhookSigner(Protocol):
    """Signs webhooks with a key that lives as long as the database."""

    def sign(self, message: bytes) -> str:
        """The ED25519 signature in hex."""
        ...

    def key_set(self) -> Mapping[str, Sequence[Mapping[str, str]]]:
        """The public key as a JSON Web Key Set (RFC 7517, RFC 8037)."""
        ...

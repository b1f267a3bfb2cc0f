"""Webhooks: a signed call for each completed request that asked for one, repeated until it succeeds or is given up."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta

from fal_grpc.backoff import Backoff
from fal_server.core.accounts import KnownAccounts
from fal_server.core.faults import Fault
from fal_server.core.queue import QueuedRequest, WebhookState
from fal_server.core.webhooks import MOST_TRIES, Delivery, SignedCall, message, payload, signature_headers
from fal_server.ports import Clock
from fal_server.ports.queue import QueueStore, WebhookClient, WebhookSigner

log = logging.getLogger(__name__)
# Ten tries within two hours; docs/reference/queue.md promises these numbers, so there is no jitter.
RETRIES = Backoff(first_seconds=14.0, longest_seconds=7200.0, jitter=0)


class Webhooks:
    """The use cases of webhooks.

    Args:
        accounts: an owner's user id is part of the signed text.
    """

    def __init__(
        self, store: QueueStore, client: WebhookClient, signer: WebhookSigner, clock: Clock, accounts: KnownAccounts
    ) -> None:
        self._store = store
        self._client = client
        self._signer = signer
        self._clock = clock
        self._accounts = accounts

    def key_set(self) -> Mapping[str, Sequence[Mapping[str, str]]]:
        """Return the public key with which receivers check signatures."""
        return self._signer.key_set()

    async def due(self, limit: int) -> list[QueuedRequest]:
        """Return requests whose webhook is due."""
        return await self._store.due_webhooks(self._clock.now(), limit)

    async def seconds_to_next(self) -> float | None:
        """Return the seconds until the next webhook is due, or None."""
        at = await self._store.next_webhook_at()
        return None if at is None else max((at - self._clock.now()).total_seconds(), 0.0)

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
            # Count it; otherwise a webhook that cannot be sent would stay the first that is due forever.
            log.exception("the webhook of request %s failed unexpectedly", request.request_id)
            status, error = None, f"the webhook cannot be sent: {type(failure).__name__}"
        now = self._clock.now()
        final = error is None or number >= MOST_TRIES
        again = None if final else now + timedelta(seconds=RETRIES.pause(number))
        state = WebhookState.DELIVERED if error is None else WebhookState.PENDING if again else WebhookState.FAILED
        delivery = Delivery(request_id=request.request_id, number=number, at=now, status=status, error=error)
        await self._store.delivered(
            replace(request, webhook=state, webhook_attempts=number, webhook_at=again), delivery
        )
        return delivery

    async def _call(self, request: QueuedRequest) -> tuple[int | None, str | None]:
        content = await self._store.content(request.account, request.request_id)
        answer = await self._store.answer(request.account, request.request_id)
        if content is None or content.webhook_url is None or answer is None:
            return None, "the request is gone"
        body = payload(request, answer)
        user_id = self._accounts.of(request.account).user_id
        timestamp = int(self._clock.wall().timestamp())  # receivers compare it with their own clocks
        signature = self._signer.sign(message(request.request_id, user_id, timestamp, body))
        headers = signature_headers(request.request_id, user_id, timestamp, signature)
        call = SignedCall(url=content.webhook_url, headers=(("content-type", "application/json"), *headers), body=body)
        try:
            status = await self._client.post(call)
        except OSError as error:
            return None, str(error) or type(error).__name__
        return status, None if 200 <= status < 300 else f"the receiver answered {status}"

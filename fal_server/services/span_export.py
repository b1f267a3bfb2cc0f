"""Exports the spans of ended requests to a receiver of OTLP."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeAlias

from fal_grpc.backoff import Backoff
from fal_server.aio.rounds import Rounds
from fal_server.core.accounts import KnownAccounts
from fal_server.core.outbound import OutboundCall
from fal_server.core.spans import Span, TracedRequest, spans_of
from fal_server.live.events import ChangeNotifier
from fal_server.ports.outbound import OutboundClient

log = logging.getLogger(__name__)
Writer: TypeAlias = "Callable[[Mapping[str, Sequence[Span]]], tuple[str, bytes]]"
MOST_WAITING = 20_000
"""So many requests wait for a receiver that is away; older ones are lost."""
_MOST_AT_ONCE = 500
_RETRIES = Backoff(first_seconds=1.0, longest_seconds=60.0)
# What OTLP names as answers after which the same may be sent again.
_TRY_AGAIN = frozenset({429, 502, 503, 504})
_LAST_SECONDS = 2.0


class SpanExport:
    """Sends spans about a second after their requests end, in that order.

    Owned: by the process that answered them. Those that wait when it is killed are lost.

    Attributes:
        sent_spans: how many spans the receiver took.
        lost_spans: how many were left out, because the receiver refused them or was away for too long.
    """

    def __init__(
        self,
        url: str,
        client: OutboundClient,
        write: Writer,
        accounts: KnownAccounts,
        *,
        most_waiting: int = MOST_WAITING,
        retries: Backoff = _RETRIES,
    ) -> None:
        self._url = url
        self._client = client
        self._write = write
        self._accounts = accounts
        self._most_waiting = most_waiting
        self._retries = retries
        self._waiting: deque[TracedRequest] = deque()
        self._failures = 0
        self._changed = ChangeNotifier()
        self.sent_spans = 0
        self.lost_spans = 0

    def add(self, requests: Iterable[TracedRequest]) -> None:
        """Export the spans of requests, later."""
        self._waiting.extend(request for request in requests if request.trace.sampled)
        while len(self._waiting) > self._most_waiting:
            self.lost_spans += len(spans_of(self._waiting.popleft()))
        self._changed.notify()

    async def run(self, stopping: asyncio.Event) -> None:
        """Export until `stopping` is set. Then export what waits, for some seconds more."""
        sending = asyncio.create_task(Rounds("exporting spans", self.step).run(self._changed))
        await stopping.wait()
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        try:
            async with asyncio.timeout(_LAST_SECONDS):
                while self._waiting and await self.step() == 0:
                    pass
        except TimeoutError:
            log.info("the spans of %d requests are lost: the receiver is too slow", len(self._waiting))

    async def step(self) -> float | None:
        """Send the next spans. Return the seconds until the next step, None if nothing waits."""
        if not self._waiting:
            return None
        taken = [self._waiting.popleft() for _ in range(min(len(self._waiting), _MOST_AT_ONCE))]
        count = 0
        try:
            spans = await asyncio.to_thread(self._spans, taken)
            count = sum(map(len, spans.values()))
            error = await self._post(spans)
        except asyncio.CancelledError:
            self._waiting.extendleft(reversed(taken))
            raise
        except Exception:
            self.lost_spans += count
            raise
        if error is None:
            self.sent_spans += count
            self._failures = 0
            return 0.0
        text, may_repeat = error
        self._failures += 1
        if may_repeat:
            self._waiting.extendleft(reversed(taken))
        else:
            self.lost_spans += count
        pause = self._retries.pause(self._failures)
        log.warning("spans were not exported, try %d; the next is in %.0f s: %s", self._failures, pause, text)
        return pause

    def _spans(self, requests: Iterable[TracedRequest]) -> dict[str, list[Span]]:
        found: dict[str, list[Span]] = {}
        for request in requests:
            nickname = self._accounts.of(request.record.account).nickname
            found.setdefault(nickname, []).extend(spans_of(request))
        return found

    async def _post(self, spans: Mapping[str, Sequence[Span]]) -> tuple[str, bool] | None:
        """Return why the receiver refused spans, and whether to send them again. None if it took them."""
        content_type, body = await asyncio.to_thread(self._write, spans)
        try:
            receipt = await self._client.post(
                OutboundCall(url=self._url, headers=(("content-type", content_type),), body=body)
            )
        except OSError as error:
            return str(error) or type(error).__name__, True
        return None if receipt.taken else (f"the receiver answered {receipt.status}", receipt.status in _TRY_AGAIN)

"""Sends one drain's lines in order, each at least once. The cursor stays behind what the receiver took."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import TypeAlias

from fal_grpc.backoff import Backoff
from fal_server.core.accounts import KnownAccounts
from fal_server.core.drains import DrainBatch, DrainFormat, LogDrain
from fal_server.core.faults import Fault
from fal_server.core.logs import LogEntry
from fal_server.core.outbound import OutboundCall, Receipt
from fal_server.live.unsent_lines import Behind
from fal_server.ports import Clock
from fal_server.ports.drains import DrainStore
from fal_server.ports.outbound import OutboundClient
from fal_server.services.drains import Drains

log = logging.getLogger(__name__)
Writer: TypeAlias = "Callable[[DrainFormat, str, Sequence[LogEntry]], tuple[str, bytes]]"
RETRIES = Backoff(first_seconds=1.0, longest_seconds=300.0)
_MOST_WAIT_SECONDS = 3600.0  # whatever a receiver asks for
_MOST_LINES = 1000
_MOST_BYTES = 1024 * 1024
_MOST_RUNNERS = 50
# So many lines that a filter leaves out are worth a write, so that they are not read again after a restart.
_MOST_SKIPPED = 10_000
_TOO_LARGE = 413


class Draining:
    """One drain at work.

    Args:
        behind: the runners whose lines wait for it.
        write: returns the content type and the body of lines.
    """

    def __init__(
        self,
        drain: LogDrain,
        behind: Behind,
        drains: Drains,
        store: DrainStore,
        client: OutboundClient,
        write: Writer,
        accounts: KnownAccounts,
        clock: Clock,
    ) -> None:
        self._drain = drain
        self._behind = behind
        self._drains = drains
        self._store = store
        self._client = client
        self._write = write
        self._accounts = accounts
        self._clock = clock
        self._read: dict[str, int] = {}  # beyond the stored cursor: lines that the filter left out
        self._skipped = 0
        self._failures = 0
        self._most_lines = _MOST_LINES
        self._most_bytes = _MOST_BYTES
        self._found = False
        self._not_before = clock.now()

    async def step(self) -> float | None:
        """Send the next lines. Return the seconds until there is more to do, None if nothing waits.

        Raises:
            Fault: the store cannot be used; nothing is lost.
        """
        if (wait := (self._not_before - self._clock.now()).total_seconds()) > 0:
            return wait  # lines that are written meanwhile do not shorten it
        if not self._found:
            self._behind.add(await self._store.behind(self._drain))
            self._found = True
        runners = self._behind.first(_MOST_RUNNERS)
        if not runners:
            return None
        batch = await self._store.next_batch(
            self._drain, runners.keys(), self._read, self._most_lines, self._most_bytes
        )
        if not batch.entries:
            await self._skip(batch)
        elif (pause := await self._deliver(batch)) is not None:
            self._not_before = self._clock.now() + timedelta(seconds=pause)
            return pause
        self._behind.passed(runners, batch.left)
        return 0.0

    async def _skip(self, batch: DrainBatch) -> None:
        """Pass lines that the filter leaves out. The cursor moves with the next delivery, or after many of them."""
        self._read |= batch.reached
        self._skipped += batch.read_lines
        if self._skipped >= _MOST_SKIPPED:
            await self._move(0, None)

    async def _deliver(self, batch: DrainBatch) -> float | None:
        """Send a batch and move the cursor. Return the seconds to wait if it was not taken."""
        try:
            receipt = await self._send(batch.entries)
        except Fault as fault:
            return await self._failed(fault.message)
        except OSError as error:
            return await self._failed(str(error) or type(error).__name__)
        except Exception as error:
            log.exception("log drain %s failed unexpectedly", self._drain.name)
            return await self._failed(f"the lines cannot be sent: {type(error).__name__}")
        if not receipt.taken:
            return await self._refused(receipt)
        self._failures = 0
        self._most_lines, self._most_bytes = _MOST_LINES, _MOST_BYTES
        self._read |= batch.reached
        await self._move(len(batch.entries), self._clock.now())
        return None

    async def _send(self, entries: Sequence[LogEntry]) -> Receipt:
        target = self._drains.target(self._drain)
        account = self._accounts.of(self._drain.account).nickname
        content_type, body = self._write(self._drain.format, account, entries)
        headers = (("content-type", content_type), *target.headers.items(), *target.signature_headers(body))
        return await self._client.post(OutboundCall(url=target.url, headers=headers, body=body))

    async def _refused(self, receipt: Receipt) -> float:
        if receipt.status == _TOO_LARGE and self._most_lines > 1:
            # The receiver bounds what it takes: smaller batches pass.
            self._most_lines = max(self._most_lines // 2, 1)
            self._most_bytes //= 2
            return 0.0
        pause = await self._failed(f"the receiver answered {receipt.status}")
        return max(pause, min(receipt.retry_after_seconds or 0.0, _MOST_WAIT_SECONDS))

    async def _failed(self, error: str) -> float:
        self._failures += 1
        pause = RETRIES.pause(self._failures)
        log.info("log drain %s, try %d: %s", self._drain.name, self._failures, error)
        await self._store.fail(self._drain.drain_id, error, self._clock.now())
        return pause

    async def _move(self, sent_lines: int, at: datetime | None) -> None:
        await self._store.advance(self._drain.drain_id, self._read, sent_lines, at)
        self._read, self._skipped = {}, 0

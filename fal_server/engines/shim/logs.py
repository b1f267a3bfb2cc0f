"""Converts a shim's log lines, and acknowledges them when they are stored."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterable
from datetime import UTC, datetime, timedelta

import grpc
import grpc.aio

from fal_grpc.v1 import log_pb2, shim_pb2
from fal_server.core.identity import AccountId
from fal_server.core.logs import LogEntry, LogLevel, LogSource

log = logging.getLogger(__name__)

_ACK_SECONDS = 1.0
_ACK_LINES = 5_000
_MOST_TOGETHER = 4_000  # lines in a transaction, for whose end other writers wait
_AHEAD = 8  # messages of about 256 KiB that may wait while earlier ones are stored
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SOURCES = {
    log_pb2.LogEntry.SOURCE_BUILD: LogSource.BUILD,
    log_pb2.LogEntry.SOURCE_SYSTEM: LogSource.SYSTEM,
    log_pb2.LogEntry.SOURCE_STDOUT: LogSource.STDOUT,
    log_pb2.LogEntry.SOURCE_STDERR: LogSource.STDERR,
}
_LEVELS = {
    log_pb2.TRACE: LogLevel.TRACE,
    log_pb2.DEBUG: LogLevel.DEBUG,
    log_pb2.INFO: LogLevel.INFO,
    log_pb2.WARNING: LogLevel.WARNING,
    log_pb2.ERROR: LogLevel.ERROR,
}


def entries_from_wire(
    entries: Iterable[log_pb2.LogEntry], *, account: AccountId, runner_id: str, app_name: str, revision_id: str
) -> list[LogEntry]:
    """Convert a shim's entries, adding the runner's names."""
    found: list[LogEntry] = []
    # Lines that were read together share a timestamp, so it is converted once.
    known_seconds, known_nanos = -1, 0
    timestamp = _EPOCH
    for entry in entries:
        at = entry.timestamp
        seconds, nanos = at.seconds, at.nanos
        if nanos != known_nanos or seconds != known_seconds:
            known_seconds, known_nanos = seconds, nanos
            timestamp = _EPOCH + timedelta(0, seconds, nanos // 1000)
        found.append(
            LogEntry(
                runner_id=runner_id,
                sequence=entry.sequence,
                timestamp=timestamp,
                level=_LEVELS[entry.level],
                source=_SOURCES[entry.source],
                message=entry.message,
                account=account,
                app_name=app_name,
                revision_id=revision_id,
                request_id=entry.request_id or None,
            )
        )
    return found


class LogAcknowledger:
    """Acknowledges stored lines to a shim. So its spool may delete them.

    A lost acknowledgement does no harm: the spool keeps the lines longer.

    Args:
        send: sends a sequence to the shim.
    """

    def __init__(self, send: Callable[[int], Awaitable[None]]) -> None:
        self._send = send
        self._sent = 0
        self._stored = 0
        self._next_at = 0.0
        self._due = asyncio.Event()
        self._sending: asyncio.Task[None] | None = None

    def stored(self, sequence: int) -> None:
        """Note that lines up to this one are durable. Otherwise a power cut could lose them on both sides."""
        self._stored = sequence
        if sequence - self._sent >= _ACK_LINES:
            self._due.set()
        if self._sending is None or self._sending.done():
            self._sending = asyncio.create_task(self._send_when_due())

    async def last(self) -> None:
        """Send the last acknowledgement."""
        self._due.set()
        if self._sending is not None:
            await self._sending

    def close(self) -> None:
        """Stop sending."""
        if self._sending is not None:
            self._sending.cancel()

    async def _send_when_due(self) -> None:
        """Send at once after a silence. Otherwise send after a second or a number of lines."""
        while self._sent < self._stored:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(self._next_at):
                    await self._due.wait()
            self._due.clear()
            if not await self._acknowledge():
                return

    async def _acknowledge(self) -> bool:
        self._next_at = asyncio.get_running_loop().time() + _ACK_SECONDS
        sequence = self._stored
        try:
            await self._send(sequence)
        except (grpc.aio.AioRpcError, grpc.aio.UsageError) as error:
            log.debug("an acknowledgement of log lines did not arrive: %s", error)
            return False
        self._sent = sequence
        return True


async def batched(
    batches: AsyncIterable[shim_pb2.StreamLogsResponse],
    convert: Callable[[Iterable[log_pb2.LogEntry]], list[LogEntry]],
) -> AsyncGenerator[list[LogEntry]]:
    """Yield batches of a shim's lines. Each has all that arrived while the last batch was stored.

    Each message is converted on arrival, while earlier lines are written.
    """
    received: asyncio.Queue[list[LogEntry] | Exception | None] = asyncio.Queue(_AHEAD)

    async def receive() -> None:
        try:
            async for batch in batches:
                await received.put(convert(batch.entries))
        except Exception as error:  # noqa: BLE001 - raised again below, in its place
            await received.put(error)
        else:
            await received.put(None)

    receiving = asyncio.create_task(receive())
    try:
        while True:
            last = await received.get()
            entries: list[LogEntry] = []
            while isinstance(last, list):
                entries += last
                if received.empty() or len(entries) >= _MOST_TOGETHER:
                    break
                last = received.get_nowait()
            if entries:
                yield entries
            if last is None:
                return
            if isinstance(last, Exception):
                raise last
    finally:
        receiving.cancel()
        await asyncio.gather(receiving, return_exceptions=True)

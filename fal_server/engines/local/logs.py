"""Log entries of the wire as the domain's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Iterable
from datetime import UTC, datetime, timedelta

from fal_grpc.v1 import log_pb2, shim_pb2
from fal_server.core.logs import LogEntry, LogLevel, LogSource

_AHEAD = 8  # messages of about 256 KiB that wait while others are stored
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
    entries: Iterable[log_pb2.LogEntry], *, runner_id: str, app_name: str, revision_id: str
) -> list[LogEntry]:
    """A shim's entries, with the names that all entries of its runner share."""
    found: list[LogEntry] = []
    known = (-1, 0)
    moment = _EPOCH
    for entry in entries:
        stamp = entry.timestamp
        if (stamp.seconds, stamp.nanos) != known:  # lines that were read together have the same
            known = (stamp.seconds, stamp.nanos)
            moment = _EPOCH + timedelta(seconds=stamp.seconds, microseconds=stamp.nanos // 1000)
        found.append(
            LogEntry(
                runner_id=runner_id,
                sequence=entry.sequence,
                timestamp=moment,
                level=_LEVELS[entry.level],
                source=_SOURCES[entry.source],
                message=entry.message,
                app_name=app_name,
                revision_id=revision_id,
                request_id=entry.request_id or None,
            )
        )
    return found


async def together(batches: AsyncIterable[shim_pb2.StreamLogsResponse]) -> AsyncGenerator[list[log_pb2.LogEntry]]:
    """A shim's lines; those that came while the earlier ones were stored, in one piece: one transaction for all."""
    received: asyncio.Queue[shim_pb2.StreamLogsResponse | Exception | None] = asyncio.Queue(_AHEAD)

    async def receive() -> None:
        try:
            async for batch in batches:
                await received.put(batch)
        except Exception as error:  # noqa: BLE001 - raised again below, in its place
            await received.put(error)
        else:
            await received.put(None)

    receiving = asyncio.create_task(receive())
    try:
        while True:
            found = [await received.get()]
            while not received.empty():
                found.append(received.get_nowait())
            entries = [
                entry for batch in found if isinstance(batch, shim_pb2.StreamLogsResponse) for entry in batch.entries
            ]
            if entries:
                yield entries
            last = found[-1]
            if last is None:
                return
            if isinstance(last, Exception):
                raise last
    finally:
        receiving.cancel()
        await asyncio.gather(receiving, return_exceptions=True)

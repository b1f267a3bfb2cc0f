"""Lines that arrive faster than they are stored are batched. All come in order, with errors in place."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing

import pytest

from fal_grpc.v1 import log_pb2, shim_pb2
from fal_server.core.identity import LOCAL
from fal_server.core.logs import LogEntry
from fal_server.engines.shim.logs import batched, entries_from_wire


def batch(*numbers: int) -> shim_pb2.StreamLogsResponse:
    source = log_pb2.LogEntry.SOURCE_STDOUT
    return shim_pb2.StreamLogsResponse(entries=[log_pb2.LogEntry(sequence=number, source=source) for number in numbers])


def entries_of(entries: Iterable[log_pb2.LogEntry]) -> list[LogEntry]:
    return entries_from_wire(entries, account=LOCAL, runner_id="a", app_name="hello", revision_id="rev")


async def many(count: int, error: Exception | None = None) -> AsyncIterator[shim_pb2.StreamLogsResponse]:
    for number in range(count):
        yield batch(2 * number, 2 * number + 1)
        await asyncio.sleep(0)
    if error is not None:
        raise error


async def test_what_comes_meanwhile_is_one_piece() -> None:
    pieces: list[list[int]] = []
    async for entries in batched(many(50), entries_of):
        pieces.append([entry.sequence for entry in entries])
        for _ in range(100):  # storing them takes a while
            await asyncio.sleep(0)
    assert [number for piece in pieces for number in piece] == list(range(100))
    assert 50 / 9 <= len(pieces) <= 50 / 4


async def test_an_error_comes_after_the_lines_before_it() -> None:
    numbers: list[int] = []

    async def read() -> None:
        async for entries in batched(many(3, ConnectionError("the link broke")), entries_of):
            numbers.extend(entry.sequence for entry in entries)

    with pytest.raises(ConnectionError):
        await read()
    assert numbers == list(range(6))


async def test_who_stops_reading_ends_it() -> None:
    async with aclosing(batched(many(1000), entries_of)) as pieces:
        async for entries in pieces:
            assert entries
            break
    assert len(asyncio.all_tasks()) == 1

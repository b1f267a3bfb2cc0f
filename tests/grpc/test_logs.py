"""ListLogs and FollowLogs over the wire: pages, tokens, cursors, ends."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, timedelta

import grpc
import pytest
from google.protobuf.json_format import MessageToDict
from google.protobuf.timestamp_pb2 import Timestamp

from fal_grpc.v1 import log_pb2 as pb
from fal_grpc.v1.log_pb2_grpc import LogsStub
from fal_server.core.logs import LogLevel, LogSource
from fal_server.core.runners import RunnerState
from fal_server.services.logs import READS_AT_ONCE
from tests.grpc.conftest import Stack

R1 = pb.LogSelector(runner_id="runner-1")
HELLO = pb.LogSelector(app=pb.AppLogTarget(app="hello"))


async def pages(stack: Stack, **fields) -> list[list[int]]:
    """Return the sequences of all pages of a listing."""
    found: list[list[int]] = []
    token = ""
    while True:
        request = pb.ListLogsRequest(page_token=token, **fields)
        answer = await LogsStub(stack.channel).ListLogs(request, metadata=stack.metadata)
        found.append([entry.sequence for entry in answer.entries])
        token = answer.next_page_token
        if not token:
            return found


def numbers(messages) -> list[int]:
    return [entry.sequence for message in messages for entry in message.entries]


async def test_a_line_as_it_is_stored(stack: Stack) -> None:
    await stack.logs.ingest(
        [stack.line("runner-1", 1, "hi", level=LogLevel.ERROR, source=LogSource.STDERR, request_id="q")]
    )
    answer = await LogsStub(stack.channel).ListLogs(pb.ListLogsRequest(selector=R1), metadata=stack.metadata)
    assert [MessageToDict(entry, preserving_proto_field_name=True) for entry in answer.entries] == [
        {
            "runner_id": "runner-1",
            "sequence": "1",
            "timestamp": "2026-03-01T12:00:00.001Z",
            "level": "ERROR",
            "source": "SOURCE_STDERR",
            "message": "hi",
            "request_id": "q",
            "app": "hello",
            "revision": "rev-1",
        }
    ]
    assert answer.next_page_token == ""


async def test_pages_in_both_orders_and_a_limit_over_all(stack: Stack) -> None:
    await stack.logs.ingest([stack.line("runner-1", number) for number in range(1, 8)])
    oldest = pb.ListLogsRequest.ORDER_OLDEST_FIRST
    assert await pages(stack, selector=R1) == [[7, 6, 5, 4, 3, 2, 1]]
    assert await pages(stack, selector=R1, page_size=3) == [[7, 6, 5], [4, 3, 2], [1]]
    assert await pages(stack, selector=HELLO, page_size=3, order=oldest) == [[1, 2, 3], [4, 5, 6], [7]]
    assert await pages(stack, selector=R1, page_size=3, lines=5) == [[7, 6, 5], [4, 3]]
    assert await pages(stack, selector=R1, page_size=3, lines=3) == [[7, 6, 5]]
    assert await pages(stack, selector=R1, page_size=1_000_000, order=oldest) == [[1, 2, 3, 4, 5, 6, 7]]


async def test_what_is_looked_for(stack: Stack) -> None:
    await stack.logs.ingest(
        [
            stack.line("runner-1", 1, "Apple"),
            stack.line("runner-1", 2, "pear", request_id="q"),
            stack.line("runner-1", 3, "pineapple", source=LogSource.SYSTEM),
        ]
    )
    assert await pages(stack, selector=pb.LogSelector(runner_id="runner-1", search="APPLE")) == [[3, 1]]
    assert await pages(stack, selector=pb.LogSelector(runner_id="runner-1", request_id="q")) == [[2]]
    system = pb.LogSelector(runner_id="runner-1", sources=[pb.LogEntry.SOURCE_SYSTEM])
    assert await pages(stack, selector=system) == [[3]]
    request = pb.ListLogsRequest(selector=R1)
    request.since.FromDatetime(stack.clock.now() + timedelta(milliseconds=2))
    request.until.FromDatetime(stack.clock.now() + timedelta(milliseconds=3))
    assert await pages(stack, selector=R1, since=request.since, until=request.until) == [[2]]
    assert await pages(stack, selector=R1, until=request.since) == [[1]]


async def test_a_long_search_comes_in_steps_that_say_how_far_it_is(stack: Stack) -> None:
    lines = [
        stack.line("runner-1", number, "needle" if number == 1 else "hay") for number in range(1, READS_AT_ONCE + 3)
    ]
    await stack.logs.ingest(lines)
    stub = LogsStub(stack.channel)
    selector = pb.LogSelector(runner_id="runner-1", search="needle")
    first = await stub.ListLogs(pb.ListLogsRequest(selector=selector), metadata=stack.metadata)
    assert (len(first.entries), first.reached.ToDatetime(UTC)) == (0, lines[2].timestamp)
    rest = pb.ListLogsRequest(selector=selector, page_token=first.next_page_token)
    last = await stub.ListLogs(rest, metadata=stack.metadata)
    assert [entry.sequence for entry in last.entries] == [1]
    assert not last.next_page_token
    assert not last.HasField("reached")


async def test_a_token_belongs_to_its_request(stack: Stack) -> None:
    await stack.logs.ingest([stack.line("runner-1", number) for number in range(1, 4)])
    stub = LogsStub(stack.channel)
    answer = await stub.ListLogs(pb.ListLogsRequest(selector=R1, page_size=1), metadata=stack.metadata)
    for other in (
        pb.ListLogsRequest(selector=HELLO, page_token=answer.next_page_token),
        pb.ListLogsRequest(selector=R1, lines=2, page_token=answer.next_page_token),
    ):
        with pytest.raises(grpc.aio.AioRpcError, match="belongs to another request"):
            await stub.ListLogs(other, metadata=stack.metadata)


async def test_a_stream_ends_with_how_the_runner_ended(stack: Stack) -> None:
    living = stack.runner(state=RunnerState.SETUP)
    await stack.store.save_runners([living])
    await stack.logs.ingest([stack.line("runner-1", 1)])
    stream = LogsStub(stack.channel).FollowLogs(
        pb.FollowLogsRequest(selector=R1, since=Timestamp()), metadata=stack.metadata
    )
    assert numbers([await stream.read()]) == [1]
    await stack.logs.ingest([stack.line("runner-1", 2)])
    assert numbers([await stream.read()]) == [2]
    await stack.logs.ingest([stack.line("runner-1", 3)])
    ended = replace(living, state=RunnerState.TERMINATED, ended_at=stack.clock.now(), exit_code=143, reason="stopped")
    await stack.store.save_runners([ended])
    stack.logs.runner_ended(ended)
    rest = []
    while (message := await stream.read()) is not grpc.aio.EOF:
        rest.append(message)
    assert numbers(rest) == [3]
    last = rest[-1].runner_ended
    assert (last.runner_id, last.exit_code, last.reason) == ("runner-1", 143, "stopped")
    assert last.ended_at.ToDatetime(tzinfo=stack.clock.now().tzinfo) == stack.clock.now()
    # A stream that is resumed after its end ends again and repeats nothing.
    again = LogsStub(stack.channel).FollowLogs(
        pb.FollowLogsRequest(selector=R1, cursor=rest[-1].cursor), metadata=stack.metadata
    )
    assert [(len(m.entries), m.HasField("runner_ended")) async for m in again] == [(0, True)]


async def test_from_now_on_means_what_is_written_later(stack: Stack) -> None:
    await stack.logs.ingest([stack.line("runner-1", 1)])
    stack.clock.advance(3600)
    stream = LogsStub(stack.channel).FollowLogs(pb.FollowLogsRequest(selector=HELLO), metadata=stack.metadata)
    async with asyncio.timeout(30):
        first = await stream.read()  # the stream is open, so later lines are in it
    assert isinstance(first, pb.FollowLogsResponse)
    assert (numbers([first]), bool(first.cursor)) == ([], True)
    later = stack.clock.now() + timedelta(seconds=1)
    await stack.logs.ingest([stack.line("runner-1", 2, timestamp=later)])
    assert numbers([await stream.read()]) == [2]
    stream.cancel()


async def test_a_cursor_belongs_to_its_selector(stack: Stack) -> None:
    await stack.logs.ingest([stack.line("runner-1", 1)])
    stub = LogsStub(stack.channel)
    stream = stub.FollowLogs(pb.FollowLogsRequest(selector=HELLO, since=Timestamp()), metadata=stack.metadata)
    first = await stream.read()
    assert isinstance(first, pb.FollowLogsResponse)
    cursor = first.cursor
    stream.cancel()
    with pytest.raises(grpc.aio.AioRpcError, match="belongs to another request"):
        _ = [
            m async for m in stub.FollowLogs(pb.FollowLogsRequest(selector=R1, cursor=cursor), metadata=stack.metadata)
        ]


async def test_a_hundred_streams_each_get_every_line_once(stack: Stack) -> None:
    await stack.logs.ingest([stack.line("runner-1", 1)])

    async def follow() -> list[int]:
        request = pb.FollowLogsRequest(selector=HELLO, since=Timestamp())
        stream = LogsStub(stack.channel).FollowLogs(request, metadata=stack.metadata)
        found: list[int] = []
        while len(found) < 50:
            found += numbers([await stream.read()])
        stream.cancel()
        return found

    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        streams = [group.create_task(follow()) for _ in range(100)]
        for number in range(2, 51):
            await stack.logs.ingest([stack.line("runner-1", number)])
    assert [task.result() for task in streams] == [list(range(1, 51))] * 100


async def test_long_lines_stay_below_the_usual_limit_of_a_message(stack: Stack) -> None:
    """Clients take 4 MiB by default."""
    await stack.logs.ingest([stack.line("runner-1", number, "\u2603" * 300_000) for number in range(1, 9)])
    oldest = pb.ListLogsRequest.ORDER_OLDEST_FIRST
    assert await pages(stack, selector=R1, order=oldest) == [[number] for number in range(1, 9)]
    assert await pages(stack, selector=R1, lines=3) == [[8], [7], [6]]
    stream = LogsStub(stack.channel).FollowLogs(
        pb.FollowLogsRequest(selector=HELLO, since=Timestamp()), metadata=stack.metadata
    )
    messages = [await stream.read() for _ in range(3)]
    last = messages[-1]
    assert isinstance(last, pb.FollowLogsResponse)
    stream.cancel()
    again = LogsStub(stack.channel).FollowLogs(
        pb.FollowLogsRequest(selector=HELLO, cursor=last.cursor), metadata=stack.metadata
    )
    messages += [await again.read() for _ in range(5)]
    again.cancel()
    assert numbers(messages) == list(range(1, 9))

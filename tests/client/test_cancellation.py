"""Cancellations while a call ends. gRPC raises the call's error alone."""

from __future__ import annotations

import asyncio

import grpc
import grpc.aio

from fal_grpc.aio_calls import AsyncCalls
from fal_grpc.channel import ChannelOptions
from fal_grpc.target import parse_target
from tests.client.support import HANG_SECONDS, KEY, aborting


async def test_a_cancellation_is_not_lost_when_the_call_fails_at_the_same_time(fake):
    fake.answers["ShellRunner"] = aborting(grpc.StatusCode.UNAVAILABLE)
    calls = AsyncCalls(parse_target(fake.host), KEY, ChannelOptions())
    lost: list[grpc.aio.AioRpcError] = []

    async def read() -> None:
        call = calls.session(calls.runners.ShellRunner, timeout_seconds=None)
        call.add_done_callback(stop)
        with calls.translated(calls.runners.ShellRunner):
            try:
                await call.read()
            except grpc.aio.AioRpcError as error:
                lost.append(error)
                raise

    def stop(_: object) -> None:
        task.cancel()

    task = asyncio.create_task(read())
    async with asyncio.timeout(HANG_SECONDS):
        await asyncio.wait((task,))
        await calls.close()
    assert len(lost) == 1, "gRPC keeps cancellations now: see fal_grpc/cancellation.py"
    assert task.cancelled()

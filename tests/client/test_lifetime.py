"""The lifetime of a client: one channel that threads share, and closing. Calls can be cancelled."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
from typing import NoReturn

import pytest

from fal_grpc import calls
from fal_grpc.adapter.log import LogQuery
from fal_grpc.aio import AsyncController
from fal_grpc.controller import Controller
from fal_grpc.errors import ClientClosedError
from fal_grpc.target import parse_target
from fal_grpc.v1 import log_pb2, runner_pb2
from tests.client.support import HANG_SECONDS, KEY


def test_closing_a_stream_cancels_the_call(fake):
    fake.answers["FollowLogs"] = endless
    with Controller(parse_target(fake.host), KEY) as controller:
        batches = controller.follow_logs(LogQuery(runner_id="r"))
        next(batches)
        batches.close()
        assert fake.cancelled.wait(HANG_SECONDS)


async def test_closing_a_stream_cancels_the_call_of_asyncio(fake):
    fake.answers["FollowLogs"] = endless
    async with asyncio.timeout(HANG_SECONDS), AsyncController(parse_target(fake.host), KEY) as controller:
        batches = controller.follow_logs(LogQuery(runner_id="r"))
        await anext(batches)
        await batches.aclose()
        assert await asyncio.to_thread(fake.cancelled.wait, HANG_SECONDS)


def test_a_closed_client_says_so(fake):
    controller = Controller(parse_target(fake.host), KEY)
    controller.list_runners()
    controller.close()
    controller.close()
    with pytest.raises(ClientClosedError, match="closed"):
        controller.list_runners()


async def test_a_closed_asyncio_client_says_so(fake):
    controller = AsyncController(parse_target(fake.host), KEY)
    await controller.list_runners()
    await controller.close()
    await controller.close()
    with pytest.raises(ClientClosedError, match="closed"):
        await controller.list_runners()


def test_closing_ends_the_calls_of_other_threads(fake):
    waiting, caught = threading.Event(), []

    def hang(request, context):
        waiting.set()
        fake.cancelled.wait(HANG_SECONDS)
        return runner_pb2.ListRunnersResponse()

    fake.answers["ListRunners"] = hang
    controller = Controller(parse_target(fake.host), KEY)

    def call():
        try:
            controller.list_runners()
        except ClientClosedError as error:
            caught.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    assert waiting.wait(HANG_SECONDS)
    controller.close()
    thread.join(HANG_SECONDS)
    assert len(caught) == 1


async def test_closing_ends_the_calls_of_other_tasks(fake):
    waiting = threading.Event()

    def hang(request, context):
        waiting.set()
        fake.cancelled.wait(HANG_SECONDS)
        return runner_pb2.ListRunnersResponse()

    fake.answers["ListRunners"] = hang
    controller = AsyncController(parse_target(fake.host), KEY)
    task = asyncio.create_task(controller.list_runners())
    assert await asyncio.to_thread(waiting.wait, HANG_SECONDS)
    await controller.close()
    with pytest.raises(ClientClosedError):
        await task


async def test_a_cancelled_task_stays_cancelled(fake):
    waiting = threading.Event()

    def hang(request, context):
        waiting.set()
        fake.cancelled.wait(HANG_SECONDS)
        return runner_pb2.ListRunnersResponse()

    fake.answers["ListRunners"] = hang
    async with AsyncController(parse_target(fake.host), KEY) as controller:
        task = asyncio.create_task(controller.list_runners())
        assert await asyncio.to_thread(waiting.wait, HANG_SECONDS)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


def test_an_asyncio_client_belongs_to_one_loop(fake):
    controller = AsyncController(parse_target(fake.host), KEY)
    asyncio.run(controller.list_runners())

    async def again():
        with pytest.raises(ClientClosedError, match="event loop"):
            await controller.list_runners()

    asyncio.run(again())


def test_threads_share_one_channel(fake):
    fake.answers["ListRunners"] = runner_pb2.ListRunnersResponse(runners=[runner_pb2.RunnerInfo(runner_id="r")])
    peers = set()

    def answer(request, context):
        peers.add(context.peer())
        return runner_pb2.ListRunnersResponse(runners=[runner_pb2.RunnerInfo(runner_id="r")])

    fake.answers["ListRunners"] = answer
    found = []
    with Controller(parse_target(fake.host), KEY) as controller:
        threads = [
            threading.Thread(target=lambda: found.extend(controller.list_runners()[0].runner_id for _ in range(20)))
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(HANG_SECONDS)
    assert found == ["r"] * 160
    assert len(peers) == 1


def endless(request, context):
    number = 0
    while context.is_active():
        number += 1
        yield log_pb2.FollowLogsResponse(entries=[log_pb2.LogEntry(sequence=number, message="x")], cursor=str(number))


def test_grpc_itself_is_not_loaded_before_a_call():
    code = (
        "import sys; from fal_grpc.controller import Controller; from fal_grpc.aio import AsyncController; "
        "from fal_grpc.target import parse_target; from fal_grpc.credentials import KeyCredentials; "
        "Controller(parse_target('localhost:1'), KeyCredentials('a', 'b')).close(); "
        "sys.exit('grpc' in sys.modules or 'google.protobuf' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_interrupt_while_a_call_starts_cancels_the_call():
    interrupted, cancelled = threading.Event(), threading.Event()

    class Call:
        def cancel(self) -> None:
            cancelled.set()

    def start() -> Call:
        main = threading.main_thread().ident
        assert main is not None
        signal.pthread_kill(main, signal.SIGINT)
        assert interrupted.wait(HANG_SECONDS)
        return Call()

    with pytest.raises(KeyboardInterrupt):
        calls._started(start)
    interrupted.set()
    assert cancelled.wait(HANG_SECONDS)


def test_an_error_while_a_call_starts_is_raised():
    def start() -> NoReturn:
        raise ValueError("closed channel")

    with pytest.raises(ValueError, match="closed channel"):
        calls._started(start)

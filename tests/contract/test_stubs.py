"""The generated stubs: their modules and classes. One stub class serves blocking and asyncio channels."""

from __future__ import annotations

import asyncio
import pickle
import subprocess
import sys
from collections.abc import AsyncIterator

import grpc
from grpc import aio

from fal_grpc.v1 import log_pb2, log_pb2_grpc, runner_pb2

_IMPORT_ALL = """
import importlib, pkgutil, sys
import fal_grpc.v1
for found in pkgutil.iter_modules(fal_grpc.v1.__path__):
    importlib.import_module(f"fal_grpc.v1.{found.name}")
print(sorted(name for name in sys.modules if name.partition(".")[0] in {"fal", "isolate", "isolate_proto"}))
"""


class EchoLogs(log_pb2_grpc.LogsServicer):
    """Answers with its request."""

    async def ListLogs(  # noqa: N802
        self,
        request: log_pb2.ListLogsRequest,
        context: aio.ServicerContext[log_pb2.ListLogsRequest, log_pb2.ListLogsResponse],
    ) -> log_pb2.ListLogsResponse:
        return log_pb2.ListLogsResponse(next_page_token=request.page_token)

    async def FollowLogs(  # noqa: N802
        self,
        request: log_pb2.FollowLogsRequest,
        context: aio.ServicerContext[log_pb2.FollowLogsRequest, log_pb2.FollowLogsResponse],
    ) -> AsyncIterator[log_pb2.FollowLogsResponse]:
        yield log_pb2.FollowLogsResponse(cursor=request.cursor)


def test_messages_know_their_module() -> None:
    runner = runner_pb2.RunnerInfo(runner_id="r1", state=runner_pb2.RunnerInfo.IDLE, node="here")
    assert type(runner).__module__ == "fal_grpc.v1.runner_pb2"
    assert runner.DESCRIPTOR.full_name == "fal.v1.RunnerInfo"
    assert pickle.loads(pickle.dumps(runner)) == runner


def test_importing_them_imports_neither_the_sdk_nor_isolate_and_warns_of_nothing() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", _IMPORT_ALL], check=True, capture_output=True, text=True
    )
    assert done.stdout.strip() == "[]"


async def test_one_stub_serves_both_kinds_of_channel() -> None:
    server = aio.server()
    log_pb2_grpc.add_LogsServicer_to_server(EchoLogs(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    target = f"127.0.0.1:{port}"
    try:
        async with asyncio.timeout(30), aio.insecure_channel(target) as channel:
            stub = log_pb2_grpc.LogsStub(channel)
            answer = await stub.ListLogs(log_pb2.ListLogsRequest(page_token="a"))
            assert answer.next_page_token == "a"
            batches = stub.FollowLogs(log_pb2.FollowLogsRequest(cursor="b"))
            assert [batch.cursor async for batch in batches] == ["b"]

        def blocking() -> str:
            with grpc.insecure_channel(target) as channel:
                stub = log_pb2_grpc.LogsStub(channel)
                return stub.ListLogs(log_pb2.ListLogsRequest(page_token="c"), timeout=30).next_page_token

        assert await asyncio.to_thread(blocking) == "c"
    finally:
        await server.stop(None)

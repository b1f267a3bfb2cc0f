"""The raw stream that exec is measured beside: a gRPC server in a process of its own that sends the same bytes."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio

from fal_grpc.v1 import exec_pb2


async def _read(request: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[bytes]:
    """As many bytes as are asked for, in messages as exec has them."""
    size, chunk = map(int, request.split())
    message = exec_pb2.ReadExecResponse(data=b"\0" * chunk, stream=exec_pb2.EXEC_STREAM_STDOUT)
    for offset in range(0, size, chunk):
        message.offset = offset
        yield message.SerializeToString()


async def _echo(requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[bytes]:
    async for request in requests:
        yield request


async def _serve() -> None:
    server = grpc.aio.server()
    handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        "Read": grpc.unary_stream_rpc_method_handler(_read),
        "Echo": grpc.stream_stream_rpc_method_handler(_echo),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("raw", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await server.stop(None)


if __name__ == "__main__":
    asyncio.run(_serve())

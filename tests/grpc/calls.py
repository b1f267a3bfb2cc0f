"""Calls any method by its path, with raw bytes."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import grpc
from google.protobuf.descriptor import MethodDescriptor

from fal_grpc.aio_calls import keeping_status
from fal_server.grpc import compat


async def answers(
    channel: grpc.aio.Channel, method: MethodDescriptor, data: bytes, metadata, *, second: bool = False
) -> list[bytes]:
    """Send one message, and return all answers. `second` calls the method by its other name."""
    service = compat.FULL_NAME if second else method.containing_service.full_name
    path = f"/{service}/{method.name}"
    if method.client_streaming:
        call = keeping_status(channel.stream_stream(path)(metadata=metadata, timeout=60))
        # If the call is refused at once, the write fails; reading gives the reason.
        with suppress(grpc.RpcError, asyncio.InvalidStateError):
            await call.write(data)
            await call.done_writing()
        return [answer async for answer in call]
    if method.server_streaming:
        stream = channel.unary_stream(path)(data, metadata=metadata, timeout=60)
        return [answer async for answer in stream]
    return [await channel.unary_unary(path)(data, metadata=metadata, timeout=60)]

"""Calls any method by its path, with raw bytes."""

from __future__ import annotations

import grpc
from google.protobuf.descriptor import MethodDescriptor

from fal_server.grpc import compat


async def answers(
    channel: grpc.aio.Channel, method: MethodDescriptor, data: bytes, metadata, *, second: bool = False
) -> list[bytes]:
    """Send one message, and return all answers; `second` calls the method by its other name."""
    service = compat.FULL_NAME if second else method.containing_service.full_name
    path = f"/{service}/{method.name}"
    if method.client_streaming:
        stream = channel.stream_stream(path)(iter([data]), metadata=metadata, timeout=60)
        return [answer async for answer in stream]
    if method.server_streaming:
        stream = channel.unary_stream(path)(data, metadata=metadata, timeout=60)
        return [answer async for answer in stream]
    return [await channel.unary_unary(path)(data, metadata=metadata, timeout=60)]

"""What every call goes through: its key is checked, it gets an id, its failure becomes a status, and it is logged."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any, TypeAlias, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message

from fal_server.access.authentication import Authenticator
from fal_server.access.permissions import METHOD_PERMISSIONS, require
from fal_server.core.faults import Fault, InvalidArgument
from fal_server.grpc.caller import REQUEST_ID, Caller, credentials, request_id
from fal_server.grpc.status import code_of, shortened, trailers

logger = logging.getLogger(__name__)

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
M = TypeVar("M", bound=Message)
# Bytes are a message that is serialised already: what a handler passes on unread.
Answer: TypeAlias = Message | bytes
Unary: TypeAlias = Callable[[M, Caller], Awaitable[Answer]]
Streaming: TypeAlias = Callable[[M, Caller], AsyncGenerator[Answer]]
Collecting: TypeAlias = Callable[[AsyncIterator[M], Caller], Awaitable[Answer]]
Duplex: TypeAlias = Callable[[AsyncIterator[M], Caller], AsyncGenerator[Answer]]


class Guard:
    """Wraps handlers. A request's bytes are parsed only after its caller is known.

    Args:
        access: knows the keys.
    """

    def __init__(self, access: Authenticator) -> None:
        self._access = access

    def unary(self, method: str, request_type: type[M], handler: Unary[M]) -> grpc.RpcMethodHandler[bytes, Answer]:
        """One message to one."""

        async def serve(data: bytes, context: Context) -> Answer:
            async with self._call(method, context) as caller:
                response = await handler(_parsed(request_type, data), caller)
                await caller.accept()
                return response

        return grpc.unary_unary_rpc_method_handler(serve, None, _serialised)

    def streaming(
        self, method: str, request_type: type[M], handler: Streaming[M]
    ) -> grpc.RpcMethodHandler[bytes, Answer]:
        """One message to many."""

        async def serve(data: bytes, context: Context) -> None:
            async with self._call(method, context) as caller:
                await _send_all(handler(_parsed(request_type, data), caller), caller, context)

        return grpc.unary_stream_rpc_method_handler(serve, None, _serialised)

    def collecting(
        self, method: str, request_type: type[M], handler: Collecting[M]
    ) -> grpc.RpcMethodHandler[bytes, Answer]:
        """Many messages to one."""

        async def serve(requests: AsyncIterator[bytes], context: Context) -> Answer:
            async with self._call(method, context) as caller:
                response = await handler(_each(request_type, requests), caller)
                await caller.accept()
                return response

        return grpc.stream_unary_rpc_method_handler(serve, None, _serialised)

    def duplex(self, method: str, request_type: type[M], handler: Duplex[M]) -> grpc.RpcMethodHandler[bytes, Answer]:
        """Many messages to many."""

        async def serve(_: object, context: Context) -> None:
            async with self._call(method, context) as caller, aclosing(_received(request_type, context)) as requests:
                await _send_all(handler(requests, caller), caller, context)

        return grpc.stream_stream_rpc_method_handler(serve, None, _serialised)

    @asynccontextmanager
    async def _call(self, method: str, context: Context) -> AsyncGenerator[Caller]:
        metadata = {key.lower(): value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
        call_id = request_id(metadata)
        key_id = ""
        code = grpc.StatusCode.OK
        started = time.monotonic()
        try:
            principal = await self._access.authenticate(*credentials(metadata))
            key_id = principal.key_id
            require(principal, METHOD_PERMISSIONS[method])
            yield Caller(principal=principal, request_id=call_id, accept=_once(context, call_id))
        except Fault as fault:
            code = code_of(fault)
            await context.abort(code, shortened(fault.message), trailers(fault, call_id))
        except asyncio.CancelledError:
            code = grpc.StatusCode.CANCELLED
            raise
        except Exception:
            code = grpc.StatusCode.INTERNAL
            logger.exception(
                "%s failed unexpectedly [request %s]", method, call_id, extra={"request_id": call_id, "method": method}
            )
            unexpected = Fault(f"the controller failed unexpectedly: its log says more about request {call_id}")
            await context.abort(code, unexpected.message, trailers(unexpected, call_id))
        finally:
            seconds = time.monotonic() - started
            logger.info(
                "%s %s in %.1f ms [request %s]",
                method,
                code.name,
                seconds * 1000,
                call_id,
                extra={
                    "request_id": call_id,
                    "method": method,
                    "code": code.name,
                    "key_id": key_id,
                    "duration_seconds": seconds,
                },
            )


async def _received(request_type: type[M], context: Context) -> AsyncGenerator[M]:
    """Read a stream, up to where the caller half-closes it."""
    while (data := await context.read()) is not grpc.aio.EOF:
        yield _parsed(request_type, data)


async def _each(request_type: type[M], requests: AsyncIterator[bytes]) -> AsyncGenerator[M]:
    async for data in requests:
        yield _parsed(request_type, data)


async def _send_all(responses: AsyncGenerator[Answer], caller: Caller, context: Context) -> None:
    """Write a stream; whatever ends it, its source is closed before the call is over."""
    async with aclosing(responses) as messages:
        async for message in messages:
            await caller.accept()
            await context.write(message)


def _once(context: Context, call_id: str) -> Callable[[], Awaitable[None]]:
    """Sends the answer's first metadata, when called for the first time.

    Until then a refusal has no headers of its own, which is what lets clients retry it.
    """
    sent = False

    async def accept() -> None:
        nonlocal sent
        if not sent:
            sent = True
            await context.send_initial_metadata(((REQUEST_ID, call_id),))

    return accept


def _parsed(request_type: type[M], data: bytes) -> M:
    try:
        return request_type.FromString(data)
    except DecodeError:
        name = request_type.DESCRIPTOR.full_name
        raise InvalidArgument("request", f"the request's bytes are no {name}: compare the .proto files") from None


def _serialised(message: Answer) -> bytes:
    return message if isinstance(message, bytes) else message.SerializeToString()

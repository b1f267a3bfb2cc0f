"""Turns a handler into a gRPC method. It moves messages, turns faults into statuses, and logs a line per call."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple, TypeAlias, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message

from fal_server.access.audit import Recorder
from fal_server.access.open_calls import OpenCalls
from fal_server.core.faults import Fault, InvalidArgument
from fal_server.core.identity import Principal
from fal_server.grpc.caller import REQUEST_ID, Caller, request_id
from fal_server.grpc.permissions import ANY_KEY, APP_OF_REQUEST, METHOD_PERMISSIONS, RECORDED
from fal_server.grpc.recording import address_of, named_things
from fal_server.grpc.restrictions import require_named_app
from fal_server.grpc.status import code_of, shortened, trailers

logger = logging.getLogger(__name__)
# No two services have methods of the same name.
_RECORDED = {name.rpartition(".")[2]: fields for name, fields in RECORDED.items()}
_FREE = {name.rpartition(".")[2] for name, needed in METHOD_PERMISSIONS.items() if needed == ANY_KEY}
_APPS = {name.rpartition(".")[2]: fields for name, fields in APP_OF_REQUEST.items()}
_ACTIONS = {name.rpartition(".")[2]: name.removeprefix("fal.v1.") for name in RECORDED}


class Admitted(NamedTuple):
    """The current call's caller. It has a place to record that there is one."""

    principal: Principal
    open_calls: OpenCalls
    recorder: Recorder


ADMITTED: ContextVar[Admitted] = ContextVar("admitted")
"""Set by the interceptor, which runs in the task of the call."""

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
M = TypeVar("M", bound=Message)
# Bytes are an already serialized message, which a handler forwards unread.
Response: TypeAlias = Message | bytes
Unary: TypeAlias = Callable[[M, Caller], Awaitable[Response]]
ServerStreaming: TypeAlias = Callable[[M, Caller], AsyncGenerator[Response]]
ClientStreaming: TypeAlias = Callable[[AsyncIterator[M], Caller], Awaitable[Response]]
Bidirectional: TypeAlias = Callable[[AsyncIterator[M], Caller], AsyncGenerator[Response]]
Method: TypeAlias = "grpc.RpcMethodHandler[bytes, Response]"


def unary(name: str, request_type: type[M], handler: Unary[M]) -> Method:
    """Return a unary method."""

    async def serve(data: bytes, context: Context) -> Response:
        async with _call(name, context) as caller:
            request = _parsed(request_type, data)
            await _admit(name, request, caller, context)
            response = await handler(request, caller)
            await caller.accept()
            return response

    return grpc.unary_unary_rpc_method_handler(serve, None, _serialized)


def server_streaming(name: str, request_type: type[M], handler: ServerStreaming[M]) -> Method:
    """Return a server-streaming method."""

    async def serve(data: bytes, context: Context) -> None:
        async with _call(name, context) as caller:
            request = _parsed(request_type, data)
            await _admit(name, request, caller, context)
            await _send_all(handler(request, caller), caller, context)

    return grpc.unary_stream_rpc_method_handler(serve, None, _serialized)


def client_streaming(name: str, request_type: type[M], handler: ClientStreaming[M]) -> Method:
    """Return a client-streaming method."""

    async def serve(requests: AsyncIterator[bytes], context: Context) -> Response:
        async with _call(name, context) as caller:
            response = await handler(_admitted(name, _each(request_type, requests), caller, context), caller)
            await caller.accept()
            return response

    return grpc.stream_unary_rpc_method_handler(serve, None, _serialized)


def bidirectional(name: str, request_type: type[M], handler: Bidirectional[M]) -> Method:
    """Return a bidirectional method."""

    async def serve(_: object, context: Context) -> None:
        async with _call(name, context) as caller, aclosing(_received(request_type, context)) as received:
            requests = _admitted(name, received, caller, context)
            await _send_all(handler(requests, caller), caller, context)

    return grpc.stream_stream_rpc_method_handler(serve, None, _serialized)


def refusing(name: str, reason: Exception, key_id: str) -> Method:
    """Return a method that answers every call with an error. It reads no message.

    It is a streaming method: gRPC reads and inflates the request of a unary method before it calls the handler.

    Args:
        key_id: of the caller, for the log; empty if unknown.
    """

    async def serve(_: object, context: Context) -> None:
        async with _outcome(name, context, key_id):
            raise reason

    return grpc.stream_stream_rpc_method_handler(serve, None, _serialized)


@asynccontextmanager
async def _call(name: str, context: Context) -> AsyncGenerator[Caller]:
    principal, open_calls, _ = ADMITTED.get()
    async with _outcome(name, context, principal.key_id) as call_id:
        with open_calls.in_this_task(principal):
            yield Caller(principal=principal, request_id=call_id, accept=_once(context, call_id))


@asynccontextmanager
async def _outcome(name: str, context: Context, key_id: str) -> AsyncGenerator[str]:
    """Set the call's id. Turn a failure into its status, and log the outcome."""
    call_id = request_id(context.invocation_metadata() or ())
    code = grpc.StatusCode.OK
    started = time.monotonic()
    try:
        yield call_id
    except Fault as fault:
        code = code_of(fault)
        await context.abort(code, shortened(fault.message), trailers(fault, call_id))
    except asyncio.CancelledError:
        code = grpc.StatusCode.CANCELLED
        raise
    except Exception:
        code = grpc.StatusCode.INTERNAL
        logger.exception(
            "%s failed unexpectedly [request %s]", name, call_id, extra={"request_id": call_id, "method": name}
        )
        unexpected = Fault(f"the controller failed unexpectedly: its log says more about request {call_id}")
        await context.abort(code, unexpected.message, trailers(unexpected, call_id))
    finally:
        seconds = time.monotonic() - started
        logger.info(
            "%s %s in %.1f ms [request %s]",
            name,
            code.name,
            seconds * 1000,
            call_id,
            extra={
                "request_id": call_id,
                "method": name,
                "code": code.name,
                "key_id": key_id,
                "duration_seconds": seconds,
            },
        )


async def _admit(name: str, request: Message, caller: Caller, context: Context) -> None:
    """Refuse objects outside the part that a key is for. Record the coming change.

    Raises:
        PermissionDenied: the key is for one app or environment, and the request does not name one.
        NotFound: it names another one.
        Unavailable: the change cannot be recorded.
    """
    if name not in _FREE:
        require_named_app(caller.principal, request, _APPS.get(name))
    fields = _RECORDED.get(name)
    if fields is None:
        return
    await ADMITTED.get().recorder.record(
        caller.principal,
        _ACTIONS[name],
        named_things(request, fields),
        source=address_of(context.peer()),
        request_id=caller.request_id,
    )


async def _admitted(name: str, requests: AsyncIterator[M], caller: Caller, context: Context) -> AsyncGenerator[M]:
    """Forward requests; the first one names the call's object."""
    first = True
    async for request in requests:
        if first:
            await _admit(name, request, caller, context)
            first = False
        yield request


async def _received(request_type: type[M], context: Context) -> AsyncGenerator[M]:
    """Yield the requests until the caller half-closes the stream."""
    while (data := await context.read()) is not grpc.aio.EOF:
        yield _parsed(request_type, data)


async def _each(request_type: type[M], requests: AsyncIterator[bytes]) -> AsyncGenerator[M]:
    async for data in requests:
        yield _parsed(request_type, data)


async def _send_all(responses: AsyncGenerator[Response], caller: Caller, context: Context) -> None:
    """Write the responses, and close their source before the call ends. This happens whatever ends the stream."""
    async with aclosing(responses) as messages:
        async for message in messages:
            await caller.accept()
            await context.write(message)


def _once(context: Context, call_id: str) -> Callable[[], Awaitable[None]]:
    """Return a function whose first call sends the initial metadata.

    Until then a refusal has no headers of its own, and clients only retry such refusals.
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


def _serialized(message: Response) -> bytes:
    return message if isinstance(message, bytes) else message.SerializeToString()

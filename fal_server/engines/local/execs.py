"""The line to a shim's commands: fal.v1.Execs on its socket, without looking into what is carried."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import TypeAlias

import grpc
import grpc.aio

from fal_server.core.faults import (
    Aborted,
    AlreadyExists,
    Exhausted,
    Fault,
    Invalid,
    NotFound,
    Precondition,
    Unavailable,
)
from fal_server.engines.local.session import this_task_is_cancelled

_Unary: TypeAlias = "grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]"
_Reading: TypeAlias = "grpc.aio.UnaryStreamMultiCallable[bytes, bytes]"
_Writing: TypeAlias = "grpc.aio.StreamUnaryMultiCallable[bytes, bytes]"
_SERVICE = "/fal.v1.Execs/"
_CALL_SECONDS = 10.0
_KINDS: dict[str, type[Fault]] = {
    kind.reason: kind for kind in (Aborted, AlreadyExists, Exhausted, NotFound, Precondition)
}


class LocalExecLine:
    """Implements ExecLine.

    Args:
        channel: to the shim.
        metadata: with the runner's token.
        runner_id: for messages.
    """

    def __init__(self, channel: grpc.aio.Channel, metadata: tuple[tuple[str, str], ...], runner_id: str) -> None:
        self._channel = channel
        self._metadata = metadata
        self._runner_id = runner_id

    async def call(self, method: str, request: bytes) -> bytes:
        """Call a method that has one answer."""
        make: _Unary = self._channel.unary_unary(_SERVICE + method)
        try:
            return await make(request, metadata=self._metadata, timeout=_CALL_SECONDS)
        except grpc.aio.AioRpcError as error:
            raise self._fault(error) from error

    async def read(self, request: bytes) -> AsyncIterator[bytes]:
        """ReadExec."""
        make: _Reading = self._channel.unary_stream(f"{_SERVICE}ReadExec")
        call = make(request, metadata=self._metadata)
        try:
            async for message in call:
                yield message
        except grpc.aio.AioRpcError as error:
            raise self._fault(error) from error
        except asyncio.CancelledError:
            if this_task_is_cancelled():
                raise
            raise Unavailable(f"the link to runner {self._runner_id} was closed") from None
        finally:
            call.cancel()

    async def write(self, requests: AsyncIterator[bytes]) -> bytes:
        """WriteExec."""
        make: _Writing = self._channel.stream_unary(f"{_SERVICE}WriteExec")
        call = make(metadata=self._metadata)
        try:
            with suppress(asyncio.InvalidStateError):  # it was ended from the other side; how is learnt below
                async for request in requests:
                    await call.write(request)
                await call.done_writing()
            return await call
        except grpc.aio.AioRpcError as error:
            raise self._fault(error) from error
        finally:
            call.cancel()

    def _fault(self, error: grpc.aio.AioRpcError) -> Fault:
        """The same refusal as a fault; the shim words one of an argument `field: what is wrong`."""
        code = error.code()
        words = error.details() or code.name
        if code is grpc.StatusCode.INVALID_ARGUMENT:
            field, _, rest = words.partition(": ")
            return Invalid(field, rest or words)
        kind = _KINDS.get(code.name)
        return kind(words) if kind is not None else Unavailable(f"runner {self._runner_id}: {words}")

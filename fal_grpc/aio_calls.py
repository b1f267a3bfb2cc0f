"""Makes asyncio calls; `calls` makes blocking ones."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar, cast

from fal_grpc.aio_stubs import AsyncStubs
from fal_grpc.call_errors import CLOSED_IN_FLIGHT, CallErrors
from fal_grpc.cancellation import raise_if_cancelled
from fal_grpc.channel import ChannelOptions, open_aio_channel
from fal_grpc.compat import renamed_aio
from fal_grpc.credentials import Credentials
from fal_grpc.errors import ClientClosedError, RpcFailure
from fal_grpc.target import Target

if TYPE_CHECKING:
    import grpc
    import grpc.aio

Q = TypeVar("Q")
R = TypeVar("R")
T = TypeVar("T")
S = TypeVar("S")
Call = TypeVar("Call")


class AsyncCalls(AsyncStubs, CallErrors):
    """Makes a controller's calls over one channel. The channel belongs to the event loop of the first call."""

    def __init__(self, target: Target, credentials: Credentials, options: ChannelOptions) -> None:
        CallErrors.__init__(self, target, options)
        self._credentials = credentials
        self._loop: asyncio.AbstractEventLoop | None = None
        self._channel: grpc.aio.Channel | None = None
        self._stubs: dict[object, object] = {}

    def _stub(self, make: Callable[[grpc.aio.Channel], S]) -> S:
        """Return the stub of a service, opening the channel at first use.

        Raises:
            ClientClosedError: `close` was called, or the first call used another event loop.
            ConfigError: credentials or certificates do not fit the target.
        """
        if self._closed:
            self._refuse()
        loop = asyncio.get_running_loop()
        if self._channel is None:
            self._channel = open_aio_channel(self.target, self._credentials, self.options)
            self._loop = loop
        elif self._loop is not loop:
            raise ClientClosedError(
                "This client belongs to the event loop of its first call. Make one client for each asyncio.run()."
            )
        if make not in self._stubs:
            isolate = self.options.wire == "isolate"
            self._stubs[make] = make(renamed_aio(self._channel) if isolate else self._channel)
        return cast("S", self._stubs[make])

    async def close(self) -> None:
        """Close the channel and cancel the calls in flight. A second close does nothing."""
        self._closed = True
        channel, self._channel = self._channel, None
        self._stubs.clear()
        if channel is not None:
            await channel.close()

    async def unary(
        self, method: grpc.aio.UnaryUnaryMultiCallable[Q, R], request: Q, *, deadline_seconds: float | None = None
    ) -> R:
        """Make a unary call; without a deadline it uses the channel's."""
        seconds = self.options.deadline_seconds if deadline_seconds is None else deadline_seconds
        with self.translated(method):
            return await method(request, timeout=seconds, metadata=self._credentials.metadata())

    async def stream(
        self, method: grpc.aio.UnaryStreamMultiCallable[Q, R], request: Q, convert: Callable[[R], T]
    ) -> AsyncGenerator[T, None]:
        """Make a streaming call. Closing the generator cancels the call."""
        with self.translated(method):
            call = method(request, metadata=self._credentials.metadata())
            try:
                async for message in call:
                    yield convert(message)
            finally:
                call.cancel()

    def open(self, method: grpc.aio.UnaryStreamMultiCallable[Q, R], request: Q) -> grpc.aio.UnaryStreamCall[Q, R]:
        """Open a server-streaming call, whose reader translates errors."""
        return method(request, metadata=self._credentials.metadata())

    def upload(self, method: grpc.aio.StreamUnaryMultiCallable[Q, R]) -> grpc.aio.StreamUnaryCall[Q, R]:
        """Open a client-streaming call, which translates no errors."""
        return method(metadata=self._credentials.metadata())

    def session(
        self, method: grpc.aio.StreamStreamMultiCallable[Q, R], *, timeout_seconds: float | None
    ) -> grpc.aio.StreamStreamCall[Q, R]:
        """Open a bidirectional call, whose reader translates errors."""
        return keeping_status(method(timeout=timeout_seconds, metadata=self._credentials.metadata()))

    @contextmanager
    def translated(self, method: object) -> Generator[None, None, None]:
        """Raise the client's own error for gRPC's."""
        import grpc
        import grpc.aio

        try:
            yield
        except grpc.RpcError as failure:
            raise_if_cancelled()
            raise self.error(cast("RpcFailure", failure), method) from None
        except asyncio.CancelledError:
            # Closing a channel cancels its calls, and gRPC then raises as if this task had been cancelled.
            task = asyncio.current_task()
            if self._closed and task is not None and not task.cancelling():
                raise ClientClosedError(CLOSED_IN_FLIGHT) from None
            raise
        except grpc.aio.UsageError:
            # gRPC raises this for a call on a channel that another task has closed.
            if self._closed:
                self._refuse()
            raise


def keeping_status(call: Call) -> Call:
    """Let a client-streaming call report the controller's status even after failed writes. Return the call."""
    inner = getattr(call, "_cython_call", None)
    if inner is not None:
        setattr(call, "_cython_call", _KeepsStatus(inner))  # noqa: B010  # no public way; see _KeepsStatus
    return call


class _KeepsStatus:
    """The core of a call, without gRPC's replacement of the controller's status.

    If a write meets the end of a call, grpc.aio replaces the controller's status by an internal error, so that a
    refusal looks like a broken link. This class keeps the status: the writer waits for it, and it always arrives. If
    gRPC renames its attribute, the original fault is back, and nothing worse.
    """

    def __init__(self, call: object) -> None:
        self._call = call

    def __getattr__(self, name: str) -> object:
        return getattr(self._call, name)

    def set_internal_error(self, error: str) -> None:
        """Keep the controller's status."""

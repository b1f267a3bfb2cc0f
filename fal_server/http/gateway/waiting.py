"""Waits for request bodies. A caller gets a slot only after sending its part, and only while it sends."""

from __future__ import annotations

import asyncio
from typing import Protocol

from fal_server.http.gateway.deadlines import Deadlines
from fal_server.http.server.errors import HttpError
from fal_server.http.server.exchange import Exchange
from fal_server.http.server.rules import Limits

# The most that a connection buffers of an unread body; a longer one continues once the runner reads it.
_HELD_BYTES = Limits().body_buffer_bytes
_LEAST_BYTES = 4 * 1024


def body_is_here(exchange: Exchange, length: int | None) -> bool:
    """Return whether a body is complete, or buffered up to the limit. One of unknown length may be a dialogue."""
    return exchange.complete or length is None or exchange.buffered >= min(length, _HELD_BYTES)


def too_slow(seconds: float) -> HttpError:
    """Return the error for a caller who sends the body too slowly."""
    return HttpError(
        408, "request_timeout", f"less than {_LEAST_BYTES} bytes of the request's body came within {seconds:g} s"
    )


class WaitingDriver:
    """Drives an exchange without a runner; the body waits in the exchange."""

    __slots__ = ("_came", "_exchange", "_length", "task")

    task: asyncio.Task[None]

    def __init__(self, exchange: Exchange, length: int | None) -> None:
        self._exchange = exchange
        self._length = length
        self._came = asyncio.Event()

    async def body(self, seconds: float) -> None:
        """Wait until the body is here.

        Raises:
            HttpError: it arrives too slowly.
        """
        if body_is_here(self._exchange, self._length):
            return
        self._exchange.accept_body()
        while not body_is_here(self._exchange, self._length):
            had = self._exchange.buffered
            try:
                async with asyncio.timeout(seconds):
                    await self._came.wait()
            except TimeoutError:
                if self._exchange.buffered - had < _LEAST_BYTES:
                    raise too_slow(seconds) from None

    def on_body(self) -> None:
        if body_is_here(self._exchange, self._length):
            self._came.set()

    def on_client_gone(self) -> None:
        self.task.cancel()

    def on_client_slow(self) -> None:
        """Do nothing, because nothing is sent yet."""

    def on_client_ready(self) -> None:
        """Do nothing, because nothing is sent yet."""


class Receiving(Protocol):
    """A request whose body is forwarded to a runner as it arrives."""

    def waits_for_caller(self) -> bool | None:
        """Return whether only the caller delays the body. None if no more of it is needed."""
        ...

    def body_too_slow(self, seconds: float) -> None:
        """End the request, because its caller does not send."""
        ...


class BodyClock:
    """Ends a request whose caller occupies a runner's slot without sending.

    Attributes:
        received: bytes of the body that went to the runner.
    """

    __slots__ = ("_before", "_deadlines", "_request", "_seconds", "received")

    def __init__(self, request: Receiving, deadlines: Deadlines, seconds: float) -> None:
        self._request = request
        self._deadlines = deadlines
        self._seconds = seconds
        self.received = self._before = 0
        deadlines.add(self, seconds)

    def stop(self) -> None:
        """Stop watching."""
        self._deadlines.discard(self, self._seconds)

    def time_out(self) -> None:
        came, self._before = self.received - self._before, self.received
        waits = self._request.waits_for_caller()
        if waits and came < _LEAST_BYTES:
            self._request.body_too_slow(self._seconds)
        elif waits is not None:
            self._deadlines.add(self, self._seconds)

"""Writes that must not be lost. They are repeated until the store accepts them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar, overload

from fal_grpc.backoff import Backoff
from fal_server.core.faults import Fault

T = TypeVar("T")
log = logging.getLogger(__name__)
_PAUSES = Backoff(first_seconds=0.25, longest_seconds=5.0)


@overload
async def until_stored(
    what: str, write: Callable[[], Awaitable[T]], *, unforeseen: Callable[[], None] | None = None
) -> T: ...
@overload
async def until_stored(
    what: str,
    write: Callable[[], Awaitable[T]],
    *,
    stopping: asyncio.Event,
    unforeseen: Callable[[], None] | None = None,
) -> T | None: ...
async def until_stored(
    what: str,
    write: Callable[[], Awaitable[T]],
    *,
    stopping: asyncio.Event | None = None,
    unforeseen: Callable[[], None] | None = None,
) -> T | None:
    """Repeat a write until it succeeds. Nobody reports the same event a second time.

    Args:
        what: what is written, for the log.
        stopping: once it is set, the next failure is the last.
        unforeseen: called after an error that is no Fault, before the next attempt, so that it may change what is
            written; None raises such an error.

    Returns:
        The result of the write; None if `stopping` ended it.
    """
    stopping = stopping or asyncio.Event()
    failures = 0
    while True:
        try:
            return await write()
        except Fault as fault:
            failures += 1
            log.warning("%s cannot be stored yet: %s", what, fault.message)
        except Exception:
            if unforeseen is None:
                raise
            failures += 1
            log.exception("%s cannot be stored yet", what)
            unforeseen()
        if stopping.is_set():
            return None
        try:
            async with asyncio.timeout(_PAUSES.pause(failures)):
                await stopping.wait()
        except TimeoutError:
            continue

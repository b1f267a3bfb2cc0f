"""Reads watched lists for `client.runners.watch` and `client.apps.watch` for asyncio."""

# The source of fal/api/watch_reading.py: run `make gen` after a change.

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, TypeVar

from fal.api.watches import POLL_SECONDS, WatchedList
from fal_grpc.errors import UnavailableError, UnimplementedError

if TYPE_CHECKING:
    from fal.api.opener import AsyncOpener
    from fal_grpc.adapter.changes import Changes
    from fal_grpc.aio import AsyncController

T = TypeVar("T")


async def read(
    client: AsyncOpener,
    watched: WatchedList[T],
    stream: Callable[[AsyncController, str], AsyncGenerator[Changes[T], None]],
    fetch: Callable[[AsyncController], Awaitable[list[T]]],
) -> AsyncGenerator[list[T], None]:
    """Yield the complete list at each change. It is also yielded at least about every two seconds.

    Args:
        client: opens the controller.
        watched: applies the changes.
        stream: watches from a version on.
        fetch: returns the list, for controllers without watches.
    """
    controller = await client.controller()
    while True:
        failure: UnavailableError | None = None
        try:
            async with aclosing(stream(controller, watched.version)) as messages:
                async for changes in messages:
                    if watched.take(changes):
                        yield watched.items()
        except UnimplementedError:
            break
        except UnavailableError as error:
            failure = error
        await asyncio.sleep(watched.pause(failure))
    while True:
        yield await fetch(controller)
        await asyncio.sleep(POLL_SECONDS)

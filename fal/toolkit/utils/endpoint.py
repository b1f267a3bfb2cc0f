"""Stops an endpoint's work when its caller disconnects."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress

from starlette.requests import Request


@asynccontextmanager
async def cancel_on_disconnect(request: Request) -> AsyncGenerator[None, None]:
    """Stop the block when the caller disconnects, and continue after it.

        async with cancel_on_disconnect(request):
            await draw()

    Args:
        request: the request; its body must have been read.
    """
    working = asyncio.current_task()
    assert working is not None
    left = False

    async def watch() -> None:
        nonlocal left
        while (await request.receive())["type"] != "http.disconnect":
            continue
        left = True
        working.cancel()

    watching = asyncio.create_task(watch())
    try:
        yield
    except asyncio.CancelledError:
        if not left or working.uncancel() > 0:
            raise
    finally:
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching

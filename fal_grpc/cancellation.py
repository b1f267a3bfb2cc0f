"""Cancellations of asyncio tasks that gRPC loses."""

from __future__ import annotations

import asyncio


def raise_if_cancelled() -> None:
    """Raise the cancellation of this task if gRPC raised another error instead.

    It does so where a call ends at the same time, such as when its server stops: the task would go on, and who waits
    for its end would wait forever.

    Raises:
        asyncio.CancelledError: this task was cancelled.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError

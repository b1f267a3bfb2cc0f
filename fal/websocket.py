"""Gives threads a WebSocket that only one thread touches.

Two threads may not use one TLS connection of OpenSSL. The blocking client of the websockets library reads in a thread
of its own: what another thread writes while that reads a session ticket of TLS 1.3 is lost, and no answer comes.
"""

from __future__ import annotations

import asyncio
import os
import threading
import weakref

# Not from queue: a file beside an app may have that name, and a deploy imports this module.
from _queue import Empty, SimpleQueue
from collections.abc import Coroutine
from types import TracebackType
from typing import TYPE_CHECKING, Generic, Self, TypeVar

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection, connect

T = TypeVar("T")

_STEP_SECONDS = 1.0


class WebSocket:
    """A WebSocket for threads; its errors are those of the websockets library.

    Args:
        opening: the library's description of the connection, which is opened here.
    """

    def __init__(self, opening: connect) -> None:
        # The key that the headers have is for this host alone, and so are the messages.
        opening.process_redirect = _not_followed  # type: ignore[method-assign]
        self._loop = asyncio.new_event_loop()
        self._process_id = os.getpid()
        threading.Thread(target=_run, args=(self._loop,), name="fal-websocket", daemon=True).start()
        # The loop outlives `close`: other threads may still send, and need to be told that the WebSocket is closed.
        end = weakref.finalize(self, self._loop.call_soon_threadsafe, self._loop.stop)
        try:
            self._connection = self._wait(_open(opening))
        except BaseException:
            end()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def send(self, message: str | bytes) -> None:
        """Send a message; text as text, bytes as binary."""
        self._wait(self._connection.send(message))

    def recv(self, timeout: float | None = None) -> str | bytes:
        """Return the next message.

        Raises:
            TimeoutError: none came within `timeout` seconds.
        """
        return self._wait(_receive(self._connection, timeout))

    def close(self) -> None:
        """Close the WebSocket, and wait until it is closed."""
        self._wait(self._connection.close())

    def _wait(self, work: Coroutine[object, object, T]) -> T:
        call = _Awaited(work)
        try:
            self._loop.call_soon_threadsafe(call.start)
            # Not `is_alive`, which an exception in the middle leaves saying no.
            while os.getpid() == self._process_id and not self._loop.is_closed():
                try:  # in steps, since a signal does not surely end an unlimited wait
                    ended = call.ended.get(timeout=_STEP_SECONDS)
                except Empty:
                    continue
                if not ended.cancelled():
                    return ended.result()
            raise ConnectionError("the WebSocket was opened in another process, or this one ends")
        except BaseException:
            # A signal's exception: nobody would get what the work returns.
            self._loop.call_soon_threadsafe(call.cancel)
            raise


class _Awaited(Generic[T]):
    """Work in the loop's thread, for whose end another thread waits.

    A signal's exception may come between any two steps of the waiting thread. It would leave a lock of Python code, as
    concurrent.futures has, held for ever, and the loop's thread would wait for it. A SimpleQueue stays whole.
    """

    def __init__(self, work: Coroutine[object, object, T]) -> None:
        self.ended: SimpleQueue[asyncio.Task[T]] = SimpleQueue()
        self._work = work
        self._task: asyncio.Task[T] | None = None

    def start(self) -> None:
        """Start the work in the running loop."""
        self._task = asyncio.get_running_loop().create_task(self._work)
        self._task.add_done_callback(self.ended.put)

    def cancel(self) -> None:
        """Cancel the work, if it was not started too."""
        if self._task is None:
            self._work.close()
        else:
            self._task.cancel()


def _run(loop: asyncio.AbstractEventLoop) -> None:
    try:
        loop.run_forever()
        loop.run_until_complete(_end_tasks())
    finally:
        loop.close()


async def _end_tasks() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _not_followed(exc: Exception) -> Exception | str:
    return exc


async def _open(opening: connect) -> ClientConnection:
    return await opening


async def _receive(connection: ClientConnection, seconds: float | None) -> str | bytes:
    async with asyncio.timeout(seconds):
        return await connection.recv()

"""Reads and writes file descriptors from the event loop, with backpressure."""

from __future__ import annotations

import asyncio
import errno
import os
import select
import time
from collections.abc import Callable
from typing import TypeAlias

Watch: TypeAlias = Callable[[int, Callable[[], None]], None]
Unwatch: TypeAlias = Callable[[int], bool]
FLOOD_BYTES = 4000
"""A read of at least this many bytes counts as a flood; keys, prompts and lines are shorter."""


async def read_some(fd: int, size: int) -> bytes:
    """Return the available data, waiting for the first byte. It is b"" at the end.

    A terminal ends when nobody has it open.

    Args:
        fd: a non-blocking descriptor.
        size: the most bytes to return.
    """
    loop = asyncio.get_running_loop()
    while True:
        try:
            data = read_on(fd, size, os.read(fd, size))
        except BlockingIOError:
            await until_ready(fd, loop.add_reader, loop.remove_reader)
        except OSError as error:
            if error.errno == errno.EIO:
                return b""
            raise
        else:
            await asyncio.sleep(0)  # a fast writer must not starve the rest of the event loop
            return data


def read_on(fd: int, size: int, data: bytes, *, flood_seconds: float = 0.0) -> bytes:
    """Append further available data to `data`. A terminal delivers 4 KiB at a time.

    Args:
        flood_seconds: how long to wait for more in a flood. Its writer only has room for more after a read, so more
            arrives at once; a turn of the event loop for each piece would take several times as long.
    """
    pieces = [data]
    length = len(data)
    waiting = select.poll()
    waiting.register(fd, select.POLLIN)
    deadline = time.monotonic() + flood_seconds
    while data and length < size:
        try:
            data = os.read(fd, size - length)
        except BlockingIOError:
            if length < FLOOD_BYTES or time.monotonic() >= deadline or not waiting.poll(1):
                break
            continue
        except OSError:  # the end; the next read reports it again
            break
        pieces.append(data)
        length += len(data)
    return b"".join(pieces)


async def write_all(fd: int, data: bytes) -> None:
    """Write everything, waiting while nobody reads.

    Raises:
        OSError: the other end is closed.
    """
    loop = asyncio.get_running_loop()
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            await until_ready(fd, loop.add_writer, loop.remove_writer)


async def until_ready(fd: int, add: Watch, remove: Unwatch) -> None:
    """Wait until a descriptor can be read or written.

    Args:
        add, remove: the event loop's methods for readers, or those for writers.
    """
    ready = asyncio.Event()
    add(fd, ready.set)
    try:
        await ready.wait()
    finally:
        remove(fd)

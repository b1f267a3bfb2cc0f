"""Reading and writing file descriptors from the event loop, with backpressure."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable


async def read_some(fd: int, size: int) -> bytes:
    """What can be read now, waiting for the first byte; b"" at the end: for a terminal, when nobody has it open.

    Args:
        fd: a descriptor that does not block.
        size: at most so many bytes.
    """
    loop = asyncio.get_running_loop()
    while True:
        try:
            data = read_on(fd, size, os.read(fd, size))
        except BlockingIOError:
            await _ready(fd, loop.add_reader, loop.remove_reader)
        except OSError as error:
            if error.errno == errno.EIO:
                return b""
            raise
        else:
            await asyncio.sleep(0)  # a writer that is always ahead must not keep the loop from everything else
            return data


def read_on(fd: int, size: int, data: bytes) -> bytes:
    """Add what else is there already: a terminal gives 4 KiB at a time."""
    pieces = [data]
    length = len(data)
    while data and length < size:
        try:
            data = os.read(fd, size - length)
        except OSError:  # nothing there yet, or an end that the next read will see again
            break
        pieces.append(data)
        length += len(data)
    return b"".join(pieces)


async def write_all(fd: int, data: bytes) -> None:
    """Write everything, waiting while nobody reads.

    Raises:
        OSError: nobody can read any more.
    """
    loop = asyncio.get_running_loop()
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            await _ready(fd, loop.add_writer, loop.remove_writer)


async def _ready(fd: int, add: Callable[[int, Callable[[], None]], None], remove: Callable[[int], bool]) -> None:
    ready = asyncio.Event()
    add(fd, ready.set)
    try:
        await ready.wait()
    finally:
        remove(fd)

"""A shim's process on this machine, watched through a pidfd."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from fal_grpc.v1 import log_pb2
from fal_runner.log.journal import read_leftover
from fal_runner.process.proc import is_alive, process_info
from fal_runner.shim.address import ShimIdentity
from fal_server.engines.local.ownership import sweep

_LEFTOVER_BYTES = 256 * 1024


class LocalShimProcess:
    """Implements ShimProcess.

    Args:
        directory: the runner's directory.
        identity: what the shim wrote down about itself.
    """

    def __init__(self, directory: Path, identity: ShimIdentity) -> None:
        self.directory = directory
        self.identity = identity
        self.died = asyncio.Event()
        self._pidfd: int | None = None

    @property
    def handle(self) -> str:
        return handle_of(self.identity)

    def watch(self) -> None:
        try:
            handle = os.pidfd_open(self.identity.pid)
        except ProcessLookupError:
            self.died.set()
            return
        found = None
        with contextlib.suppress(OSError):  # nothing can be read now; whoever found the shim has compared its start
            found = process_info(self.identity.pid)
        if found is not None and found.started_ticks != self.identity.started_ticks:
            os.close(handle)  # a later process has its number
            self.died.set()
            return
        self._pidfd = handle
        asyncio.get_running_loop().add_reader(handle, self._notice_death)

    def alive(self) -> bool:
        if self.died.is_set():
            return False
        if self._pidfd is None:
            return is_alive(self.identity.pid, self.identity.started_ticks)
        # Not from /proc: without a free descriptor nothing there can be read, and a healthy runner would count as dead.
        ended = select.poll()
        ended.register(self._pidfd, select.POLLIN)
        return not ended.poll(0)

    async def sweep(self) -> None:
        await sweep(self.identity.tag, self.directory)

    async def leftover(self, after: int) -> AsyncIterator[Sequence[log_pb2.LogEntry]]:
        reader = read_leftover(self.directory / "log", after)
        while reader is not None and (entries := reader.read(_LEFTOVER_BYTES)):
            yield entries

    def close(self) -> None:
        if self._pidfd is not None:
            asyncio.get_running_loop().remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = None

    def _notice_death(self) -> None:
        if self._pidfd is not None:
            asyncio.get_running_loop().remove_reader(self._pidfd)
        with contextlib.suppress(ChildProcessError):  # an earlier controller started it
            os.waitpid(self.identity.pid, os.WNOHANG)
        self.died.set()


def handle_of(identity: ShimIdentity) -> str:
    """Name a shim's process: its pid alone may be another process's by now, with its start time it is not."""
    return f"{identity.pid}/{identity.started_ticks}"

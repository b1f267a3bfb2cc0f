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

    This machine is never given up.

    Args:
        directory: the runner's directory.
        identity: the shim's own record of itself.
    """

    ending = ""

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
        with contextlib.suppress(OSError):  # no /proc now; the start was compared before
            found = process_info(self.identity.pid)
        if found is not None and found.started_ticks != self.identity.started_ticks:
            os.close(handle)  # another process has its pid now
            self.died.set()
            return
        self._pidfd = handle
        asyncio.get_running_loop().add_reader(handle, self._notice_death)

    def alive(self) -> bool:
        if self.died.is_set():
            return False
        if self._pidfd is None:
            return is_alive(self.identity.pid, self.identity.started_ticks)
        # Not by /proc: without a free descriptor it cannot be read, and a healthy runner would count as dead.
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
    """Return the handle of a shim's process. It is pid and start time, because a pid alone is reused."""
    return f"{identity.pid}/{identity.started_ticks}"
